// SimCluster: whole nodes of the replicator in one process, under virtual time, from one seed.
//
// Each node has the real journal and the real extent store on a simulated disk, a KvStateMachine,
// and a view of one SimCoordinator and one SimNetwork. A node may stop (its process dies) or lose
// power, and start again on what its disk kept.
//
// The cluster remembers what it acknowledged to its clients and checks, at the end or whenever asked,
// that nothing of it was lost, that logs agree and that states are equal (verify()).
#pragma once

#include "kernelio/sim_env.h"
#include "kv_state_machine.h"
#include "replicator/journal.h"
#include "replicator/replicator.h"
#include "sim_coordinator.h"
#include "sim_network.h"

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace packmoor::replicator {

class SimCluster;

// What a failed check calls; each program that uses this library has its own (a gtest failure in
// unit tests).
void simFailed(const std::string& finding);

class SimNode;

// Sees what happens to nodes, in the turn in which it happens. Must not destroy a node.
class SimWatcher {
 public:
  virtual void applied(SimNode& node, const std::string& volume, const Record& record,
                       const std::string& answer) {}
  virtual void stopping(SimNode& node) {}  // it runs still

 protected:
  ~SimWatcher() = default;
};

class SimNode final : private kj::TaskSet::ErrorHandler {
 public:
  SimNode(SimCluster& cluster, NodeId id, uint64_t seed);
  ~SimNode() noexcept(false);

  const NodeId& id() const { return id_; }
  bool up() const { return life_ != nullptr && life_->started; }
  bool idle() const { return life_ == nullptr; }   // down, and not starting either
  Co<void> start();
  void boot();                   // starts when it is down; a start that fails is a finding
  void stop();                   // the process dies; the disk keeps what was written
  void losePower();              // and what was not durable may be gone
  // Down. It starts again on an empty disk, with another journal.
  void replaceDisk();
  Replicator& replicator() { return *life_->replicator; }
  ExtentStore& extents() { return *life_->extents; }
  Journal& journal() { return *life_->journal; }
  const RecoveryReport& recovered() const { return life_->report; }
  kernelio::SimStorage& storage() { return *storage_; }
  // Each write takes so long; 0: as usual.
  void slowDisk(kj::Duration write);
  kernelio::Env& env() { return life_->sim.env(); }
  KvStateMachine& kv(const std::string& volume = "main") { return *life_->kv.at(volume); }
  uint64_t lives() const { return lives_; }  // counts starts
  bool hasVolume(kj::StringPtr name = "main"_kj);
  Volume& volume(kj::StringPtr name = "main"_kj);
  // Work of a front of this node: ends, with a rejection, before the node does.
  template <typename T>
  kj::Promise<T> front(kj::Promise<T> work) {
    return life_->fronts.wrap(kj::mv(work));
  }
  const Uuid& journalId() const { return journalId_; }
  KvDisk disk;                             // of "main"
  std::map<std::string, KvDisk> otherDisks;  // by volume

 private:
  struct Life {
    Life(SimCluster& cluster, SimNode& node, uint64_t seed);
    kernelio::SimEnv sim;
    kj::Own<Journal> journal;
    RecoveryReport report;
    kj::Own<ExtentStore> extents;
    kj::Own<Coordinator> coordinator;
    kj::Own<Peers> peers;
    kj::Own<Replicator> replicator;
    kj::Canceler fronts;
    std::map<std::string, KvStateMachine*> kv;  // by volume
    bool started = false;
    kj::Promise<void> running = nullptr;
  };
  void taskFailed(kj::Exception&& exception) override;
  void die();                    // in a turn of its own
  kj::Own<StateMachine> makeStateMachine(const std::string& volume);

  SimCluster& cluster_;
  const NodeId id_;
  const uint64_t seed_;
  uint64_t lives_ = 0;
  Uuid journalId_;
  std::unique_ptr<kernelio::SimStorage> storage_;
  std::unique_ptr<Life> life_;
  bool dying_ = false;           // a journal write failed: invariant 9
  kj::Promise<void> starting_ = nullptr;
};

struct Acknowledged {
  TxnId txn;
  RecordIndex index;
  std::string operation;
};

class SimCluster final : private kj::TaskSet::ErrorHandler {
 public:
  explicit SimCluster(uint64_t seed, size_t nodes, ReplicatorOptions options = testOptions());
  ~SimCluster() noexcept(false);

  static ReplicatorOptions testOptions();
  static JournalOptions journalOptions();

  // Starts all nodes and creates the volume "main" of the first `members` of them (0: all); waits
  // until it is led.
  void begin(uint32_t writeQuorum, size_t members = 0, VolumeTraits traits = {});
  // Those that are down; each is waited for until it has opened the volume, if there is one.
  void startAll();
  void restart(size_t node);

  kernelio::VirtualLoop& loop() { return loop_; }
  kj::Timer& timer() { return loop_.timer(); }
  SimNode& node(size_t i) { return *nodes_[i]; }
  size_t size() const { return nodes_.size(); }
  std::vector<NodeId> nodeIds() const;
  // As the coordinator has it, the node is a member of either sort.
  bool isMember(const SimNode& node, const std::string& volume = "main") const;
  SimNetwork& network() { return network_; }
  SimCoordinator& coordinator() { return coordinator_; }
  kernelio::SeededRandom& random() { return random_; }
  int64_t nowMs() { return loop_.elapsed() / kj::MILLISECONDS; }

  // The node that leads the volume, if any.
  SimNode* primary(const std::string& volume = "main");
  SimNode& awaitPrimary(int64_t timeoutMs = 20'000);
  size_t indexOf(const SimNode& node) const;

  TxnId newTxn();
  // Proposes through a node and remembers the acknowledgement.
  Co<ProposeOutcome> propose(size_t node, std::string operation);
  Co<ProposeOutcome> propose(size_t node, TxnId txn, std::string operation);
  ProposeOutcome put(size_t node, const std::string& key, const std::string& value) {
    return loop_.wait(propose(node, "put " + key + " " + value).promise());
  }
  // Reads a key at a node behind a barrier.
  Co<std::string> read(size_t node, std::string key);
  std::string get(size_t node, const std::string& key) {
    return loop_.wait(read(node, key).promise());
  }

  // Runs until `condition` holds; a test failure after the time, which begins so.
  static constexpr const char* kNotReached = "not reached in time: ";
  template <typename Condition>
  void until(Condition condition, int64_t timeoutMs, const char* what) {
    const int64_t deadline = nowMs() + timeoutMs;
    while (!condition()) {
      if (nowMs() >= deadline) {
        failed(std::string(kNotReached) + what + describe());
        throw std::runtime_error(what);
      }
      loop_.runFor(1 * kj::MILLISECONDS);
    }
  }
  // Until every running node has applied everything that was acknowledged.
  void settle(int64_t timeoutMs = 30'000);
  // The checks of the head comment, over all running nodes.
  void verify();
  std::string describe();
  // What a check found. Given to simFailed() with the seed, unless a program wants it itself.
  void failed(std::string finding);
  std::function<void(const std::string&)> onFailure;

  const std::vector<Acknowledged>& acknowledged() const { return acknowledged_; }
  void remember(TxnId txn, RecordIndex index, std::string operation);
  // As packmoorctl orders it: for the record as it is, without the counted members that are not kept.
  LossOrder lossOrder(const std::vector<size_t>& kept);
  // An operator accepted that what was acknowledged above `index` so far is lost.
  void giveUp(RecordIndex index);
  const uint64_t seed_;
  const ReplicatorOptions options_;
  // To be set before nodes start.
  JournalOptions journal = journalOptions();
  KvOptions kvOptions;
  ExtentStoreOptions extentOptions;
  SimWatcher* watcher = nullptr;
  bool damageExpected = false;     // a test damages disks
  bool startsMayFail = false;      // disks refuse writes: a node may die while it starts
  // What happens, in words, with its time; part of the trace.
  void tell(const std::string& what);
  std::function<void(const std::string&)> story;
  kj::TaskSet& tasks() { return *tasks_; }
  uint64_t failures = 0;    // of proposals that rejected

 private:
  friend class SimNode;
  using Histories = std::map<uint64_t, std::pair<Hash128, NodeId>>;
  void awaitOpen(SimNode& node);
  void verifyNode(SimNode& node, Histories& histories, std::map<uint64_t, Hash128>& records);
  void taskFailed(kj::Exception&& exception) override;

  kernelio::VirtualLoop loop_;
  kernelio::SeededRandom random_;
  SimNetwork network_;
  SimCoordinator coordinator_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<Acknowledged> acknowledged_;
  kj::Own<kj::TaskSet> tasks_;
};

inline std::string textOf(kj::ArrayPtr<const kj::byte> bytes) {
  return std::string(bytes.asChars().begin(), bytes.size());
}

}  // namespace packmoor::replicator
