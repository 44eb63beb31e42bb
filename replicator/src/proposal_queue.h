// ProposalQueue: from proposals to records, and from applied records back to answers.
//
// Why: everything that is proposed in one turn of the loop becomes one write to the journal and
// one message to each standby. Each proposal is looked up (a transaction id has one result,
// invariant 7), validated behind everything in flight (rule 20), and given the next index; its
// answer is what applying the record returned.
//
// Bounds: kInFlightMax proposals and kInFlightBytesMax bytes; beyond them a proposal is refused with
// kUnavailable. A proposal without an answer within the time given is answered kUnknown; its
// record stays in the log.
//
// Loop: the node's. The host outlives the queue.
#pragma once

#include "replicator/peer.h"
#include "replicator/state_machine.h"
#include "member_log.h"

#include <deque>
#include <string>
#include <unordered_map>

namespace packmoor::replicator {

class ProposalHost {
 public:
  virtual MemberLog& log() = 0;
  virtual StateMachine& stateMachine() = 0;
  virtual kj::Timer& timer() = 0;
  virtual Epoch epoch() = 0;
  virtual void appended() = 0;  // the queue has written records to the log
  // Resolves when `index` is committed and a confirm round begun after that has succeeded; rejects
  // when the role is lost.
  virtual kj::Promise<void> whenConfirmed(RecordIndex index) = 0;
  // Makes the extents sealed on this node, from one of `holders`.
  virtual kj::Promise<void> obtainExtents(std::vector<ExtentId> extents,
                                          std::vector<NodeId> holders) = 0;
  // Rule 22: true when W counted members are among the holders.
  virtual bool heldByQuorum(const std::vector<NodeId>& holders) = 0;

 protected:
  ~ProposalHost() = default;
};

class ProposalQueue final {
 public:
  static constexpr size_t kInFlightMax = 65536;
  static constexpr size_t kInFlightBytesMax = 256u << 20;
  static constexpr size_t kPerTurnMax = 256;   // then other work gets its turn
  static constexpr int64_t kPaceMs = 20, kPaceBurstMs = 100;

  ProposalQueue(ProposalHost& host, int64_t timeoutMs) : host_(host), timeoutMs_(timeoutMs) {}
  ~ProposalQueue() noexcept(false);
  KJ_DISALLOW_COPY(ProposalQueue);

  // Held until open(). Never rejects for protocol reasons: the reply says what happened.
  kj::Promise<ProposeReply> propose(ProposeRequest request);

  // Rule 20: this primary has applied everything through its EpochStart.
  void open();
  // Orders nothing while held.
  void hold(bool on) {
    held_ = on;
    schedule();
  }
  // Orders at most so many bytes a second; 0: no bound.
  void pace(uint64_t bytesPerSecond);
  // Records were applied here; `results` has one entry for each.
  void applied(RecordIndex first, std::vector<kj::Array<const kj::byte>>& results);
  // The role is lost (rule 3). What became a record is answered kUnknown, the rest kNotPrimary.
  void end(NodeId primary);
  void tick();  // answers what is too old

  size_t inFlight() const { return ordered_.size(); }
  uint64_t accepted() const { return accepted_; }
  uint64_t rejected() const { return rejected_; }

 private:
  using Fulfiller = kj::Own<kj::PromiseFulfiller<ProposeReply>>;
  struct Queued {
    Proposal proposal;
    int64_t sinceMs;
    Fulfiller fulfiller;
    bool extentsAsked = false;
  };
  struct Waiter {
    int64_t sinceMs;
    Fulfiller fulfiller;
  };
  struct Ordered {               // a record in flight; its index is firstOrdered_ + its place
    TxnId txn;
    size_t bytes;
    std::vector<Waiter> waiters;
  };

  void schedule();
  void flush();
  bool mayOrder();
  bool needsExtents(Queued& queued);
  void order(Queued&& queued, LogPosition& tail, std::vector<RecordRef>& batch);
  void orderReadable(Queued& queued, LogPosition& tail, std::vector<RecordRef>& batch);
  void rejectLater(Queued&& queued, Verdict&& verdict);

  ProposalHost& host_;
  const int64_t timeoutMs_;
  bool open_ = false, ended_ = false, scheduled_ = false, held_ = false;
  NodeId endedFor_;

  std::deque<Queued> queued_;
  RecordIndex firstOrdered_;
  std::deque<Ordered> ordered_;
  std::unordered_map<TxnId, RecordIndex> byTxn_;
  std::deque<std::shared_ptr<Waiter>> rejecting_;  // until confirmed
  size_t bytes_ = 0;
  uint64_t pace_ = 0;            // bytes per second
  int64_t budget_ = 0, budgetMs_ = 0;  // bytes that may be ordered, and when that was so
  uint64_t accepted_ = 0, rejected_ = 0;
  Tasks tasks_{"proposals"};
};

}  // namespace packmoor::replicator
