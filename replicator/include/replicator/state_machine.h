// StateMachine: what a volume's records mean. The replicator owns this interface and the
// gitlayer implements it (git_state_machine.h); tests have small ones.
//
// Determinism: apply() gives the same state and the same results on every member, from the
// records alone: no clock, no random number, no local fact.
//
// Durability: apply() need not be durable; the journal is. open() returns the position that is
// durable in the state, and the replicator applies again from there. flush() makes it durable.
// A full disk is waited out: apply() does not reject for it, and says so in problem(); flush() rejects
// with OVERLOADED and may be tried again.
// Loop: all calls on the volume's loop; apply() and flush() are never concurrent with one another.
#pragma once

#include "replicator/pace.h"
#include "replicator/types.h"

#include <kj/async.h>
#include <kj/debug.h>
#include <kj/memory.h>

namespace packmoor::replicator {

// Something to be ordered. On the primary it is validated before it becomes a record.
struct Proposal {
  TxnId txn;                          // null: not looked up, no result kept
  RecordKind kind{};
  std::vector<ExtentId> extents;
  std::vector<NodeId> sealedOn;       // members known to hold all of the extents sealed
  kj::Array<const kj::byte> payload;
};

struct Verdict {
  bool accepted = false;
  // When not accepted: the answer for the proposer, and the index whose state it rests on
  // (of a proposal in flight, or the applied index). It is given out only once that is committed
  // and confirmed (rule 20).
  kj::Array<const kj::byte> result;
  RecordIndex restsOn;
};

struct TxnResult {
  RecordIndex index;
  kj::Array<const kj::byte> result;
};

// What a checkpoint that is handed to another member holds besides its files.
struct CheckpointContent {
  LogPosition position;               // everything up to here is applied in it, and nothing more
  std::vector<ExtentId> extents;      // that its state names
};

// A file of the stored state.
struct StoredFile {
  std::string name;                   // for verifyStored()
  uint64_t bytes = 0;
};

class StateMachine {
 public:
  virtual ~StateMachine() noexcept(false) {}

  // Loads the state; links the extents that it names in the extent store. Resolves to the
  // durable applied position, zeros when empty. Called once, before anything else.
  virtual kj::Promise<LogPosition> open() = 0;

  // Applies consecutive records as one atomic change of the state together with the new applied
  // position. Returns one result per record (empty where a kind has none). Records of kinds
  // below kStateMachineKindMin are passed too and only move the position. Rejecting is fatal
  // for the volume: the state machine cannot go on (unknown kind, damaged state).
  virtual kj::Promise<std::vector<kj::Array<const kj::byte>>> apply(
      std::vector<RecordRef> records) = 0;

  virtual LogPosition applied() = 0;
  // Empty, or why apply() does not get on at present, as a sentence.
  virtual std::string problem() { return {}; }

  // Primary only: would this be valid behind everything applied and everything accepted but not
  // yet applied? If accepted, the effect is remembered as in flight under `index` until that
  // index is applied or speculation ends. Does not block.
  virtual Verdict validate(const Proposal& proposal, RecordIndex index) = 0;
  // The role was lost: nothing is in flight any more.
  virtual void endSpeculation() = 0;
  // The kept result of a transaction that was applied.
  virtual kj::Maybe<TxnResult> findResult(const TxnId& txn) = 0;

  // Makes everything applied durable; resolves to the durable position.
  virtual kj::Promise<LogPosition> flush() = 0;
  // Bytes applied since the last flush, for deciding when to make a checkpoint.
  virtual uint64_t unflushedBytes() = 0;

  // ---- State transfer. None of these is concurrent with apply() or flush(). The defaults are for a
  // state machine whose state cannot be transferred.

  // Told before open(): the volume's last checkpoint by the journal. Of the states that were staged
  // here, open() takes the newest that is not above it, and removes all others. So one record
  // of the journal, durable or not, decides which state there is.
  virtual void journalCheckpoint(LogPosition position) {}
  // Instead, before open(): the journal knows nothing of the volume any more. The state is removed.
  virtual kj::Promise<void> removeState() { return kj::READY_NOW; }
  // Writes the applied state as files that never change into `folder` (below the disk's root; its
  // parent is there, it is not), which has no folders in it. They need not be durable.
  virtual kj::Promise<CheckpointContent> makeCheckpoint(std::string folder) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "this state cannot be transferred");
  }
  // Moves files that a makeCheckpoint() gave, durably, from `folder` to where open() looks for
  // them. The running state stays as it is.
  virtual kj::Promise<void> stageCheckpoint(std::string folder, LogPosition position) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "this state cannot be transferred");
  }
  // The journal names `position` as the checkpoint, durably: goes on with what was staged, and
  // links the extents that it names. Readers of the state before keep what they have.
  virtual kj::Promise<void> switchToStaged(LogPosition position) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "this state cannot be transferred");
  }

  // ---- Damage of what is stored. A damaged state is brought back whole, by a checkpoint from another
  // member; until then what of it can be read is served, and nothing wrong. open() and apply() may
  // reject for damage; what is told below tells them from other failures.

  // Empty, or what of the stored state was found damaged, as a sentence without its end. Does not
  // block. Once found it stays, until switchToStaged() has replaced that state.
  virtual std::string damage() { return {}; }
  // Notes durably that there is damage: a restart does not take the state for whole again.
  virtual kj::Promise<void> rememberDamage() { return kj::READY_NOW; }
  // What is stored is not what the journal builds on, for this reason. It is damage from now on, and
  // what would read it rejects.
  virtual void abandon(std::string reason) {}
  // The files of the stored state as they are now, and whether one of them is whole: read from the disk
  // itself where that can be done, at the pace given; damage() tells. A file that is gone
  // meanwhile is no damage. Concurrent with anything else; one verifyStored() at a time.
  virtual kj::Promise<std::vector<StoredFile>> storedFiles() {
    return std::vector<StoredFile>();
  }
  virtual kj::Promise<void> verifyStored(std::string name, Pace& pace) { return kj::READY_NOW; }

  // What it holds, for who wants to delete the volume: "3 repositories"; empty: nothing.
  virtual std::string holds() { return {}; }
  // The volume's data is not needed any more: lets go of its extents and removes its files, durably.
  // Before open() or after; nothing but reads may follow, which find an empty state.
  virtual kj::Promise<void> discard() { return kj::READY_NOW; }

  // Answers Peer::query for this volume.
  virtual kj::Promise<kj::Array<kj::byte>> query(std::string name,
                                                 kj::Array<const kj::byte> question) = 0;
};

}  // namespace packmoor::replicator
