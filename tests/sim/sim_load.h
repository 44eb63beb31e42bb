// SimLoad: clients that propose one transaction after another through nodes of a SimCluster.
//
// Each client has a key of its own and swaps its value from one number to the next, so a lost or
// repeated transaction shows in the values, too. A client whose proposal fails goes on with
// reading what is there. A client on a node that is down waits until it is up.
#pragma once

#include "sim_cluster.h"

namespace packmoor::replicator {

class SimLoad final : private kj::TaskSet::ErrorHandler {
 public:
  // `pauseMsMax`: of a client between two proposals, random.
  SimLoad(SimCluster& cluster, std::vector<size_t> nodesOfClients, int64_t pauseMsMax = 2);
  ~SimLoad() noexcept(false) {}

  void stop() { stopping_ = true; }
  void join();                    // stops, and waits for the proposals under way
  uint64_t done = 0;              // acknowledged
  uint64_t lost = 0;              // rejected by the state machine
  uint64_t failed = 0;            // the promise rejected
  uint64_t reads = 0, staleReads = 0;
  std::string lastFailure;
  int64_t longestMs = 0;          // from propose to answer

 private:
  Co<void> client(size_t number, size_t node);
  Co<void> reader(size_t number, size_t node);
  void taskFailed(kj::Exception&& exception) override;

  SimCluster& cluster_;
  const int64_t pauseMsMax_;
  bool stopping_ = false;
  size_t running_ = 0;
  std::vector<uint64_t> acknowledgedValue_;   // by client: the highest that was acknowledged
  kj::TaskSet tasks_{*this};
};

}  // namespace packmoor::replicator
