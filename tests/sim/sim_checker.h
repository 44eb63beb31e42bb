// SimChecker: what must hold of a volume, watched while it runs.
//
// Why: a simulation finds only what is looked for. The checker sees every record that any node
// applies, every answer that a client gets, what members acknowledge and report, and what the
// coordinator stores, and compares them at once, so that a finding names the moment.
//
// What it holds to be true:
//   - One log: all nodes apply the same records at the same indexes, and their states are equal there;
//     no transaction id appears twice in it.
//   - What a client was told is in it: an acknowledged transaction stays at its index, was durable on W
//     members when it was acknowledged, and has one result, whoever asks again.
//   - A read sees everything that was acknowledged, or seen by another read, before it began. A
//     rejection is a read.
//   - One node in one life leads an epoch. Nothing is announced or applied in an epoch before the
//     coordinator has it as active, and it becomes active when W members have its EpochStart.
//   - What a member acknowledges or reports to a fence is durable there, and what was durable or
//     promised at its death is there after its restart.
//   - No ref names an object that the state cannot read (invariant 10).
//   - applied <= committed, applied <= durable, and extents are sealed where their record is applied.
//
//   - A member whose journal rotted counts again only with everything that it had, and promised. What a
//     member has acknowledged in an epoch is there as long as it acknowledges in that epoch.
//   - When the coordinator has it that a loss was accepted (rule 19), what the adopted log lacks is no
//     more to be found anywhere but on those that were left out, and nobody applies it again. They keep
//     their logs until an operator has them discarded.
//
// One for each volume; a later one passes on to those before it what it sees, and shares their findings.
//
// Loop: the cluster's. The cluster outlives it.
#pragma once

#include "sim_cluster.h"

#include <set>
#include <unordered_map>

namespace packmoor::replicator {

class SimChecker final : public SimTap, public SimWatcher {
 public:
  explicit SimChecker(SimCluster& cluster, std::string volume = "main",
                      SimChecker* before = nullptr);
  ~SimChecker();
  KJ_DISALLOW_COPY(SimChecker);

  // The least that a read or a rejection which begins now must see: unless a loss is accepted meanwhile.
  struct Began {
    RecordIndex index;
    size_t losses;
  };
  Began readBegins() const { return {std::max(acknowledged_, seen_), losses()}; }
  size_t losses() const { return record_.losses.size(); }

  // From clients: an answer that is in the log ("ok ...", "again ...", "void ..."), and any other.
  void acknowledged(const TxnId& txn, RecordIndex index, const std::string& result);
  void rejected(const TxnId& txn, Began began, RecordIndex restsOn,
                const std::string& result);
  void readEnds(SimNode& node, Began began, RecordIndex barrier);

  // Looks at every running node; to be called often.
  void poll();
  // When all nodes run and have applied everything.
  void finish();

  bool found() const { return !findings_->empty(); }
  const std::vector<std::string>& findings() const { return *findings_; }
  const std::string& volume() const { return volume_; }
  // The journal of a node that is down has rotted: what it has forgotten is no finding until it says
  // that it is whole.
  void rotted(SimNode& node) { kept_[node.id()].rotten = true; }
  // By an operator's order a diverged member holds nothing any more.
  void discarded(SimNode& node);
  // The node is down and has an empty disk: it is another member.
  void replaced(SimNode& node) { kept_[node.id()] = Kept(); }
  void finding(std::string text);
  RecordIndex highestAcknowledged() const { return acknowledged_; }
  const std::vector<ExtentId>& extents() const { return extents_; }
  uint64_t acknowledgements() const { return results_.size(); }
  uint64_t reads() const { return reads_; }
  uint64_t records() const { return log_.size(); }

  // SimWatcher and SimTap
  void applied(SimNode& node, const std::string& volume, const Record& record,
               const std::string& answer) override;
  void stopping(SimNode& node) override;
  void appendSent(const NodeId& primary, const NodeId& member, const AppendRequest& request) override;
  void appendAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                      const AppendReply& reply) override;
  void fenceAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                     const FenceReply& reply) override;

 private:
  struct Committed {
    Epoch epoch;
    Hash128 hash, history;
    TxnId txn;
    std::string answer;
    size_t extentsBefore;       // how many extents_ there were
  };
  struct Result {
    RecordIndex index;
    std::string text;
  };
  struct Kept {                 // of a node
    uint64_t lives = 0;         // the life that was looked at last
    RecordIndex durable;        // of the common log, at the last death
    std::map<uint64_t, Hash128> tail;  // and what was durable beyond it: it may become common
    Epoch promised;             // the highest that it has told anybody
    Epoch acknowledgedIn;       // the epoch of its last acknowledgement,
    LogPosition acknowledged;   // and the highest in it
    RecordIndex applied;        // in this life
    bool rotten = false;        // and not whole yet
    LogPosition last;           // durable, at the last death
    LogPosition leftOut;        // what it held beyond the history when an accepted loss left it out
  };
  struct Leader {
    NodeId node;
    uint64_t life;
  };

  void stored(const VolumeRecord& record);
  void looked(SimNode& node, const VolumeStatus& status);
  void requireDurable(const NodeId& node, const LogPosition& position, const char* what);
  void requireKept(const NodeId& member, const AppendReply& reply);
  void requireOfSender(const NodeId& primary, const NodeId& member, const AppendReply& reply);
  RecordIndex leastOf(const Began& began) const {
    return began.losses == losses() ? began.index : std::min(began.index, leftAfterLoss_);
  }
  void lossAccepted(const AcceptedLoss& loss);
  // True: it is of what an accepted loss gave up, and nobody need care about it.
  bool givenUp(SimNode& node, const Record& record);
  void requireLeftOut(SimNode& node);
  LogPosition durableEnd(SimNode& node);
  void leads(Epoch epoch, const NodeId& node);
  RecordIndex commonDurable(SimNode& node);
  bool holdsDurably(SimNode& node, RecordIndex index);
  void startedAnew(SimNode& node, Kept& kept, const VolumeStatus& status);
  bool onQuorum(RecordIndex index);
  SimNode& nodeOf(const NodeId& id);

  SimCluster& cluster_;
  const std::string volume_;
  SimWatcher* const watcherBefore_;
  SimTap* const tapBefore_;
  std::function<void(const VolumeRecord&)> storedBefore_;
  VolumeRecord record_;                      // as last stored
  std::vector<Committed> log_;               // [0] is index 1
  std::unordered_map<TxnId, RecordIndex> byTxn_;
  std::unordered_map<std::string, std::vector<RecordIndex>> writes_;  // by key
  std::unordered_map<TxnId, Result> results_;  // acknowledged
  std::set<TxnId> rejected_;
  std::vector<ExtentId> extents_;            // named by the log
  std::map<NodeId, Kept> kept_;
  std::map<Epoch, Leader> leaders_;
  std::map<Epoch, VolumeConfiguration> active_;
  std::map<Epoch, std::set<NodeId>> started_;  // who has acknowledged records of the epoch in it
  RecordIndex acknowledged_, seen_;
  // Of the loss that was accepted last: where the history ends that is left, and what was adopted behind.
  RecordIndex leftAfterLoss_;
  std::map<uint64_t, Hash128> adopted_;
  uint64_t reads_ = 0;
  std::shared_ptr<std::vector<std::string>> findings_;
};

}  // namespace packmoor::replicator
