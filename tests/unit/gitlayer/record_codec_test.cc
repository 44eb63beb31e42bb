// Goal: the hand-written reader and writer of ref transactions speak protobuf as the schema says,
// and malformed payloads are refused. Method: protobuf's own classes on the other side.
#include "record_codec.h"

#include "state_tables.h"
#include "test_log.h"

#include <gitlayer/git_records.pb.h>

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;

PushTransaction sample() {
  auto txn = transaction(5, {update("refs/heads/main", 0, 1), update("refs/heads/b", 300, 0, false)},
                         true);
  txn.updates[0].peeled = oid(9);
  txn.objects.push_back(blob(std::string(1000, 'x')));
  txn.objects.push_back(blob("small"));
  txn.pack = PackExtents{txnId(70), txnId(71), 1ull << 40, 123456};
  txn.verifiedAt = replicator::RecordIndex(77);
  txn.pushOptions = {"ci.skip", "", "x=y"};
  txn.client = "192.0.2.7";
  return txn;
}

TEST(RecordCodec, WritesWhatProtobufReads) {
  const auto txn = sample();
  auto payload = encodeRefTransaction(repositoryId(3), txn, -5);
  pb::RefTransaction message;
  ASSERT_TRUE(message.ParseFromArray(payload.begin(), static_cast<int>(payload.size())));
  EXPECT_EQ(message.txn(), textOf(txnId(5)));
  EXPECT_EQ(message.repository(), textOf(repositoryId(3)));
  ASSERT_EQ(message.updates_size(), 2);
  EXPECT_EQ(message.updates(0).name(), "refs/heads/main");
  EXPECT_EQ(message.updates(0).old_id(), "");
  EXPECT_EQ(message.updates(0).new_id(), textOf(oid(1)));
  EXPECT_EQ(message.updates(0).peeled(), textOf(oid(9)));
  EXPECT_TRUE(message.updates(0).forward());
  EXPECT_FALSE(message.updates(1).forward());
  ASSERT_EQ(message.objects_size(), 2);
  EXPECT_EQ(message.objects(0).size(), 1000u);
  EXPECT_EQ(message.objects(1).type(), 3u);
  EXPECT_EQ(message.objects(1).deflated(), textOf(txn.objects[1].deflated));
  EXPECT_EQ(message.pack().pack_bytes(), 1ull << 40);
  EXPECT_EQ(message.pack().object_count(), 123456u);
  EXPECT_EQ(message.verified_at(), 77u);
  EXPECT_TRUE(message.atomic());
  EXPECT_EQ(message.principal(), "alice");
  EXPECT_EQ(message.time_ms(), -5);
  ASSERT_EQ(message.push_options_size(), 3);
  EXPECT_EQ(message.push_options(1), "");
  EXPECT_EQ(message.client(), "192.0.2.7");
  EXPECT_EQ(message.SerializeAsString(), textOf(payload)) << "the very bytes that protobuf writes";
}

TEST(RecordCodec, ReadsWhatItWrote) {
  const auto txn = sample();
  auto payload = encodeRefTransaction(repositoryId(3), txn, -5);
  const auto view = decodeRefTransaction(payload);
  EXPECT_EQ(view.txn, txnId(5));
  EXPECT_EQ(view.repository, repositoryId(3));
  ASSERT_EQ(view.updates.size(), 2u);
  EXPECT_EQ(view.updates[1].oldId, oid(300));
  EXPECT_TRUE(view.updates[1].newId.isZero());
  ASSERT_EQ(view.objects.size(), 2u);
  EXPECT_EQ(view.objects[0].id, txn.objects[0].id);
  EXPECT_EQ(view.objects[0].deflated, textOf(txn.objects[0].deflated));
  EXPECT_EQ(view.pack->index, txnId(71));
  EXPECT_EQ(view.verifiedAt, 77u);
  EXPECT_EQ(view.timeMs, -5);
}

TEST(RecordCodec, PassesOverFieldsOfLaterVersions) {
  auto payload = encodeRefTransaction(repositoryId(3), transaction(5, {}), 1);
  std::string longer(textOf(payload));
  longer += std::string("\xa8\x06\x01", 3);                           // varint, field 101
  longer += std::string("\xb2\x06\x02hi", 5);                         // bytes, field 102
  longer += std::string("\xb9\x06\0\0\0\0\0\0\0\0", 10);              // fixed64, field 103
  longer += std::string("\xc5\x06\0\0\0\0", 6);                       // fixed32, field 104
  EXPECT_EQ(decodeRefTransaction(bytesOf(longer)).txn, txnId(5));
}

