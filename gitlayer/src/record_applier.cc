#include "record_applier.h"

#include "gitlayer/txn_id.h"
#include "kernelio/check.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

kj::Array<const kj::byte> copyOf(std::string_view text) {
  auto bytes = bytesOf(text);
  return kj::heapArray<const kj::byte>(bytes.begin(), bytes.size());
}

}  // namespace

bool isBeyondHorizon(const replicator::TxnId& id, uint64_t index) {
  return !id.isNull() && index > kTxnResultIndexes &&
         birthOf(id).value < index - kTxnResultIndexes;
}

std::optional<ObjectId> StateRefs::ref(std::string_view name) const {
  std::string row;
  if (none_ || gap_.has(name) || !state_.get(refKey(repository_, name), row)) return std::nullopt;
  return decodeRef(name, row).id;
}

std::optional<std::string> StateRefs::anyBelow(std::string_view prefix, Ignore ignore) const {
  auto below = [&](std::string_view name) { return name.substr(0, prefix.size()) == prefix; };
  if (none_ || (gap_.has(prefix) && !below(gap_.to))) return std::nullopt;
  std::optional<std::string> found;
  bool first = true;
  const size_t before = refPrefix(repository_).size();
  Gap gap{true, std::string(prefix), {}};
  state_.scan(refPrefix(repository_), refKey(repository_, prefix), [&](std::string_view key, std::string_view) {
    const std::string_view name = key.substr(before);
    if (first) gap.to = name;
    first = false;
    if (!below(name)) return false;
    if (ignore(name)) return true;
    found = std::string(name);
    return false;
  });
  gap_ = std::move(gap);
  return found;
}

std::optional<RepositoryRow> findRepository(const StateReader& state, const RepositoryId& id) {
  std::string row;
  if (!state.get(repositoryKey(id), row)) return std::nullopt;
  return RepositoryRow::decode(id, row);
}

std::optional<RepositoryRow> findFormer(const StateReader& state, std::string_view name) {
  std::string id;
  if (!state.get(formerNameKey(name), id)) return std::nullopt;
  return findRepository(state, uuidOf(id));
}

std::optional<RepositoryRow> findLiveRepository(const StateReader& state, const RepositoryId& id) {
  auto row = findRepository(state, id);
  if (row.has_value() && row->info.discardedAtIndex != 0) row.reset();
  return row;
}

std::optional<RepositoryId> findRepositoryId(const StateReader& state, std::string_view name) {
  std::string row;
  if (!state.get(repositoryNameKey(name), row)) return std::nullopt;
  return uuidOf(row);
}

std::vector<PackRow> packRows(const StateReader& state, const RepositoryId& id) {
  std::vector<PackRow> rows;
  state.scan(packPrefix(id), {}, [&](std::string_view key, std::string_view value) {
    rows.push_back(PackRow::decode(key, value));
    return true;
  });
  return rows;
}

ApplyResult settleVerdict(const StateReader& state, const SettleRecord& settle) {
  auto row = findRepository(state, settle.repository);
  if (!row.has_value()) {
    return refused(ApplyResult::Status::kNotFound, "the repository is gone");
  }
  if (row->lastSettle > settle.computedAt) {
    return refused(ApplyResult::Status::kRefused, "its objects were settled meanwhile");
  }
  if (row->lastPrune > settle.computedAt) {
    return refused(ApplyResult::Status::kRefused, "its objects were pruned meanwhile");
  }
  return {};
}

ApplyResult pruneVerdict(const replicator::PruneGuard* guard, const PruneRecord& prune) {
  if (guard == nullptr) return refused(ApplyResult::Status::kNotFound, "the repository is gone");
  if (guard->isVoid(replicator::RecordIndex(prune.computedAt))) {
    return refused(ApplyResult::Status::kVoid, "the repository has changed since it was computed");
  }
  return {};
}

