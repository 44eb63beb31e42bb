// PrunePlan: what a prune of a repository may drop, computed from one state of it.
//
// What is kept: what refs reach; what came within the grace period, and what it reaches; every object of
// a pack that has a kept one in it, since packs are not rewritten here, and what those reach. So what is
// kept names nothing that is dropped, reachable or not. Connectivity of later pushes rests on that: it
// asks whether an object is there, not whether a ref reaches it (connectivity.h).
//
// Time: the reflog maps it to indexes. An object counts from the record that brought it, a pack that was
// settled from its settling. A repository whose reflog does not reach back to the beginning of the grace
// period keeps everything.
//
// CPU work and reads of the state, for a worker in slices. It keeps state and view alive. Memory: as
// reachable_set.h, and about 40 bytes a hot object that is dropped.
#pragma once

#include "reachable_set.h"
#include "record_codec.h"
#include "state_store.h"
#include "state_tables.h"

#include <memory>
#include <optional>
#include <set>

namespace packmoor::gitlayer {

struct PrunePlan {
  uint64_t computedAt = 0;         // index of the state
  std::vector<ObjectId> objects;   // hot
  std::vector<replicator::ExtentId> packs;
  uint64_t objectBytes = 0, packBytes = 0, packedObjects = 0;
  uint64_t kept = 0;               // objects
  bool empty() const { return objects.empty() && packs.empty(); }
};

class PruneJob {
 public:
  // `view` is the repository's in `state`. What came at `youngSinceMs` or later is kept; nullopt: nothing
  // is kept for being young.
  PruneJob(std::shared_ptr<const StateReader> state, kj::Own<RepositoryView> view,
           std::optional<int64_t> youngSinceMs);
  KJ_DISALLOW_COPY(PruneJob);

  // After completion: begins again from a newer state, of which little need be looked at. What was kept
  // stays kept, though it may have become unreachable since.
  void renew(std::shared_ptr<const StateReader> state, kj::Own<RepositoryView> view);

  // Looks at about `budget` objects. True: complete. Rejects with a sentence when an object that is to be
  // kept cannot be read, or when one record does not take what is to be dropped.
  bool step(uint32_t budget);
  PrunePlan take() { return std::move(plan_); }   // after completion, once

 private:
  enum class Phase : uint8_t { kBegin, kWalk, kPacks, kHot, kDone };
  struct Pack {
    PackRow row;
    PackView view;
    bool kept = false;
  };

  void begin();
  uint64_t youngFrom() const;
  bool stepPacks(uint32_t& budget);
  bool lookAt(Pack& pack, uint32_t& budget);
  void collect();

  std::shared_ptr<const StateReader> state_;
  kj::Own<RepositoryView> view_;
  RepositoryId repository_;
  const std::optional<int64_t> youngSinceMs_;
  Phase phase_ = Phase::kBegin;
  ReachableSet kept_;
  std::set<replicator::ExtentId> packsKept_;   // whose objects are all in the set
  std::vector<Pack> packs_;
  size_t packAt_ = 0;
  uint32_t nameAt_ = 0;
  bool grew_ = false;   // packs were kept in this turn over them
  PrunePlan plan_;
};

}  // namespace packmoor::gitlayer
