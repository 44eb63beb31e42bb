#include "fetch_work.h"

#include "object_scan.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

// ---- wants

bool FetchWork::isCommit(const ObjectId& id) {
  KJ_IF_MAYBE(header, source().header(id)) { return header->type == ObjectType::kCommit; }
  return false;
}

void FetchWork::beginWants() {
  wantsBegun_ = true;
  for (const ObjectId& want : request.wants.names()) {
    // Where nothing was ever deleted or rewritten, refs reach every commit.
    if (!view().info().appendOnly || !isCommit(want)) notTips_.push_back(want);
  }
  if (notTips_.empty()) {
    wantsDecided_ = true;
    return;
  }
  OidIndex tips;
  view().forEachRef("", [&](const Ref& ref) {
    tips.add(ref.id);
    return true;
  });
  std::erase_if(notTips_, [&](const ObjectId& want) { return tips.contains(want); });
  wantsDecided_ = notTips_.empty();
  for (const ObjectId& want : notTips_) {
    if (isCommit(want)) continue;
    refused_ = want;
    wantsDecided_ = true;
    return;
  }
  if (wantsDecided_) return;
  reachable_ = std::make_unique<ObjectWalk>(commits_, notTips_, tips.names());
  reachable_->commitsOnly();
}

bool FetchWork::stepWants(uint32_t budget) {
  if (!wantsBegun_) beginWants();
  if (wantsDecided_) return true;
  if (!reachable_->step(budget)) return false;
  wantsDecided_ = true;
  for (const ObjectId& want : notTips_) {
    if (!refused_ && reachable_->sends(want)) refused_ = want;
  }
  reachable_ = nullptr;
  return true;
}

// ---- negotiation

void FetchWork::nextRound(std::vector<ObjectId> haves) {
  request.haves = std::move(haves);
  known_.clear();
  nextHave_ = 0;
}

bool FetchWork::stepHaves(uint32_t budget) {
  bool grew = false;
  for (; budget > 0 && nextHave_ < request.haves.size(); --budget, ++nextHave_) {
    const ObjectId& have = request.haves[nextHave_];
    ObjectType type = ObjectType::kNone;
    KJ_IF_MAYBE(header, source().header(have)) { type = header->type; }
    known_.push_back(type != ObjectType::kNone);
    if (!known_.back() || !common_.insert(have)) continue;
    if (type == ObjectType::kCommit) {
      reach_.addHave(commits_.add(have));
      grew = true;
    }
  }
  if (grew) reach_.restart();
  return nextHave_ == request.haves.size();
}

// Wants that are commits, or tags of commits. Ancestry says nothing about others.
void FetchWork::loadWants() {
  wantsLoaded_ = true;
  for (const ObjectId& want : request.wants.names()) {
    ObjectId id = want;
    for (;;) {
      auto header = source().header(id);
      auto& found = KJ_REQUIRE_NONNULL(header, "object is missing from the repository", id);
      if (found.type == ObjectType::kCommit) wantCommits_.push_back(commits_.add(id));
      if (found.type != ObjectType::kTag) break;
      auto tag = source().read(id);
      ObjectType targetType;
      KJ_REQUIRE(scanTag(KJ_REQUIRE_NONNULL(tag, "tag is missing", id).data, id, targetType),
                 "tag is damaged", id);
    }
  }
}

bool FetchWork::stepReady(uint32_t budget) {
  if (ready_ || common_.empty()) return true;
  if (!wantsLoaded_) loadWants();
  if (!reach_.step(wantCommits_, budget)) return false;
  ready_ = reach_.reached();
  return true;
}

// ---- shallow histories

bool FetchWork::stepShallow(uint32_t budget) {
  if (shallow_ == nullptr) {
    if (!wantsLoaded_) loadWants();
    shallow_ = std::make_unique<ShallowPlan>(view(), commits_, request.shallow,
                                             request.wants.names(), wantCommits_);
  }
  return shallow_->step(budget);
}

// ---- the pack

// Some of the client's commits, the newest first.
std::vector<ObjectId> FetchWork::newestCommon() {
  std::vector<std::pair<int64_t, ObjectId>> dated;
  for (const ObjectId& id : common_.names()) {
    uint32_t commit = commits_.find(id);
    if (commit != OidIndex::kAbsent) dated.emplace_back(-commits_.load(commit).date, id);
  }
  size_t count = std::min<size_t>(dated.size(), ObjectWalk::kParentsCompared);
  std::partial_sort(dated.begin(), dated.begin() + count, dated.end());
  std::vector<ObjectId> newest;
  for (size_t i = 0; i < count; ++i) newest.push_back(dated[i].second);
  return newest;
}

void FetchWork::beginWalk() {
  std::vector<ObjectId> wants = request.wants.names(), haves = common_.names();
  if (shallow_ == nullptr) {
    walk_ = std::make_unique<ObjectWalk>(commits_, std::move(wants), std::move(haves));
    return;
  }
  // Here and not earlier: negotiation goes by history as it is.
  std::vector<ObjectId> near = newestCommon();
  shallow_->cutHistory();
  auto& more = shallow_->moreWants();
  auto& deepened = shallow_->unshallow();
  wants.insert(wants.end(), more.begin(), more.end());
  haves.insert(haves.end(), deepened.begin(), deepened.end());
  walk_ = std::make_unique<ObjectWalk>(commits_, std::move(wants), std::move(haves));
  walk_->compareWith(near, deepened);
}

bool FetchWork::wantsEveryRef() {
  bool every = true;
  view().forEachRef("", [&](const Ref& ref) {
    every = request.wants.contains(ref.id);
    return every;
  });
  return every;
}

bool FetchWork::stepPlan(uint32_t budget) {
  PackOptions options;
  options.ofsDelta = request.ofsDelta;
  options.thin = request.thinPack && !common_.empty();
  if (scan_ == nullptr && walk_ == nullptr) {
    bool reuse = common_.empty() && request.ofsDelta && view().info().appendOnly &&
                 shallow_ == nullptr && wantsEveryRef();
    if (reuse) {
      scan_ = std::make_unique<CloneScan>(source());
    } else {
      beginWalk();
    }
    return false;
  }
  if (scan_ != nullptr) {
    if (!scan_->step(budget * 8)) return false;
    wholePacks_ = scan_->wholePacks();
    builder = scan_->builder(options);
    scan_ = nullptr;
    return true;
  }
  if (!walk_->step(budget)) return false;
  if (request.includeTag) includeTags();
  builder = PackBuilder::copyObjects(source(), walk_->take(), options);
  // Sending may take long; only the builder's table is needed for it.
  walk_ = nullptr;
  commits_.clear();
  return true;
}

void FetchWork::includeTags() {
  view().forEachRef("refs/tags/", [&](const Ref& ref) {
    if (!ref.peeled.isZero()) walk_->includeTag(ref.id, ref.peeled);
    return true;
  });
}

}  // namespace packmoor::gitlayer
