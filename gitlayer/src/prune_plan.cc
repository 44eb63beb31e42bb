#include "prune_plan.h"

#include "pack_index_view.h"
#include "record_applier.h"

#include <kernelio/check.h>
#include <kj/debug.h>

namespace packmoor::gitlayer {

PruneJob::PruneJob(std::shared_ptr<const StateReader> state, kj::Own<RepositoryView> view,
                   std::optional<int64_t> youngSinceMs)
    : state_(std::move(state)),
      view_(kj::mv(view)),
      repository_(view_->info().id),
      youngSinceMs_(youngSinceMs),
      kept_(view_->objects()) {}

void PruneJob::renew(std::shared_ptr<const StateReader> state, kj::Own<RepositoryView> view) {
  kept_.setSource(view->objects());
  packs_.clear();
  view_ = kj::mv(view);
  state_ = std::move(state);
  if (view_->info().id != repository_) {  // another one has the name now
    repository_ = view_->info().id;
    packsKept_.clear();
  }
  plan_ = PrunePlan();
  phase_ = Phase::kBegin;
}

bool PruneJob::step(uint32_t budget) {
  while (phase_ != Phase::kDone) {
    switch (phase_) {
      case Phase::kBegin:
        begin();
        phase_ = Phase::kWalk;
        break;
      case Phase::kWalk:
        if (!kept_.step(budget)) return false;
        packAt_ = nameAt_ = 0;
        grew_ = false;
        phase_ = Phase::kPacks;
        break;
      case Phase::kPacks:
        if (!stepPacks(budget)) return false;
        // What the newly kept packs reach may lie in packs that were not kept so far.
        phase_ = grew_ ? Phase::kWalk : Phase::kHot;
        break;
      case Phase::kHot:
        collect();
        phase_ = Phase::kDone;
        break;
      case Phase::kDone:
        break;
    }
  }
  return true;
}

void PruneJob::begin() {
  plan_.computedAt = view_->index().value;
  view_->forEachRef("", [this](const Ref& ref) {
    kept_.add(ref.id);
    return true;
  });
  const uint64_t youngIndex = youngFrom();
  const size_t skip = hotPrefix(repository_).size();
  if (youngIndex != UINT64_MAX) {
    state_->scan(hotPrefix(repository_), {}, [&](std::string_view key, std::string_view value) {
      if (HotRow::decode(value).appliedAt >= youngIndex) {
        kept_.add(ObjectId::fromBytes(key.substr(skip).data()));
      }
      return true;
    });
  }
  state_->scan(packPrefix(repository_), {}, [&](std::string_view key, std::string_view value) {
    Pack pack;
    pack.row = PackRow::decode(key, value);
    pack.kept = pack.row.addedAt >= youngIndex || packsKept_.count(pack.row.pack) > 0;
    packs_.push_back(std::move(pack));
    return true;
  });
  // In the same order: that of the state's rows.
  auto views = view_->objects().packs();
  PACKMOOR_CHECK(views.size() == packs_.size(), "packs of a view", views.size(), packs_.size());
  for (size_t i = 0; i < views.size(); ++i) packs_[i].view = kj::mv(views[i]);
}

uint64_t PruneJob::youngFrom() const {
  if (!youngSinceMs_.has_value()) return UINT64_MAX;
  uint64_t from = UINT64_MAX;
  bool old = false;   // an entry from before the period was seen
  state_->scan(reflogPrefix(repository_), {}, [&](std::string_view, std::string_view value) {
    const ReflogRow entry = ReflogRow::decode(value);
    if (entry.timeMs < *youngSinceMs_) {
      old = true;
      return true;
    }
    from = entry.index;
    return false;
  });
  const auto row = findRepository(*state_, repository_);
  const bool forgotten = row.has_value() && row->reflogNext > kReflogEntriesMax;
  return from != UINT64_MAX && !old && forgotten ? 0 : from;
}

bool PruneJob::stepPacks(uint32_t& budget) {
  for (; packAt_ < packs_.size(); ++packAt_, nameAt_ = 0) {
    Pack& pack = packs_[packAt_];
    if (packsKept_.count(pack.row.pack) > 0) continue;
    if (!pack.kept && !lookAt(pack, budget)) return false;
    if (!pack.kept) continue;
    PackIndexView index(pack.view);
    index.needNames(0, index.size());
    for (; nameAt_ < index.size(); ++nameAt_, --budget) {
      if (budget == 0) return false;
      kept_.add(index.name(nameAt_));
    }
    packsKept_.insert(pack.row.pack);
    grew_ = true;
  }
  return true;
}

// Whether an object of the pack is kept; then all are. False: the budget is used up.
bool PruneJob::lookAt(Pack& pack, uint32_t& budget) {
  PackIndexView index(pack.view);
  index.needNames(0, index.size());
  for (; nameAt_ < index.size(); ++nameAt_, --budget) {
    if (budget == 0) return false;
    if (!kept_.contains(index.name(nameAt_))) continue;
    pack.kept = true;
    nameAt_ = 0;
    return true;
  }
  return true;
}

void PruneJob::collect() {
  plan_.kept = kept_.size();
  for (const Pack& pack : packs_) {
    if (pack.kept) continue;
    plan_.packs.push_back(pack.row.pack);
    plan_.packBytes += pack.row.packBytes;
    plan_.packedObjects += pack.row.objectCount;
  }
  const size_t skip = hotPrefix(repository_).size();
  state_->scan(hotPrefix(repository_), {}, [&](std::string_view key, std::string_view value) {
    const ObjectId id = ObjectId::fromBytes(key.substr(skip).data());
    if (kept_.contains(id)) return true;
    plan_.objects.push_back(id);
    plan_.objectBytes += HotRow::decode(value).deflated.size();
    return plan_.objects.size() <= kPruneObjectsMax;
  });
  // A part of them would not do: what is left might name what is dropped.
  KJ_REQUIRE(plan_.objects.size() <= kPruneObjectsMax && plan_.packs.size() <= kPrunePacksMax,
             "More is unreachable than one record takes. Small pushes are settled into packs by and "
             "by: try again in some minutes.",
             kPruneObjectsMax, kPrunePacksMax);
}

}  // namespace packmoor::gitlayer
