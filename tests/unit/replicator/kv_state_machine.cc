#include "kv_state_machine.h"

#include <kj/debug.h>

#include <cstring>
#include <sstream>

namespace packmoor::replicator {

namespace {

kj::Array<const kj::byte> textBytes(const std::string& text) {
  return kj::heapArray<const kj::byte>(kj::StringPtr(text.c_str(), text.size()).asBytes());
}

struct Operation {
  std::string verb, key, old, value;
};

Operation parse(kj::ArrayPtr<const kj::byte> payload) {
  KJ_REQUIRE(payload.size() >= 16);
  std::istringstream in(std::string(payload.slice(16, payload.size()).asChars().begin(),
                                    payload.size() - 16));
  Operation op;
  in >> op.verb >> op.key;
  if (op.verb == "swap") in >> op.old;
  in >> op.value;
  KJ_REQUIRE(op.verb == "put" || op.verb == "swap", op.verb);
  return op;
}

}  // namespace

KvState& KvState::operator=(const KvState& other) {
  values = other.values;
  appliedTimes = other.appliedTimes;
  applied = other.applied;
  history = other.history;
  results.clear();
  for (const auto& [txn, result] : other.results) {
    results[txn] = TxnResult{result.index, kj::heapArray<const kj::byte>(result.result.asPtr())};
  }
  return *this;
}

kj::Array<const kj::byte> kvPayload(const TxnId& txn, const std::string& operation) {
  auto bytes = kj::heapArray<kj::byte>(16 + operation.size());
  std::memcpy(bytes.begin(), txn.bytes.data(), 16);
  std::memcpy(bytes.begin() + 16, operation.data(), operation.size());
  return bytes;
}

Proposal kvProposal(const TxnId& txn, const std::string& operation) {
  Proposal proposal;
  proposal.txn = txn;
  proposal.kind = kKvKind;
  proposal.payload = kvPayload(txn, operation);
  return proposal;
}

kj::Promise<LogPosition> KvStateMachine::open() {
  state_ = disk_.durable;
  return state_.applied;
}

kj::Array<const kj::byte> KvStateMachine::applyOne(const Record& record) {
  state_.applied = LogPosition{record.index, record.epoch, record.hash};
  struct {
    Hash128 before, record;
  } link{state_.history, record.hash};
  state_.history = hashBytes(kj::arrayPtr(reinterpret_cast<const kj::byte*>(&link), sizeof link));
  if (static_cast<uint16_t>(record.kind) < kStateMachineKindMin) return nullptr;
  KJ_REQUIRE(record.kind == kKvKind, "an unknown kind of record");
  for (const ExtentId& extent : record.extents) extents_.link(extent);
  const Operation op = parse(record.payload);
  state_.values[op.key] = op.value;
  const TxnId txn = TxnId::fromBytes(record.payload.slice(0, 16));
  const std::string answer = "ok " + op.key + " " + op.value;
  state_.results[txn] = TxnResult{record.index, textBytes(answer)};
  ++state_.appliedTimes[txn];
  auto speculated = inFlight_.find(op.key);
  if (speculated != inFlight_.end() && speculated->second.index <= record.index) {
    inFlight_.erase(speculated);
  }
  return textBytes(answer);
}

kj::Promise<std::vector<kj::Array<const kj::byte>>> KvStateMachine::apply(
    std::vector<RecordRef> records) {
  KJ_REQUIRE(!failNextApply, "the test wants this state machine to fail");
  std::vector<kj::Array<const kj::byte>> results;
  for (const RecordRef& record : records) {
    KJ_REQUIRE(record->index == state_.applied.index.next());
    unflushed_ += record->bytes();
    results.push_back(applyOne(*record));
  }
  return kj::mv(results);
}

Verdict KvStateMachine::validate(const Proposal& proposal, RecordIndex index) {
  ++validated;
  const Operation op = parse(proposal.payload);
  std::string now = "-";
  RecordIndex restsOn = state_.applied.index;
  auto value = state_.values.find(op.key);
  if (value != state_.values.end()) now = value->second;
  auto speculated = inFlight_.find(op.key);
  if (speculated != inFlight_.end()) {
    now = speculated->second.value;
    restsOn = speculated->second.index;
  }
  Verdict verdict;
  if (op.verb == "swap" && op.old != now) {
    verdict.result = textBytes("lost " + op.key + " " + now);
    verdict.restsOn = restsOn;
    return verdict;
  }
  verdict.accepted = true;
  inFlight_[op.key] = Speculation{op.value, index};
  return verdict;
}

kj::Maybe<TxnResult> KvStateMachine::findResult(const TxnId& txn) {
  auto it = state_.results.find(txn);
  if (it == state_.results.end()) return nullptr;
  return TxnResult{it->second.index, kj::heapArray<const kj::byte>(it->second.result.asPtr())};
}

kj::Promise<LogPosition> KvStateMachine::flush() {
  unflushed_ = 0;
  auto copy = std::make_shared<KvState>(state_);
  return env_.timer.afterDelay(3 * kj::MILLISECONDS).then([this, copy]() {
    disk_.durable = *copy;
    ++disk_.flushes;
    return copy->applied;
  });
}

kj::Promise<kj::Array<kj::byte>> KvStateMachine::query(std::string name,
                                                       kj::Array<const kj::byte> question) {
  return kj::heapArray<kj::byte>(question.asPtr());
}

}  // namespace packmoor::replicator