TEST(RecordCodec, RefusesEveryCutShort) {
  auto payload = encodeRefTransaction(repositoryId(3), sample(), 1);
  size_t refused = 0;
  for (size_t size = 0; size < payload.size(); ++size) {
    // A cut between two fields is a shorter message, anything else is malformed.
    auto error = kj::runCatchingExceptions(
        [&]() { decodeRefTransaction(payload.slice(0, size)); });
    if (error != nullptr) ++refused;
  }
  EXPECT_GT(refused, payload.size() - 15);
  auto refuses = [](const std::string& bytes) {
    return kj::runCatchingExceptions([&]() { decodeRefTransaction(bytesOf(bytes)); }) != nullptr;
  };
  EXPECT_TRUE(refuses(std::string("\x0a\x03" "abc")));           // a txn id of 3 bytes
  EXPECT_TRUE(refuses(std::string("\x00\x01", 2)));              // field number 0
  EXPECT_TRUE(refuses(std::string("\x18\x01")));                 // a number for an update
  EXPECT_TRUE(refuses(std::string("\x0b")));                     // a group
  EXPECT_TRUE(refuses(std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")));
  EXPECT_TRUE(refuses(std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")));
}

TEST(RecordCodec, Results) {
  ApplyResult result;
  result.status = ApplyResult::Status::kRefused;
  result.message = "no \xff";
  result.refProblems = {"", "failed to update ref"};
  result.refDetails = {"", "it is at another value"};
  const auto read = decodeResult(encodeResult(result));
  EXPECT_EQ(read.status, result.status);
  EXPECT_EQ(read.message, result.message);
  EXPECT_EQ(read.refProblems, result.refProblems);
  EXPECT_GT(encodeResult(ApplyResult()).size(), 0u);
  EXPECT_ANY_THROW(decodeResult(nullptr));
}

TEST(RecordCodec, TxnOfEveryKind) {
  const auto position = replicator::RecordIndex(1);
  auto record = [&](const replicator::Proposal& proposal) {
    return replicator::makeRecord(
        position, replicator::Epoch(1), {}, proposal.kind, {},
        kj::heapArray<const kj::byte>(proposal.payload.begin(), proposal.payload.size()));
  };
  EXPECT_EQ(txnOf(*record(createProposal(4, 1, "a"))), txnId(4));
  EXPECT_EQ(txnOf(*record(deleteProposal(5, 1, "a"))), txnId(5));
  EXPECT_EQ(txnOf(*record(pushProposal(1, transaction(6, {})))), txnId(6));
  SettleRecord settle;
  settle.txn = txnId(7);
  settle.repository = repositoryId(1);
  settle.pack = txnId(70);
  settle.index = txnId(71);
  settle.packRoot = replicator::Hash128{1, 2};
  settle.computedAt = 12;
  auto payload = encodeSettle(settle);
  const auto read = decodeSettle(payload);
  EXPECT_EQ(read.packRoot, settle.packRoot);
  EXPECT_EQ(read.order, SettleOrder::kTime);
  settle.order = SettleOrder::kNames;   // as records that say nothing of it
  EXPECT_EQ(decodeSettle(encodeSettle(settle)).order, SettleOrder::kNames);
  settle.order = static_cast<SettleOrder>(2);
  EXPECT_ANY_THROW(decodeSettle(encodeSettle(settle)));
  EXPECT_EQ(read.computedAt, 12u);
  EXPECT_EQ(txnOf(*replicator::makeRecord(position, replicator::Epoch(1), {}, kSettle, {},
                                          kj::mv(payload))),
            txnId(7));
}

TEST(RecordCodec, Prunes) {
  PruneRecord prune;
  prune.txn = txnId(8);
  prune.repository = repositoryId(1);
  prune.computedAt = 77;
  prune.objects = {oid(1), oid(2)};
  prune.packs = {txnId(70)};
  auto payload = encodePrune(prune);
  const auto read = decodePrune(payload);
  EXPECT_EQ(read.txn, prune.txn);
  EXPECT_EQ(read.repository, prune.repository);
  EXPECT_EQ(read.computedAt, 77u);
  EXPECT_EQ(read.objects, prune.objects);
  EXPECT_EQ(read.packs, prune.packs);
  EXPECT_EQ(txnOf(*replicator::makeRecord(replicator::RecordIndex(1), replicator::Epoch(1), {},
                                          kPrune, {}, kj::mv(payload))),
            txnId(8));
  EXPECT_ANY_THROW(decodePrune(bytesOf(std::string("\x12\x10" "0123456789abcdef" "\x22\x01" "x"))));
  EXPECT_ANY_THROW(decodePrune(nullptr)) << "no repository";
}

TEST(RecordCodec, Repacks) {
  RepackRecord repack;
  repack.txn = txnId(9);
  repack.repository = repositoryId(1);
  repack.replaced = {txnId(70), txnId(71)};
  repack.pack = {txnId(80), txnId(81), 12'345, 17};
  repack.packRoot = replicator::hashBytes(bytesOf("pack"));
  repack.indexRoot = replicator::hashBytes(bytesOf("index"));
  repack.computedAt = 77;
  repack.timeMs = 1'700'000'000'000;
  const auto read = decodeRepack(encodeRepack(repack));
  EXPECT_EQ(read.txn, repack.txn);
  EXPECT_EQ(read.repository, repack.repository);
  EXPECT_EQ(read.replaced, repack.replaced);
  EXPECT_EQ(read.pack.pack, repack.pack.pack);
  EXPECT_EQ(read.pack.index, repack.pack.index);
  EXPECT_EQ(read.pack.packBytes, 12'345u);
  EXPECT_EQ(read.pack.objectCount, 17u);
  EXPECT_EQ(read.packRoot, repack.packRoot);
  EXPECT_EQ(read.indexRoot, repack.indexRoot);
  EXPECT_EQ(read.computedAt, 77u);
  EXPECT_EQ(read.timeMs, 1'700'000'000'000);
  auto broken = [&](auto change) {
    RepackRecord other = repack;
    change(other);
    EXPECT_ANY_THROW(decodeRepack(encodeRepack(other)));
  };
  broken([](RepackRecord& r) { r.repository = {}; });
  broken([](RepackRecord& r) { r.replaced.clear(); });
  broken([](RepackRecord& r) { r.replaced = {txnId(71), txnId(70)}; });
  broken([](RepackRecord& r) { r.replaced = {txnId(70), txnId(70)}; });   // it would be dropped twice
  broken([](RepackRecord& r) { r.replaced = {txnId(80)}; });              // itself
  broken([](RepackRecord& r) { r.pack.index = {}; });
}

}  // namespace
}  // namespace packmoor::gitlayer
