// KvStateMachine: the smallest state machine that has what the replicator's rules speak of:
// compare-and-swap, transaction results, speculation, flushes, extents.
//
// A payload is a transaction id and one operation in text: "put KEY VALUE", "swap KEY OLD NEW" ("-"
// stands for absent), or one of those of kv_repositories.h. Putting "drop-extents" lets go of all extents. With
// KvOptions::horizon a number behind it is the
// id's birth index (rule 20): an id is refused that many records after its birth, and its result is
// kept for that many behind it. What was applied after the last flush is
// forgotten with the object: KvDisk, which outlives it, holds what is durable.
#pragma once

#include "kernelio/co.h"
#include "kernelio/env.h"
#include "kv_repositories.h"
#include "replicator/extent_store.h"
#include "replicator/state_machine.h"

#include <deque>
#include <functional>
#include <string>
#include <unordered_map>

namespace packmoor::replicator {

constexpr RecordKind kKvKind = RecordKind(kStateMachineKindMin);

struct KvOptions {
  uint64_t horizon = 0;  // records; 0: ids never expire
  uint64_t kept = 0;     // results; less than the horizon is the fault expire-early
  uint64_t checkpointBytes = 0;  // that a checkpoint has besides the state, in files of its own
  std::string folder = "kv";     // of checkpoints that were installed
};

struct KvResult {
  RecordIndex index;
  std::string answer;
  uint64_t times = 0;                      // applied; more than 1: not exactly once
};

struct KvState {
  std::unordered_map<std::string, std::string> values;
  std::map<std::string, KvRepository> repositories;
  std::unordered_map<TxnId, KvResult> results;
  LogPosition applied;
  Hash128 history;                         // over every record in order
  std::deque<std::pair<RecordIndex, TxnId>> expiring;  // results, oldest first
  std::vector<ExtentId> extents;           // that its records name

  // The answer; empty for the replicator's own kinds.
  std::string apply(const Record& record, const KvOptions& options);
};

struct KvDisk {
  KvState durable;
  uint64_t flushes = 0;
  bool staged = false;                     // there may be folders of checkpoints
  RecordIndex installed;                   // `durable` goes back to the checkpoint that has it
  std::string damage;                      // of what is stored, as it is found; until it is replaced
  std::string rot;                         // damage that is found only by who reads all of it
  bool unreadable = false;                 // so that it cannot be opened or gone on from
  std::string unreadableKey;               // of which the value cannot be read
  uint64_t replaced = 0;                   // states that were installed
};

// A state as bytes, for checkpoints.
std::string encodeState(const KvState& state);
KvState decodeState(const std::string& text);

kj::Array<const kj::byte> kvPayload(const TxnId& txn, const std::string& operation);
Proposal kvProposal(const TxnId& txn, const std::string& operation);

class KvStateMachine final : public StateMachine {
 public:
  KvStateMachine(kernelio::Env& env, ExtentStore& extents, KvDisk& disk, KvOptions options = {})
      : options_(options), env_(env), extents_(extents), disk_(disk) {}

  kj::Promise<LogPosition> open() override;
  kj::Promise<std::vector<kj::Array<const kj::byte>>> apply(std::vector<RecordRef> records) override;
  LogPosition applied() override { return state_.applied; }
  Verdict validate(const Proposal& proposal, RecordIndex index) override;
  void endSpeculation() override {
    inFlight_.clear();
    guards_.clear();
  }
  kj::Maybe<TxnResult> findResult(const TxnId& txn) override;
  kj::Promise<LogPosition> flush() override;
  uint64_t unflushedBytes() override { return unflushedBytes_; }
  void journalCheckpoint(LogPosition position) override { checkpoint_ = position; }
  std::string damage() override { return disk_.damage; }
  kj::Promise<std::vector<StoredFile>> storedFiles() override;
  kj::Promise<void> verifyStored(std::string name, Pace& pace) override;
  kj::Promise<CheckpointContent> makeCheckpoint(std::string folder) override;
  kj::Promise<void> stageCheckpoint(std::string folder, LogPosition position) override;
  kj::Promise<void> switchToStaged(LogPosition position) override;
  kj::Promise<void> removeState() override {
    disk_ = KvDisk();
    return env_.disk.removeTree("kv");
  }
  std::string holds() override;
  kj::Promise<void> discard() override;
  kj::Promise<kj::Array<kj::byte>> query(std::string name,
                                         kj::Array<const kj::byte> question) override;

  const KvState& state() const { return state_; }
  bool failNextApply = false;
  uint64_t validated = 0;
  // Called after each record, with the answer.
  std::function<void(const Record&, const std::string&)> onApplied;

 private:
  struct Speculation {
    std::string value;
    RecordIndex index;
  };
  PruneGuard guardOf(const std::string& repository) const;
  Co<LogPosition> openState();
  Co<CheckpointContent> writeCheckpoint(std::string folder);
  Co<void> stage(std::string folder, LogPosition position);
  Co<void> load(RecordIndex installed);
  std::string folderOf(RecordIndex index) const;

  const KvOptions options_;
  LogPosition checkpoint_;   // by the journal, at start
  kernelio::Env& env_;
  ExtentStore& extents_;
  KvDisk& disk_;
  KvState state_;
  std::unordered_map<std::string, Speculation> inFlight_;  // by key
  std::map<std::string, PruneGuard> guards_;               // of repositories, behind what is in flight
  std::vector<RecordRef> unflushed_;
  uint64_t unflushedBytes_ = 0;
};

}  // namespace packmoor::replicator
