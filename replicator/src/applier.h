// Applier: carries committed records into the state machine, and makes checkpoints.
//
// Why: apply and flush are never concurrent, go in the log's order, and are the only place where
// the state moves; so they are one loop. Each round applies all that is applicable, within a
// bound, as one change of the state.
//
// Durability: applying is not durable. A checkpoint is: the state machine is flushed, then the
// journal told, then the log below released as far as the host allows.
//
// Invariant 6 is checked here and by MemberCore::applicable: applied <= committed, applied <= durable.
// A state machine that rejects a record stops the applier for good; the host learns why.
//
// Loop: the node's. Log, member, state machine and host outlive it.
#pragma once

#include "kernelio/co.h"
#include "member_core.h"
#include "replicator/state_machine.h"

#include <kj/function.h>

#include <deque>
#include <map>

namespace packmoor::replicator {

class ApplyHost {
 public:
  // One result per record. Called after the state machine has applied them.
  virtual void recordsApplied(RecordIndex first,
                              std::vector<kj::Array<const kj::byte>>& results) = 0;
  virtual void applyFailed(const kj::Exception& exception) = 0;
  // A record that is to be applied cannot be read from the log: it has rotted.
  virtual void logUnreadable(RecordIndex index, const kj::Exception& exception) = 0;
  // Up to where the log may be released after a checkpoint at `checkpoint`.
  virtual RecordIndex releasable(RecordIndex checkpoint) = 0;

 protected:
  ~ApplyHost() = default;
};

class Applier final {
 public:
  static constexpr size_t kBytesMax = 1u << 20;
  static constexpr size_t kRecordsMax = 1024;

  Applier(MemberLog& log, MemberCore& member, StateMachine& stateMachine, ApplyHost& host,
          RecordIndex durable);
  ~Applier() noexcept(false);
  KJ_DISALLOW_COPY(Applier);

  void start();                 // also after it has failed and the state was replaced
  bool runs() const { return started_ && !failed_; }
  bool failed() const { return failed_; }
  // What is claimed to be applied is not there to be read: nobody is told that it is.
  void withoutState() { absent_ = true; }
  // While paused nothing is applied.
  void pause(bool paused);
  void wake();  // committed or durable may have grown

  RecordIndex applied() const { return applied_; }
  RecordIndex checkpointed() const { return checkpointed_; }
  kj::Promise<void> whenApplied(RecordIndex index);
  // Resolves when everything applied at the call is in a durable checkpoint.
  kj::Promise<void> checkpoint();
  // Runs `work` while nothing is applied or made durable, and resolves or rejects as it does.
  kj::Promise<void> alone(kj::Function<kj::Promise<void>()> work);
  // Within such work: the state has come to stand at `index`, durably, by other means.
  void jumpTo(RecordIndex index);
  // True since the bytes or the time given have passed since the last one, with something to keep.
  bool checkpointDue(uint64_t bytes, int64_t nowMs, int64_t intervalMs) const;
  int64_t lastCheckpointMs = 0;  // set by the owner's clock when one is begun

 private:
  static constexpr int64_t kRefusedPauseMs = 1000;   // before a checkpoint is tried again

  Co<void> run();
  Co<void> applyNext(RecordIndex target);
  Co<void> makeCheckpoint();
  Co<void> runAlone();
  void resolveWaiters();

  MemberLog& log_;
  MemberCore& member_;
  StateMachine& stateMachine_;
  ApplyHost& host_;
  RecordIndex applied_, checkpointed_;
  uint64_t checkpointBytes_ = 0;   // of the log, when the last checkpoint was made
  bool checkpointWanted_ = false, failed_ = false;
  bool refused_ = false;   // the last checkpoint, by a full disk
  bool started_ = false, paused_ = false, absent_ = false;
  Signal wake_;
  struct Alone {
    kj::Function<kj::Promise<void>()> work;
    kj::Own<kj::PromiseFulfiller<void>> done;
  };
  std::deque<Alone> alone_;
  std::multimap<RecordIndex, kj::Own<kj::PromiseFulfiller<void>>> waiters_;
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> checkpointWaiters_;
  kj::Promise<void> running_ = nullptr;
};

}  // namespace packmoor::replicator
