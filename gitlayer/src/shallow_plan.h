// ShallowPlan: where a history is cut that is sent to a client, or that a client has already.
//
// Why: a shallow client lacks the parents of some commits ("shallow <oid>" in its request). What it
// is sent must be computed in its history and not in ours, and "deepen" asks for another cut. The
// plan says what to tell the client, what more is wanted because of it, and which commits have no
// parents for the walk that follows (gitprotocol-pack(5), gitprotocol-v2(5)).
//
// Depths are shortest distances from the wants, or from the client's own cuts (deepen-relative). A
// cut by time or by refs is found by the same walk as `git rev-list --max-age --not`.
// The client's cuts are moved only where refs reach them, since their parents are sent.
//
// step() is called on one thread at a time, usually on a worker; a damaged or missing commit rejects
// with a sentence. Memory: a byte per commit looked at, beside the table.
#pragma once

#include "gitlayer/commit_table.h"
#include "gitlayer/object_walk.h"
#include "gitlayer/repository.h"
#include "upload_request.h"

#include <memory>

namespace packmoor::gitlayer {

class ShallowPlan {
 public:
  // `wants` as they were asked for, `wantCommits` as numbers of the table. All outlive the plan.
  ShallowPlan(RepositoryView& view, CommitTable& commits, const ShallowRequest& request,
              const std::vector<ObjectId>& wants, const std::vector<uint32_t>& wantCommits);
  KJ_DISALLOW_COPY(ShallowPlan);

  // Looks at about `budget` commits. True: decided.
  bool step(uint32_t budget);

  // ---- After that --------------------------------------------------------------------------
  const Problem& problem() const { return problem_; }
  const std::vector<ObjectId>& shallow() const { return shallow_; }      // to tell the client
  const std::vector<ObjectId>& unshallow() const { return unshallow_; }  // likewise
  const std::vector<ObjectId>& moreWants() const { return moreWants_; }  // parents of unshallow()
  // Takes the parents away from all commits where the client's history will be cut.
  void cutHistory();

 private:
  enum class Phase : uint8_t { kReachable, kDepth, kRevisions, kDone };
  enum : uint8_t { kSeen = 1, kInside = 2 };  // kInside: with all of its parents

  void readShallows();
  void beginReachable();
  void endReachable();
  void beginDepth(const std::vector<uint32_t>& heads, uint32_t depth);
  void stepDepth(uint32_t& budget);
  void beginRevisions();
  void endRevisions();
  void finish();
  uint8_t& flags(uint32_t commit);

  RepositoryView& view_;
  CommitTable& commits_;
  const ShallowRequest& request_;
  const std::vector<ObjectId>& wants_;
  const std::vector<uint32_t>& wantCommits_;

  Phase phase_ = Phase::kReachable;
  std::vector<uint32_t> shallows_;        // the client's that are here
  std::vector<uint32_t> reachable_;       // of these
  std::unique_ptr<ObjectWalk> walk_;
  std::vector<uint8_t> flags_;
  std::vector<uint32_t> level_, nextLevel_;  // commits at one distance
  size_t levelDone_ = 0;
  uint32_t levelsLeft_ = 0;
  std::vector<uint32_t> borders_;

  Problem problem_;
  std::vector<ObjectId> shallow_, unshallow_, moreWants_;
  std::vector<uint32_t> cuts_;
};

}  // namespace packmoor::gitlayer
