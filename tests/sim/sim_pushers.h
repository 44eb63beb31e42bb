// SimPushers: what git pushes and prunes of repositories are to a volume (kv_repositories.h, rule 21).
//
// A pusher looks at the state of any node, however old, and decides what to push: a new object, or one
// that is there, whether a ref names it or not. A pruner decides what no ref names. Both propose a while
// later, and again until they are answered. A push that must be verified again is, as by a front, under a
// new transaction id. Every answer goes to the SimChecker.
//
// Loop: the cluster's. Cluster and checker outlive it.
#pragma once

#include "sim_checker.h"

namespace packmoor::replicator {

class SimPushers final : private kj::TaskSet::ErrorHandler {
 public:
  // `bound`: what was checked at a node is proposed there, as long as it lives. Else anywhere, since all
  // nodes have one history; where losses are accepted, they need not.
  SimPushers(SimCluster& cluster, SimChecker& checker, bool bound);
  ~SimPushers() noexcept(false) {}
  KJ_DISALLOW_COPY(SimPushers);

  void stop() { stopping_ = true; }
  bool ended() const { return running_ == 0; }
  std::string told() const;   // what came of them

 private:
  struct Checked {               // against the state of a node
    size_t node;
    uint64_t life;
  };

  Co<void> pusher();
  Co<void> pruner();
  Co<void> push();
  Co<void> prune();
  // Empty: never answered.
  Co<std::string> propose(Checked checked, std::string operation);
  bool mayPropose(const Checked& checked);
  size_t anyNode();
  size_t anyNode(const Checked& checked);   // where it may be proposed
  kj::Promise<void> pause(uint64_t usMax);
  void taskFailed(kj::Exception&& exception) override;

  SimCluster& cluster_;
  SimChecker& checker_;
  const bool bound_;
  kernelio::SeededRandom random_;
  bool stopping_ = false;
  size_t running_ = 0;
  uint64_t objects_ = 0;
  uint64_t pushed_ = 0, again_ = 0, pruned_ = 0, voided_ = 0;
  kj::TaskSet tasks_{*this};
};

}  // namespace packmoor::replicator
