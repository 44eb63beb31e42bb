// SimClients: what git pushes and fetches are to a volume: transactions and consistent reads, at any
// node, tried again with the same transaction id until they are answered.
//
// Each client works on keys that all share. It goes to another node when its node is down, does not
// answer, or by chance. Some transactions name an extent, which is written through the node first.
// Some that were acknowledged are sent once more: the answer must be the same. Some extents are read,
// as a fetch does. Every answer goes to the SimChecker, whose volume it is.
//
// Loop: the cluster's. Cluster and checker outlive it.
#pragma once

#include "sim_checker.h"

namespace packmoor::replicator {

struct SimClientOptions {
  size_t clients = 5;
  int64_t pauseUsMax = 8000;       // between two actions of a client
  uint32_t extentPerMillion = 30'000;
  uint32_t readPerMillion = 300'000;
  uint32_t againPerMillion = 60'000;
  uint32_t extentReadPerMillion = 20'000;
  size_t keys = 5;
  size_t readers = 2;              // that only read, and do not wait for answers
  int64_t readPauseUsMax = 12'000;
};

class SimClients final : private kj::TaskSet::ErrorHandler {
 public:
  SimClients(SimCluster& cluster, SimChecker& checker, const SimClientOptions& options);
  ~SimClients() noexcept(false) {}
  KJ_DISALLOW_COPY(SimClients);

  void stop() { stopping_ = true; }
  bool ended() const { return running_ == 0; }
  // One write and one read at a node; true when both were answered.
  Co<bool> writeAndRead(size_t node);

  uint64_t failed = 0, rejected = 0;

  // What an extent holds follows from its id.
  static constexpr size_t kExtentBytesMax = 3000;
  static kernelio::IoBuffer extentContent(const ExtentId& id, size_t bytes);

 private:
  struct Transaction {
    TxnId txn;
    std::string operation;
    std::vector<ExtentId> extents;
    std::vector<NodeId> sealedOn;
  };

  Co<void> client(size_t number);
  Co<void> write(size_t number, size_t node);
  Co<void> attempt(size_t number, size_t node, Transaction transaction);
  Co<void> again(Transaction transaction);
  Co<void> read(size_t node);
  Co<void> reader();
  Co<void> readAside(size_t node);
  Co<void> readExtent(size_t node);
  bool serves(size_t node) { return cluster_.node(node).hasVolume(checker_.volume().c_str()); }
  Volume& volumeAt(size_t node) { return cluster_.node(node).volume(checker_.volume().c_str()); }
  Co<ReplicatedExtentWriter::Sealed> writeExtent(size_t node);
  // True: it was accepted.
  bool judge(const Transaction& transaction, SimChecker::Began began, const ProposeOutcome& outcome);
  Transaction begin(size_t node);
  Proposal proposalOf(const Transaction& transaction);
  kj::Promise<void> pause(int64_t usMax);
  void taskFailed(kj::Exception&& exception) override;

  SimCluster& cluster_;
  SimChecker& checker_;
  const SimClientOptions options_;
  kernelio::SeededRandom random_;
  bool stopping_ = false;
  size_t running_ = 0;
  uint64_t values_ = 0;
  size_t readsAside_ = 0;
  kj::TaskSet tasks_{*this};
};

}  // namespace packmoor::replicator
