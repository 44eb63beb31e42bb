// Maintenance: what a node does to its volumes' states without being asked, for the volumes that it
// leads: it settles repositories that have many hot objects, merges the packs of those that have
// many, and ends those that were deleted and have been kept for long enough.
//
// Three lanes, since a merge may take minutes: in each one repository at a time, so that its memory and
// disk traffic are bounded. A lane wakes when a state machine asks for it, and from time to time, for
// candidates of a volume whose lead came to this node and for what failed before. A repository that
// fails again and again is tried less and less often. Loop: the node's.
#pragma once

#include "gitlayer/git_node.h"

#include <kernelio/co.h>

#include <map>
#include <string>

namespace packmoor::gitlayer {

class Maintenance {
 public:
  static constexpr kj::Duration kInterval = 5 * kj::SECONDS;
  // After a failure, doubled for each in a row.
  static constexpr kj::Duration kRetryMin = 5 * kj::SECONDS, kRetryMax = 10 * kj::MINUTES;

  Maintenance(GitNode& node, replicator::ExtentStore& extents);

  void wake();
  kj::Promise<void> run();               // until dropped

  GitNode::MaintenanceStatus status() const;

 private:
  struct Lane {
    // Of one repository. True: something was done.
    kj::Function<kj::Promise<bool>(replicator::Volume&, RepositoryId)> work;
    kj::Function<std::vector<RepositoryId>(replicator::Volume&)> candidates;
    bool wanted = true;
    kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> sleeping;
    GitNode::MaintenanceLane status;
    struct Failing {
      uint32_t times = 0;                // in a row
      kj::TimePoint notBefore = kj::origin<kj::TimePoint>();
      bool candidate = true;             // in the newest round
    };
    std::map<RepositoryId, Failing> failing;
  };
  Co<void> loop(Lane& lane);
  Co<void> round(Lane& lane);
  Co<void> ofVolume(Lane& lane, std::string volumeName);
  Co<void> attempt(Lane& lane, replicator::Volume& volume, RepositoryId repository);
  void noteFailure(Lane& lane, const RepositoryId& repository, const kj::Exception& failure);

  GitNode& node_;
  Lane settling_, repacking_, dropping_;
};

}  // namespace packmoor::gitlayer