bool mustVerifyAgain(const replicator::PruneGuard& guard, uint64_t lastSettings, uint64_t verifiedAt) {
  return guard.mustVerifyAgain(replicator::RecordIndex(verifiedAt)) || lastSettings > verifiedAt;
}

ApplyResult repackVerdict(const StateReader& state, const RepackRecord& repack) {
  if (!state.exists(repositoryKey(repack.repository))) {
    return refused(ApplyResult::Status::kNotFound, "the repository is gone");
  }
  for (const auto& id : repack.replaced) {
    if (state.exists(packKey(repack.repository, id))) continue;
    return refused(ApplyResult::Status::kVoid, "one of the packs was dropped meanwhile");
  }
  if (state.exists(packKey(repack.repository, repack.pack.pack))) {
    return refused(ApplyResult::Status::kRefused, "the repository has the pack already");
  }
  return {};
}

kj::Array<const kj::byte> RecordApplier::apply(const replicator::Record& record,
                                               const std::vector<ObjectId>& settled) {
  const uint64_t index = record.index.value;
  expireResults(index);
  if (static_cast<uint16_t>(record.kind) < replicator::kStateMachineKindMin) return nullptr;

  const replicator::TxnId txn = txnOf(record);
  std::string known;
  if (!txn.isNull() && draft_.get(txnKey(txn), known)) {
    return copyOf(TxnRow::decode(known).result);
  }
  auto result = encodeResult(isBeyondHorizon(txn, index)
                                 ? refused(ApplyResult::Status::kRefused, kBeyondHorizonText)
                                 : applyKind(record, settled));
  if (!txn.isNull()) {
    draft_.put(txnKey(txn), TxnRow{index, textOf(result)}.encode());
  }
  return result;
}

ApplyResult RecordApplier::applyKind(const replicator::Record& record,
                                     const std::vector<ObjectId>& settled) {
  if (record.kind == kRefTransaction) return refTransaction(record);
  if (record.kind == kRepositoryCreate) return repositoryCreate(record);
  if (record.kind == kRepositoryDelete) return repositoryDelete(record);
  if (record.kind == kRepositorySet) return repositorySet(record);
  if (isNaming(record.kind)) return repositoryNaming(record);
  if (record.kind == kRepositoryFork) return repositoryFork(record);
  if (record.kind == kVerify) return {};
  if (record.kind == kSettle) return settle(record, settled);
  if (record.kind == kPrune) return prune(record);
  if (record.kind == kRepack) return repack(record);
  KJ_FAIL_REQUIRE(
      "The log has a record of a kind that this version does not know. Install the version that "
      "the other nodes run.",
      record.index.value, static_cast<uint16_t>(record.kind));
}

ApplyResult RecordApplier::refTransaction(const replicator::Record& record) {
  const RefTransactionView txn = decodeRefTransaction(record.payload);
  const uint64_t index = record.index.value;
  auto found = findLiveRepository(draft_, txn.repository);
  if (!found.has_value()) {
    return refused(ApplyResult::Status::kNotFound, "the repository was deleted");
  }
  RepositoryRow& row = *found;
  if (mustVerifyAgain(row.pruneGuard(), row.lastSettings, txn.verifiedAt)) {
    return refused(ApplyResult::Status::kVerifyAgain, kVerifyAgainText);
  }
  const RefDecision decision = decideRefs(
      StateRefs(draft_, txn.repository, row.statistics.refs == 0), txn.updates, txn.atomic);
  ApplyResult result;
  result.refProblems = decision.problems;
  result.refDetails = decision.details;
  if (decision.done == 0 && !txn.updates.empty()) {
    result.status = ApplyResult::Status::kRefused;
    return result;
  }
  addObjects(txn, index, row);
  if (txn.pack.has_value()) addPack(*txn.pack, index, row);
  addReflog(txn, decision, index, row);
  changeRefs(txn, decision, index, row);
  row.lastTransaction = index;
  draft_.put(repositoryKey(txn.repository), row.encode());
  return result;
}

