// FetchWork: all that one fetch knows and finds, for the workers.
//
// Why: a job on a worker may outlive the session that asked for it, so sessions and jobs share
// this. Its parts are touched by one job at a time, and by the loop only between jobs. It keeps
// the repository's view alive; the view may end on a worker.
#pragma once

#include "gitlayer/object_walk.h"
#include "gitlayer/pack_builder.h"
#include "gitlayer/repository.h"
#include "object_search.h"
#include "pack_index_view.h"
#include "shallow_plan.h"
#include "upload_request.h"

#include <atomic>
#include <memory>

namespace packmoor::gitlayer {

using SharedView = std::shared_ptr<kj::Own<RepositoryView>>;

class FetchWork {
 public:
  FetchWork(SharedView view, FetchRequest request)
      : request(std::move(request)), view_(std::move(view)), commits_(source()), reach_(commits_) {}
  KJ_DISALLOW_COPY(FetchWork);

  FetchRequest request;

  RepositoryView& view() { return **view_; }
  ObjectSource& source() { return view().objects(); }
  const SharedView& sharedView() { return view_; }

  // ---- Wants -------------------------------------------------------------------------------
  // The first want that a client may not have by request.policy. What refs reach may be wanted since
  // another node, or this one a moment ago, may have shown a ref that has moved on.
  bool stepWants(uint32_t budget);               // true: decided
  Problem refusedWant() const;   // a sentence
  // The wanted refs with their values, when nothing is refused.
  const std::vector<Ref>& wantedRefs() const { return wantedRefs_; }

  // ---- Filter ------------------------------------------------------------------------------
  // Finds what the request's filter names.
  Problem openFilter();

  // ---- Negotiation -------------------------------------------------------------------------
  // Looks up request.haves from where the last call ended, about `budget` of them; true: all.
  bool stepHaves(uint32_t budget);
  const std::vector<bool>& known() const { return known_; }  // one per have
  // A new round: its haves replace the old ones; what is common stays.
  void nextRound(std::vector<ObjectId> haves);
  const OidIndex& common() const { return common_; }
  // Whether each want reaches something common; true: decided.
  bool stepReady(uint32_t budget);
  bool ready() const { return ready_; }

  // ---- Shallow histories -------------------------------------------------------------------
  // Where history is cut, of a request whose wants are decided; true: shallow() is decided.
  bool stepShallow(uint32_t budget);
  const ShallowPlan& shallow() const { return *shallow_; }

  // ---- The pack ----------------------------------------------------------------------------
  // Chooses the way and finds the objects; true: `builder` is there.
  bool stepPlan(uint32_t budget);
  uint64_t objectsFound() const { return walk_ ? walk_->found() : 0; }
  size_t wholePacks() const { return wholePacks_; }
  std::unique_ptr<PackBuilder> builder;

 private:
  void readWantRefs();
  void beginWants();
  ObjectType typeOf(const ObjectId& id);
  bool stepReachable(uint32_t budget);
  void loadWants();
  void beginWalk();
  std::vector<ObjectId> newestCommon();
  bool wantsEveryRef();
  bool stepCompare(uint32_t budget);
  void includeTags();

  SharedView view_;
  CommitTable commits_;

  std::vector<ObjectId> notTips_;           // wanted commits that are no refs' values
  std::unique_ptr<ObjectSearch> search_;    // for other wants of that kind
  std::unique_ptr<ObjectWalk> reachable_;
  std::optional<ObjectId> refused_;
  std::optional<std::string> refusedRef_;
  std::vector<Ref> wantedRefs_;
  bool wantsBegun_ = false, wantsDecided_ = false;

  size_t nextHave_ = 0;
  std::vector<bool> known_;
  OidIndex common_;
  std::vector<uint32_t> wantCommits_;
  bool wantsLoaded_ = false;
  ReachTest reach_;
  bool ready_ = false;

  std::unique_ptr<ShallowPlan> shallow_;   // of requests with anything shallow

  std::unique_ptr<CloneScan> scan_;
  std::unique_ptr<ObjectWalk> walk_;
  size_t wholePacks_ = 0;

  // What there is, while it is compared with what was walked.
  struct Compared {
    std::vector<PackIndexView> packs;
    std::vector<ObjectId> hot;
    size_t pack = 0, nextHot = 0;
    uint32_t next = 0;
  };
  bool everything_ = false;   // all refs are wanted, nothing is there
  std::unique_ptr<Compared> compared_;
};

}  // namespace packmoor::gitlayer
