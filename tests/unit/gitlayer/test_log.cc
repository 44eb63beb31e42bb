#include "test_log.h"

#include "gitlayer/zlib_codec.h"
#include "record_codec.h"
#include "state_tables.h"

#include <kernelio/check.h>
#include <kj/debug.h>

namespace packmoor::gitlayer::test {

kj::Promise<kj::Own<replicator::ExtentWriter>> LinkedExtents::begin(replicator::ExtentId) {
  KJ_UNIMPLEMENTED("no extents here");
}
kj::Promise<kernelio::IoBuffer> LinkedExtents::readBlock(replicator::ExtentId, uint64_t) {
  KJ_UNIMPLEMENTED("no extents here");
}

void TestLog::open(kj::WaitScope& scope) {
  auto position = machine_.open().wait(scope);
  KJ_ASSERT(position.index.value <= records.size());
  if (position.index.value > 0) {
    KJ_ASSERT(records[position.index.value - 1]->hash == position.hash);
  }
  applyAll(scope);
}

void TestLog::append(replicator::RecordKind kind, kj::ArrayPtr<const kj::byte> payload) {
  records.push_back(replicator::makeRecord(
      replicator::RecordIndex(records.size() + 1), replicator::Epoch(1),
      records.empty() ? replicator::Hash128() : records.back()->hash, kind, {},
      kj::heapArray<const kj::byte>(payload.begin(), payload.size())));
}

replicator::Verdict TestLog::order(const replicator::Proposal& proposal) {
  auto verdict = machine_.validate(proposal, replicator::RecordIndex(records.size() + 1));
  if (verdict.accepted) append(proposal.kind, proposal.payload);
  return verdict;
}

std::map<uint64_t, kj::Array<const kj::byte>> TestLog::applyAll(kj::WaitScope& scope) {
  std::map<uint64_t, kj::Array<const kj::byte>> results;
  const uint64_t first = machine_.applied().index.value;
  std::vector<replicator::RecordRef> group(records.begin() + first, records.end());
  if (group.empty()) return results;
  auto answers = machine_.apply(std::move(group)).wait(scope);
  for (size_t i = 0; i < answers.size(); ++i) results[first + 1 + i] = kj::mv(answers[i]);
  return results;
}

replicator::TxnResult TestLog::submit(const replicator::Proposal& proposal,
                                      kj::WaitScope& scope) {
  auto verdict = order(proposal);
  if (!verdict.accepted) return {verdict.restsOn, kj::mv(verdict.result)};
  auto results = applyAll(scope);
  return {replicator::RecordIndex(last()), kj::mv(results[last()])};
}

namespace {
replicator::Uuid numbered(uint8_t kind, uint64_t number) {
  replicator::Uuid id;
  id.bytes[0] = 0x7f;  // as a transaction id: born in a far future
  id.bytes[1] = kind;
  for (size_t i = 0; i < 8; ++i) id.bytes[15 - i] = static_cast<uint8_t>(number >> (8 * i));
  return id;
}
}  // namespace

replicator::TxnId txnId(uint64_t number) { return numbered('t', number); }
RepositoryId repositoryId(uint64_t number) { return numbered('r', number); }

ObjectId oid(uint64_t number) {
  ObjectId id;
  if (number == 0) return id;
  id.bytes[0] = 0xab;
  for (size_t i = 0; i < 8; ++i) id.bytes[19 - i] = static_cast<uint8_t>(number >> (8 * i));
  return id;
}

replicator::Proposal createProposal(uint64_t txn, uint64_t repository, const std::string& name) {
  RepositoryCreateRecord record;
  record.txn = txnId(txn);
  record.repository = repositoryId(repository);
  record.name = name;
  record.head = "refs/heads/main";
  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kRepositoryCreate;
  proposal.payload = encodeRepositoryCreate(record);
  return proposal;
}

replicator::Proposal deleteProposal(uint64_t txn, uint64_t repository, const std::string& name) {
  RepositoryDeleteRecord record;
  record.txn = txnId(txn);
  record.repository = repositoryId(repository);
  record.name = name;
  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kRepositoryDelete;
  proposal.payload = encodeRepositoryDelete(record);
  return proposal;
}

replicator::Proposal setProposal(uint64_t txn, uint64_t repository, Settings changes) {
  RepositorySetRecord record;
  record.txn = txnId(txn);
  record.repository = repositoryId(repository);
  record.name = "project";
  record.changes = std::move(changes);
  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kRepositorySet;
  proposal.payload = encodeRepositorySet(record);
  return proposal;
}

replicator::Proposal pushProposal(uint64_t repository, PushTransaction transaction) {
  replicator::Proposal proposal;
  proposal.txn = transaction.txn;
  proposal.kind = kRefTransaction;
  if (transaction.pack.has_value()) {
    proposal.extents = {transaction.pack->pack, transaction.pack->index};
  }
  proposal.payload = encodeRefTransaction(repositoryId(repository), transaction, 1'000);
  return proposal;
}

RefUpdate update(const std::string& name, uint64_t oldId, uint64_t newId, bool forward) {
  RefUpdate result;
  result.name = name;
  result.oldId = oid(oldId);
  result.newId = oid(newId);
  result.forward = forward;
  return result;
}

PushTransaction transaction(uint64_t txn, std::vector<RefUpdate> updates, bool atomic) {
  PushTransaction result;
  result.txn = txnId(txn);
  result.updates = std::move(updates);
  result.atomic = atomic;
  result.principal = "alice";
  return result;
}

NewObject blob(const std::string& content) {
  NewObject object;
  object.id = hashObject(ObjectType::kBlob, bytesOf(content));
  object.type = ObjectType::kBlob;
  object.bytes = content.size();
  object.deflated = Deflater().deflate(bytesOf(content));
  return object;
}

}  // namespace packmoor::gitlayer::test