void RecordApplier::addObjects(const RefTransactionView& txn, uint64_t index, RepositoryRow& row) {
  for (const auto& object : txn.objects) {
    const std::string key = hotKey(txn.repository, object.id);
    if (draft_.exists(key)) continue;
    HotRow hot;
    hot.type = object.type;
    hot.appliedAt = index;
    hot.bytes = object.bytes;
    draft_.putUnread(key, hot.encodeHead(), object.deflated);
    ++row.statistics.hotObjects;
    row.statistics.hotBytes += object.deflated.size();
  }
  if (!txn.objects.empty()) effects_.changed[txn.repository] = row.statistics;
}

void RecordApplier::addPack(const PackExtents& pack, uint64_t addedAt, RepositoryRow& row) {
  const std::string key = packKey(row.info.id, pack.pack);
  if (draft_.exists(key)) return;
  PackRow added;
  added.pack = pack.pack;
  added.index = pack.index;
  added.packBytes = pack.packBytes;
  added.objectCount = pack.objectCount;
  added.addedAt = addedAt;
  draft_.put(key, added.encode());
  ++row.statistics.packs;
  row.statistics.packBytes += pack.packBytes;
  row.statistics.packedObjects += pack.objectCount;
  effects_.packsAdded.push_back({row.info.id, added});
  effects_.changed[row.info.id] = row.statistics;
}

void RecordApplier::changeRefs(const RefTransactionView& txn, const RefDecision& decision,
                               uint64_t index, RepositoryRow& row) {
  for (const auto& [name, change] : decision.changes) {
    const std::string key = refKey(txn.repository, name);
    const bool before = draft_.exists(key);
    if (change.id.has_value()) {
      draft_.put(key, encodeRef(*change.id, change.peeled));
      if (!before) ++row.statistics.refs;
    } else if (before) {
      draft_.erase(key);
      --row.statistics.refs;
    }
  }
  // What came for a refused update is reachable from no ref either.
  if (!decision.rewound && decision.problems.empty()) return;
  row.info.appendOnly = false;
  row.info.rewoundAt = index;
}

void RecordApplier::addReflog(const RefTransactionView& txn, const RefDecision& decision,
                              uint64_t index, RepositoryRow& row) {
  const uint64_t end = row.reflogNext + decision.done;
  for (size_t i = 0; i < txn.updates.size(); ++i) {
    if (!decision.problems.empty() && !decision.problems[i].empty()) continue;
    const uint64_t number = row.reflogNext++;
    if (number >= kReflogEntriesMax) {
      draft_.erase(reflogKey(row.info.id, number - kReflogEntriesMax));
    }
    if (number + kReflogEntriesMax < end) continue;  // would be removed again at once
    const auto& update = txn.updates[i];
    ReflogRow entry;
    entry.index = index;
    entry.timeMs = txn.timeMs;
    entry.oldId = update.oldId;
    entry.newId = update.newId;
    entry.ref = update.name;
    entry.principal = txn.principal;
    draft_.put(reflogKey(row.info.id, number), entry.encode());
  }
}

ApplyResult RecordApplier::settle(const replicator::Record& record,
                                  const std::vector<ObjectId>& settled) {
  const SettleRecord settle = decodeSettle(record.payload);
  ApplyResult verdict = settleVerdict(draft_, settle);
  if (verdict.status != ApplyResult::Status::kDone) return verdict;
  auto row = findRepository(draft_, settle.repository);
  std::string value;
  for (const auto& id : settled) {
    const std::string key = hotKey(settle.repository, id);
    PACKMOOR_CHECK(draft_.get(key, value), "removing a settled object that is not there", id);
    row->statistics.hotBytes -= HotRow::decode(value).deflated.size();
    --row->statistics.hotObjects;
    draft_.erase(key);
  }
  PackExtents pack;
  pack.pack = settle.pack;
  pack.index = settle.index;
  pack.packBytes = settle.packBytes;
  pack.objectCount = settle.objectCount;
  addPack(pack, record.index.value, *row);
  effects_.changed[settle.repository] = row->statistics;
  row->lastSettle = record.index.value;
  draft_.put(repositoryKey(settle.repository), row->encode());
  return {};
}

