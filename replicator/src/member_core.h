// MemberCore: what a member may promise, accept, acknowledge and apply. Pure: no I/O, no clock.
//
// Why: DESIGN section 6 rules 3, 13, 14 and 15 decide whether acknowledged data survives. They are
// a few comparisons over the promise, the log's positions and what was verified; kept apart
// from journals and networks, they can be read beside the rules and tested alone. Every
// node of a volume has one, the primary too.
//
// The caller journals what a decision says and reports back; see each function.
#pragma once

#include "replicator/peer.h"
#include "member_log.h"

namespace packmoor::replicator {

// What to do with an AppendRequest.
struct AppendPlan {
  AppendReply::Outcome outcome = AppendReply::Outcome::kDurable;
  LogPosition position;                // for kMismatch and kBehind: goes into the reply
  kj::Maybe<LogPosition> truncateTo;   // first, when set: the log conflicts above it
  size_t have = 0;                     // records of the request that the log holds already
};

class MemberCore {
 public:
  // `committed`: known to be committed (the state's durable position, the log's base).
  MemberCore(FencePromise promise, RecordIndex committed, bool repairing)
      : promise_(promise), promiseDurable_(promise.epoch), committed_(committed),
        repairing_(repairing) {}

  enum class Claim { kLower, kSame, kHigher };  // of a sender, against the promise
  // Rule 3. The same epoch with another nonce is another past's claim and counts as lower.
  Claim compare(Epoch epoch, const Uuid& nonce) const;

  // Rule 3: from now on lower epochs are refused. The caller has stepped down from lower roles,
  // journals the promise now, and calls promiseIsDurable afterwards.
  void raise(FencePromise promise);
  void promiseIsDurable(Epoch epoch);

  const FencePromise& promise() const { return promise_; }
  bool promiseDurable() const { return promiseDurable_ == promise_.epoch; }
  bool repairing() const { return repairing_; }
  void beginRepair() {
    repairing_ = true;
    accepts_ = false;
  }
  // Rule 17: from now on records are accepted, though not acknowledged.
  void acceptRepairs() { accepts_ = true; }
  bool acceptsRepairs() const { return repairing_ && accepts_; }
  // Rule 17: everything that it may have forgotten is here again, and that is durable.
  void whole() { repairing_ = accepts_ = false; }
  // In repair: verified in this epoch and durable up to here. Zeros unless records are accepted.
  LogPosition repairedUpTo(const LogView& log) const;

  // Rule 13. The request is of the promised epoch. Changes nothing.
  // `proven`: false for a member that an accepted loss ignored (rule 19). Its log is never cut, since that
  // may hold the only copies of what was acknowledged: a conflict is kRepairing, with truncateTo.
  AppendPlan plan(const AppendRequest& request, const LogView& log, bool proven = true) const;

  // The log is known to equal that of the epoch's primary up to `index`.
  void verified(Epoch epoch, RecordIndex index);
  // The epoch's primary says that `index` is committed.
  void announced(Epoch epoch, RecordIndex index);

  // A checkpoint of the volume was installed, which holds committed records only.
  void installed(RecordIndex index) { committed_ = std::max(committed_, index); }

  // The epoch's primary has announced something: it is active (rule 8).
  bool hasAnnounced() const { return announced_.value > 0; }

  // Rule 14: min(verified in this epoch, durable); zeros while the promise is not durable.
  LogPosition acknowledgement(const LogView& log) const;

  // Rule 15: records up to here are committed and are in this log. Only grows.
  RecordIndex committed() const { return committed_; }
  // Invariant 6: what may be applied.
  RecordIndex applicable(const LogView& log) const;

 private:
  void advanceCommitted();

  FencePromise promise_;
  Epoch promiseDurable_;
  RecordIndex verified_, announced_;  // in the promised epoch
  RecordIndex committed_;
  bool repairing_, accepts_ = false;  // whether records are accepted while in repair
};

}  // namespace packmoor::replicator
