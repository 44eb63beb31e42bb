// Maintenance: what a node does to its volumes' states without being asked: for the volumes that
// it leads, it settles repositories that have many hot objects.
//
// One repository at a time, so that its memory and disk traffic are bounded. It wakes when a
// state machine asks for it, and from time to time, for candidates of a volume whose lead came
// to this node and for what failed before. Loop: the node's.
#pragma once

#include <kernelio/co.h>
#include <kernelio/env.h>
#include <replicator/replicator.h>

#include <string>

namespace packmoor::gitlayer {

class Maintenance {
 public:
  static constexpr kj::Duration kInterval = 5 * kj::SECONDS;

  Maintenance(kernelio::Env& env, replicator::ExtentStore& extents)
      : env_(env), extents_(extents) {}

  void wake();
  kj::Promise<void> run(replicator::Replicator& replicator);  // until dropped

  uint64_t settled() const { return settled_; }
  const std::string& lastError() const { return lastError_; }

 private:
  Co<void> loop(replicator::Replicator& replicator);
  Co<void> settleVolume(replicator::Volume& volume);

  kernelio::Env& env_;
  replicator::ExtentStore& extents_;
  bool wanted_ = true;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> sleeping_;
  uint64_t settled_ = 0;
  std::string lastError_;
};

}  // namespace packmoor::gitlayer
