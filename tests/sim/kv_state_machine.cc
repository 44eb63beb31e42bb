#include "kv_state_machine.h"

#include <kj/debug.h>

#include <cstring>
#include <sstream>

namespace packmoor::replicator {

namespace {

// Putting it makes the state name no extents any more.
constexpr const char* kDropExtents = "drop-extents";

kj::Array<const kj::byte> textBytes(const std::string& text) {
  return kj::heapArray<const kj::byte>(kj::StringPtr(text.c_str(), text.size()).asBytes());
}

struct Operation {
  std::string verb, key, old, value;
  KvRepositoryOperation repository;   // of verbs that are of a repository, whose name is the key
  uint64_t birth = UINT64_MAX;  // none

  bool expiredAt(RecordIndex index, const KvOptions& options) const {
    return options.horizon > 0 && birth < index.value && index.value - birth > options.horizon;
  }
};

Operation parse(kj::ArrayPtr<const kj::byte> payload) {
  KJ_REQUIRE(payload.size() >= 16);
  std::istringstream in(std::string(payload.slice(16, payload.size()).asChars().begin(),
                                    payload.size() - 16));
  Operation op;
  in >> op.verb >> op.key;
  if (KvRepositoryOperation::is(op.verb)) {
    std::string brings;
    op.repository.prune = op.verb == "prune";
    op.repository.repository = op.key;
    if (!op.repository.prune) in >> op.repository.ref;
    in >> op.repository.object >> brings >> op.repository.restsOn.value;
    op.repository.brings = brings == "new";
  } else {
    if (op.verb == "swap") in >> op.old;
    in >> op.value;
  }
  uint64_t birth = 0;
  if (in >> birth) op.birth = birth;
  KJ_REQUIRE(op.verb == "put" || op.verb == "swap" || KvRepositoryOperation::is(op.verb), op.verb);
  return op;
}

}  // namespace

std::string KvState::apply(const Record& record, const KvOptions& options) {
  KJ_REQUIRE(record.index == applied.index.next());
  applied = LogPosition{record.index, record.epoch, record.hash};
  struct {
    Hash128 before, record;
  } link{history, record.hash};
  history = hashBytes(kj::arrayPtr(reinterpret_cast<const kj::byte*>(&link), sizeof link));
  extents.insert(extents.end(), record.extents.begin(), record.extents.end());
  if (static_cast<uint16_t>(record.kind) < kStateMachineKindMin) return "";
  KJ_REQUIRE(record.kind == kKvKind, "an unknown kind of record");
  const Operation op = parse(record.payload);
  std::string answer = "ok " + op.key + " " + op.value;
  if (KvRepositoryOperation::is(op.verb)) {
    answer = repositories[op.key].apply(op.repository, record.index);
  } else {
    values[op.key] = op.value;
    if (op.key == kDropExtents) extents.clear();
  }
  const TxnId txn = TxnId::fromBytes(record.payload.slice(0, 16));
  if (txn.isNull()) return answer;
  KvResult& result = results[txn];
  result.index = record.index;
  result.answer = answer;
  ++result.times;
  if (options.horizon > 0) {
    expiring.emplace_back(record.index, txn);
    while (record.index.value - expiring.front().first.value > options.kept) {
      results.erase(expiring.front().second);
      expiring.pop_front();
    }
  }
  return answer;
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

kj::Promise<std::vector<kj::Array<const kj::byte>>> KvStateMachine::apply(
    std::vector<RecordRef> records) {
  KJ_REQUIRE(!failNextApply, "the test wants this state machine to fail");
  KJ_REQUIRE(!disk_.unreadable, disk_.damage.c_str());
  std::vector<kj::Array<const kj::byte>> results;
  for (RecordRef& record : records) {
    for (const ExtentId& extent : record->extents) extents_.link(extent);
    if (record->kind == kKvKind && parse(record->payload).key == kDropExtents) {
      for (const ExtentId& extent : state_.extents) extents_.unlink(extent);
    }
    const std::string answer = state_.apply(*record, options_);
    results.push_back(textBytes(answer));
    if (onApplied) onApplied(*record, answer);
    if (record->kind == kKvKind) {
      auto speculated = inFlight_.find(parse(record->payload).key);
      if (speculated != inFlight_.end() && speculated->second.index <= record->index) {
        inFlight_.erase(speculated);
      }
    }
    unflushedBytes_ += record->bytes();
    unflushed_.push_back(kj::mv(record));
  }
  return kj::mv(results);
}

Verdict KvStateMachine::validate(const Proposal& proposal, RecordIndex index) {
  ++validated;
  KJ_REQUIRE(!disk_.unreadable, disk_.damage.c_str());
  const Operation op = parse(proposal.payload);
  KJ_REQUIRE(op.key != disk_.unreadableKey, "a part of the state cannot be read");
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
  if (op.expiredAt(index, options_)) {
    verdict.result = textBytes("expired " + op.key);
    verdict.restsOn = state_.applied.index;
    return verdict;
  }
  if (op.verb == "swap" && op.old != now) {
    verdict.result = textBytes("lost " + op.key + " " + now);
    verdict.restsOn = restsOn;
    return verdict;
  }
  if (KvRepositoryOperation::is(op.verb)) {
    PruneGuard guard = guardOf(op.key);
    const std::string why = KvRepository::problem(guard, op.repository);
    // Of some it is not asked here, so that apply decides.
    if (!why.empty() && proposal.txn.bytes[15] % 4 != 0) {
      verdict.result = textBytes("lost " + op.key + " " + why);
      verdict.restsOn = restsOn;
      return verdict;
    }
    if (why.empty()) (op.repository.prune ? guard.lastPrune : guard.lastChange) = index;
    guards_[op.key] = guard;
  }
  verdict.accepted = true;
  inFlight_[op.key] = Speculation{op.value, index};
  return verdict;
}

PruneGuard KvStateMachine::guardOf(const std::string& repository) const {
  auto applied = state_.repositories.find(repository);
  PruneGuard guard;
  if (applied != state_.repositories.end()) guard = applied->second.guard;
  auto flying = guards_.find(repository);
  if (flying != guards_.end()) {
    guard.lastPrune = std::max(guard.lastPrune, flying->second.lastPrune);
    guard.lastChange = std::max(guard.lastChange, flying->second.lastChange);
  }
  return guard;
}

kj::Maybe<TxnResult> KvStateMachine::findResult(const TxnId& txn) {
  auto it = state_.results.find(txn);
  if (it == state_.results.end()) return nullptr;
  return TxnResult{it->second.index, textBytes(it->second.answer)};
}

kj::Promise<LogPosition> KvStateMachine::flush() {
  unflushedBytes_ = 0;
  auto records = std::make_shared<std::vector<RecordRef>>(std::move(unflushed_));
  unflushed_.clear();
  return env_.timer.afterDelay(3 * kj::MILLISECONDS).then([this, records]() {
    for (const RecordRef& record : *records) disk_.durable.apply(*record, options_);
    ++disk_.flushes;
    return disk_.durable.applied;
  });
}

std::string KvStateMachine::holds() {
  return state_.values.empty() ? "" : std::to_string(state_.values.size()) + " keys";
}

kj::Promise<void> KvStateMachine::discard() {
  for (const ExtentId& extent : state_.extents) extents_.unlink(extent);
  state_ = KvState();
  disk_ = KvDisk();
  unflushed_.clear();
  return kj::READY_NOW;
}

kj::Promise<kj::Array<kj::byte>> KvStateMachine::query(std::string name,
                                                       kj::Array<const kj::byte> question) {
  return kj::heapArray<kj::byte>(question.asPtr());
}

}  // namespace packmoor::replicator
