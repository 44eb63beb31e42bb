// KvStateMachine: the smallest state machine that has what the replicator's rules speak of:
// compare-and-swap, transaction results, speculation, flushes, extents.
//
// A payload is a transaction id and one operation in text: "put KEY VALUE" or
// "swap KEY OLD NEW" ("-" stands for absent). What was applied after the last flush is
// forgotten with the object: KvDisk, which outlives it, holds what is durable.
#pragma once

#include "kernelio/env.h"
#include "replicator/extent_store.h"
#include "replicator/state_machine.h"

#include <map>
#include <string>

namespace packmoor::replicator {

constexpr RecordKind kKvKind = RecordKind(kStateMachineKindMin);

struct KvState {
  std::map<std::string, std::string> values;
  std::map<TxnId, TxnResult> results;      // result arrays are shared by copy
  std::map<TxnId, uint64_t> appliedTimes;  // more than 1: not exactly once
  LogPosition applied;
  Hash128 history;                         // over every record in order

  KvState() = default;
  KvState(const KvState& other) { *this = other; }
  KvState& operator=(const KvState& other);
};

struct KvDisk {
  KvState durable;
  uint64_t flushes = 0;
};

kj::Array<const kj::byte> kvPayload(const TxnId& txn, const std::string& operation);
Proposal kvProposal(const TxnId& txn, const std::string& operation);

class KvStateMachine final : public StateMachine {
 public:
  KvStateMachine(kernelio::Env& env, ExtentStore& extents, KvDisk& disk)
      : env_(env), extents_(extents), disk_(disk) {}

  kj::Promise<LogPosition> open() override;
  kj::Promise<std::vector<kj::Array<const kj::byte>>> apply(std::vector<RecordRef> records) override;
  LogPosition applied() override { return state_.applied; }
  Verdict validate(const Proposal& proposal, RecordIndex index) override;
  void endSpeculation() override { inFlight_.clear(); }
  kj::Maybe<TxnResult> findResult(const TxnId& txn) override;
  kj::Promise<LogPosition> flush() override;
  uint64_t unflushedBytes() override { return unflushed_; }
  kj::Promise<kj::Array<kj::byte>> query(std::string name,
                                         kj::Array<const kj::byte> question) override;

  const KvState& state() const { return state_; }
  bool failNextApply = false;
  uint64_t validated = 0;

 private:
  struct Speculation {
    std::string value;
    RecordIndex index;
  };
  kj::Array<const kj::byte> applyOne(const Record& record);

  kernelio::Env& env_;
  ExtentStore& extents_;
  KvDisk& disk_;
  KvState state_;
  std::map<std::string, Speculation> inFlight_;  // by key
  uint64_t unflushed_ = 0;
};

}  // namespace packmoor::replicator