ApplyResult RecordApplier::prune(const replicator::Record& record) {
  const PruneRecord prune = decodePrune(record.payload);
  auto row = findRepository(draft_, prune.repository);
  replicator::PruneGuard guard;
  if (row.has_value()) guard = row->pruneGuard();
  const ApplyResult verdict = pruneVerdict(row.has_value() ? &guard : nullptr, prune);
  if (verdict.status != ApplyResult::Status::kDone) return verdict;
  // What is not there any more was dropped by another prune that was computed at the same time.
  RepositoryStatistics& statistics = row->statistics;
  std::string value;
  for (const auto& id : prune.objects) {
    const std::string key = hotKey(prune.repository, id);
    if (!draft_.get(key, value)) continue;
    statistics.hotBytes -= HotRow::decode(value).deflated.size();
    --statistics.hotObjects;
    draft_.erase(key);
  }
  for (const auto& id : prune.packs) dropPack(id, *row);
  row->lastPrune = record.index.value;
  effects_.changed[prune.repository] = statistics;
  draft_.put(repositoryKey(prune.repository), row->encode());
  return {};
}

std::optional<PackRow> RecordApplier::dropPack(const replicator::ExtentId& id,
                                               RepositoryRow& row) {
  const std::string key = packKey(row.info.id, id);
  std::string value;
  if (!draft_.get(key, value)) return std::nullopt;
  const PackRow pack = PackRow::decode(key, value);
  --row.statistics.packs;
  row.statistics.packBytes -= pack.packBytes;
  row.statistics.packedObjects -= pack.objectCount;
  effects_.packsDropped.push_back({row.info.id, pack});
  draft_.erase(key);
  return pack;
}

// What is in the new pack is as old as it was: a prune with a grace period goes by that.
ApplyResult RecordApplier::repack(const replicator::Record& record) {
  const RepackRecord repack = decodeRepack(record.payload);
  const ApplyResult verdict = repackVerdict(draft_, repack);
  if (verdict.status != ApplyResult::Status::kDone) return verdict;
  auto row = findRepository(draft_, repack.repository);
  uint64_t youngest = 0;
  for (const auto& id : repack.replaced) {
    const auto dropped = dropPack(id, *row);
    PACKMOOR_CHECK(dropped.has_value(), "replacing a pack that is not there", id);
    youngest = std::max(youngest, dropped->addedAt);
  }
  addPack(repack.pack, youngest, *row);
  row->statistics.lastRepack = record.index.value;
  row->statistics.lastRepackMs = repack.timeMs;
  effects_.changed[repack.repository] = row->statistics;
  draft_.put(repositoryKey(repack.repository), row->encode());
  return {};
}

// Ids are keys by their birth index. One that was born before the horizon is refused, so nothing
// below what was removed the time before has come since.
void RecordApplier::expireResults(uint64_t index) {
  if (index % kTxnExpiryStride != 0 || index <= kTxnResultIndexes) return;
  const uint64_t horizon = index - kTxnResultIndexes;
  const uint64_t first = horizon < kTxnExpiryStride ? 0 : horizon - kTxnExpiryStride;
  const std::string end = txnBirthKey(horizon);
  std::vector<std::string> expired;
  draft_.scan(kTxnPrefix, txnBirthKey(first), [&](std::string_view key, std::string_view) {
    if (key >= end) return false;
    expired.emplace_back(key);
    return true;
  });
  for (const auto& key : expired) draft_.erase(key);
}

}  // namespace packmoor::gitlayer
