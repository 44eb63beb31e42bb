#include "fetch_work.h"

#include "object_names.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

// ---- wants

ObjectType FetchWork::typeOf(const ObjectId& id) {
  KJ_IF_MAYBE(header, source().header(id)) { return header->type; }
  return ObjectType::kNone;
}

Problem FetchWork::refusedWant() const {
  if (refusedRef_) return "unknown ref " + quotedLine(*refusedRef_);
  if (refused_) return "not our ref " + std::string(refused_->hex().cStr());
  return std::nullopt;
}

void FetchWork::readWantRefs() {
  for (const std::string& name : request.wantRefs) {
    auto ref = view().ref(name == "HEAD" ? view().info().head : name);
    if (!ref) {
      refusedRef_ = name;
      return;
    }
    ref->name = name;
    request.wants.add(ref->id);
    wantedRefs_.push_back(std::move(*ref));
  }
}

void FetchWork::beginWants() {
  using Wants = UploadPolicy::Wants;
  const Wants policy = request.policy.wants;
  wantsBegun_ = true;
  readWantRefs();
  wantsDecided_ = refusedRef_.has_value();
  if (wantsDecided_) return;
  // Where nothing was ever deleted or rewritten, refs reach everything.
  const bool anyThatIsHere =
      policy == Wants::kAny || (policy == Wants::kReachable && view().refsReachAll());
  std::vector<ObjectId> unsure;
  for (const ObjectId& want : request.wants.names()) {
    if (!anyThatIsHere || !source().exists(want)) unsure.push_back(want);
  }
  wantsDecided_ = unsure.empty();
  if (wantsDecided_) return;
  OidIndex tips;
  view().forEachRef("", [&](const Ref& ref) {
    tips.add(ref.id);
    return true;
  });
  OidIndex hidden;
  if (request.policy.hiddenTips) {
    view().whole().forEachRef("", [&](const Ref& ref) {
      hidden.add(ref.id);
      return true;
    });
  }
  std::vector<ObjectId> others;   // trees, blobs and tags
  for (const ObjectId& want : unsure) {
    if (tips.contains(want) || hidden.contains(want)) continue;
    ObjectType type = typeOf(want);
    if (anyThatIsHere || policy == Wants::kTips || type == ObjectType::kNone) {
      refused_ = want;
      wantsDecided_ = true;
      return;
    }
    (type == ObjectType::kCommit ? notTips_ : others).push_back(want);
  }
  wantsDecided_ = notTips_.empty() && others.empty();
  if (!others.empty()) {
    search_ = std::make_unique<ObjectSearch>(commits_, others, tips.names());
  }
  if (!notTips_.empty()) {
    reachable_ = std::make_unique<ObjectWalk>(commits_, notTips_, tips.names());
    reachable_->commitsOnly();
  }
}

bool FetchWork::stepWants(uint32_t budget) {
  if (!wantsBegun_) beginWants();
  if (!wantsDecided_) wantsDecided_ = stepReachable(budget);
  return wantsDecided_;
}

// The commits first: that is cheaper.
bool FetchWork::stepReachable(uint32_t budget) {
  if (reachable_ != nullptr) {
    if (!reachable_->step(budget)) return false;
    for (const ObjectId& want : notTips_) {
      if (!refused_ && reachable_->sends(want)) refused_ = want;
    }
    reachable_ = nullptr;
    if (refused_ || search_ != nullptr) return refused_.has_value();
  }
  if (search_ == nullptr) return true;
  // Trees are larger than commits.
  if (!search_->step(budget / 8)) return false;
  if (auto* id = search_->notReached()) refused_ = *id;
  search_ = nullptr;
  return true;
}

// ---- filter

Problem FetchWork::openFilter() {
  auto names = request.filter->sparseNames();
  for (size_t i = 0; i < names.size(); ++i) {
    auto id = objectNamed(view(), names[i]);
    auto header = id ? source().header(*id) : nullptr;
    const bool isBlob = header.map([](ObjectHeader& h) { return h.type == ObjectType::kBlob; })
                            .orDefault(false);
    if (!isBlob) return "upload-pack: unable to access sparse blob in " + quotedLine(names[i]);
    KJ_IF_MAYBE(found, header) {
      if (found->bytes > PathPatterns::kBytesMax) {
        return "upload-pack: the sparse blob in " + quotedLine(names[i]) + " is larger than " +
               std::to_string(PathPatterns::kBytesMax) + " bytes";
      }
    }
    KJ_IF_MAYBE(blob, source().read(*id)) {
      std::string_view text(reinterpret_cast<const char*>(blob->data.begin()), blob->data.size());
      if (auto problem = request.filter->setSparse(i, text)) return "upload-pack: " + *problem;
    }
  }
  return std::nullopt;
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
    ObjectType type;
    ObjectId id = withoutTags(source(), want, type);
    if (type == ObjectType::kCommit) wantCommits_.push_back(commits_.add(id));
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
    everything_ = common_.empty() && shallow_ == nullptr && !request.filter && wantsEveryRef();
    if (everything_ && request.ofsDelta && view().refsReachAll()) {
      scan_ = std::make_unique<CloneScan>(source());
    } else {
      beginWalk();
      if (request.filter) walk_->leaveOut(*request.filter);
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
  if (everything_ && !view().refsReachAll() && !stepCompare(budget)) return false;
  if (request.includeTag) includeTags();
  builder = PackBuilder::copyObjects(source(), walk_->take(), options);
  // Sending may take long; only the builder's table is needed for it.
  walk_ = nullptr;
  commits_.clear();
  return true;
}

// Whether what the refs reach is all there is: then the next clone need not look. True: compared.
bool FetchWork::stepCompare(uint32_t budget) {
  if (compared_ == nullptr) {
    compared_ = std::make_unique<Compared>();
    compared_->hot = source().hotObjects();
    for (PackView& pack : source().packs()) {
      // It is cheap to see that some are missing.
      if (pack.objectCount > walk_->found()) return true;
      compared_->packs.emplace_back(kj::mv(pack));
    }
  }
  Compared& at = *compared_;
  for (; budget > 0 && at.pack < at.packs.size(); --budget) {
    const PackIndexView& pack = at.packs[at.pack];
    if (at.next == 0) pack.needNames(0, pack.size());
    if (at.next == pack.size()) {
      ++at.pack;
      at.next = 0;
    } else if (!walk_->sends(pack.name(at.next++))) {
      return true;
    }
  }
  for (; budget > 0 && at.nextHot < at.hot.size(); --budget) {
    if (!walk_->sends(at.hot[at.nextHot++])) return true;
  }
  if (at.pack < at.packs.size() || at.nextHot < at.hot.size()) return false;
  view().noteRefsReachAll();
  return true;
}

void FetchWork::includeTags() {
  view().forEachRef("refs/tags/", [&](const Ref& ref) {
    if (!ref.peeled.isZero()) walk_->includeTag(ref.id, ref.peeled);
    return true;
  });
}

}  // namespace packmoor::gitlayer
