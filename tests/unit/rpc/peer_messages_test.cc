// Goal: every message of replicator/peer.h arrives as it was sent, and its answer too. Method: two
// transports over loopback with TLS; values that differ in each field.
#include <gtest/gtest.h>

#include "peer_fixture.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source

class PeerMessagesTest : public ::testing::Test {
 protected:
  ~PeerMessagesTest() noexcept override {}
  PeerMessagesTest() : io(kj::setupAsyncIo()), a(io, book, "a"), b(io, book, "b") { b.listen(); }

  Peer& toB() { return a.transport->peer("b"); }
  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(io.waitScope);
  }
  static Uuid uuid(uint8_t first) {
    Uuid id;
    for (size_t i = 0; i < 16; ++i) id.bytes[i] = static_cast<uint8_t>(first + 7 * i);
    return id;
  }
  void expectCall(const std::string& method) {
    ASSERT_FALSE(b.service.calls.empty());
    EXPECT_EQ(b.service.calls.back(), std::make_pair(NodeId("a"), method));
  }

  kj::AsyncIoContext io;
  AddressBook book;
  TestNode a, b;
};

std::vector<RecordRef> chain(RecordIndex first, Hash128 previous, size_t count, size_t bytes) {
  std::vector<RecordRef> records;
  for (size_t i = 0; i < count; ++i) {
    auto payload = kj::heapArray<kj::byte>(bytes);
    for (size_t k = 0; k < bytes; ++k) payload[k] = static_cast<kj::byte>(i + k);
    std::vector<ExtentId> extents;
    for (size_t k = 0; k < i % 3; ++k) {
      ExtentId id;
      id.bytes[0] = static_cast<uint8_t>(i + k);
      extents.push_back(id);
    }
    auto record = makeRecord(RecordIndex(first.value + i), Epoch(4), previous, RecordKind(16 + i % 5),
                             kj::mv(extents), kj::mv(payload));
    previous = record->hash;
    records.push_back(kj::mv(record));
  }
  return records;
}

void expectSame(const std::vector<RecordRef>& sent, const std::vector<RecordRef>& got) {
  ASSERT_EQ(sent.size(), got.size());
  for (size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(sent[i]->index, got[i]->index);
    EXPECT_EQ(sent[i]->epoch, got[i]->epoch);
    EXPECT_EQ(sent[i]->previousHash, got[i]->previousHash);
    EXPECT_EQ(sent[i]->kind, got[i]->kind);
    EXPECT_EQ(sent[i]->extents, got[i]->extents);
    EXPECT_EQ(sent[i]->hash, got[i]->hash);
    EXPECT_TRUE(sent[i]->payload.asPtr() == got[i]->payload.asPtr());
  }
}

TEST_F(PeerMessagesTest, Append) {
  AppendRequest request;
  request.volume = uuid(1);
  request.epoch = Epoch(7);
  request.nonce = uuid(2);
  request.primary = {"a", uuid(3)};
  request.member = uuid(4);
  request.previous = {RecordIndex(41), Epoch(3), Hash128{11, 12}};
  request.records = chain(RecordIndex(42), request.previous.hash, 5, 100);
  request.committed = RecordIndex(40);
  request.everywhere = RecordIndex(39);
  request.lossEpoch = Epoch(6);
  request.behind = LogPosition{RecordIndex(7), Epoch(2), Hash128{8, 9}};
  b.service.appendReply = {AppendReply::Outcome::kMismatch, Epoch(7), Epoch(8),
                           {RecordIndex(9), Epoch(6), Hash128{13, 14}}};
  auto records = request.records;
  auto reply = wait(toB().append(kj::mv(request)));
  expectCall("append");
  auto& got = b.service.appended;
  EXPECT_EQ(got.volume, uuid(1));
  EXPECT_EQ(got.epoch, Epoch(7));
  EXPECT_EQ(got.nonce, uuid(2));
  EXPECT_EQ(got.primary, (MemberIdentity{"a", uuid(3)}));
  EXPECT_EQ(got.member, uuid(4));
  EXPECT_EQ(got.previous, (LogPosition{RecordIndex(41), Epoch(3), Hash128{11, 12}}));
  expectSame(records, got.records);
  EXPECT_EQ(got.committed, RecordIndex(40));
  EXPECT_EQ(got.everywhere, RecordIndex(39));
  EXPECT_EQ(got.lossEpoch, Epoch(6));
  EXPECT_EQ(got.behind, (LogPosition{RecordIndex(7), Epoch(2), Hash128{8, 9}}));
  EXPECT_EQ(reply.outcome, AppendReply::Outcome::kMismatch);
  EXPECT_EQ(reply.epoch, Epoch(7));
  EXPECT_EQ(reply.promised, Epoch(8));
  EXPECT_EQ(reply.position, (LogPosition{RecordIndex(9), Epoch(6), Hash128{13, 14}}));
}

TEST_F(PeerMessagesTest, HeartbeatAndLargestAppends) {
  AppendRequest heartbeat;
  wait(toB().append(kj::mv(heartbeat)));
  EXPECT_TRUE(b.service.appended.records.empty());

  AppendRequest many;
  many.records = chain(RecordIndex(1), Hash128(), 4096, 200);
  auto records = many.records;
  wait(toB().append(kj::mv(many)));
  expectSame(records, b.service.appended.records);

  AppendRequest one;
  one.records = chain(RecordIndex(1), Hash128(), 1, kRecordPayloadBytesMax);
  records = one.records;
  wait(toB().append(kj::mv(one)));
  expectSame(records, b.service.appended.records);
}

TEST_F(PeerMessagesTest, Fence) {
  VolumeRecord record;
  record.id = uuid(1);
  record.name = "main";
  record.current = {Epoch(5), {"a", uuid(2)}, uuid(3), {{"a", uuid(2)}, {"b", uuid(4)}},
                    {{"far", uuid(5)}, {"new", uuid(7)}}, 2, {{"new", uuid(7)}}};
  record.traits = VolumeTraits{true, 7, {"b"}};
  record.lastActive = VolumeConfiguration{Epoch(4), {"b", uuid(4)}, uuid(6), {{"b", uuid(4)}}, {}, 1, {}};
  record.losses = {{Epoch(3), {RecordIndex(9), Epoch(2), Hash128{3, 4}}, {{"a", uuid(2)}},
                    {{"c", uuid(8)}}, 1, 1'700'000'000'000, "user id 0", "records above 9", true}};
  record.revision = 77;
  b.service.fenceReply = {true, Epoch(5), true, {"b", uuid(4)},
                          {RecordIndex(10), Epoch(4), Hash128{1, 2}}, RecordIndex(3)};
  auto reply = wait(toB().fence({record, true}));
  expectCall("fence");
  auto& got = b.service.fenced.coordinator;
  EXPECT_EQ(got.id, record.id);
  EXPECT_EQ(got.name, "main");
  EXPECT_EQ(got.current, record.current);
  EXPECT_EQ(got.phase, VolumePhase::kRecovering);
  EXPECT_EQ(got.lastActive, record.lastActive);
  EXPECT_EQ(got.revision, 77);
  EXPECT_EQ(got.traits, record.traits);
  EXPECT_EQ(got.losses, record.losses);
  EXPECT_TRUE(b.service.fenced.acceptsLoss);
  EXPECT_TRUE(reply.promised);
  EXPECT_TRUE(reply.repairing);
  EXPECT_EQ(reply.highest, Epoch(5));
  EXPECT_EQ(reply.member, (MemberIdentity{"b", uuid(4)}));
  EXPECT_EQ(reply.last, (LogPosition{RecordIndex(10), Epoch(4), Hash128{1, 2}}));
  EXPECT_EQ(reply.base, RecordIndex(3));

  record.phase = VolumePhase::kActive;
  record.lastActive.reset();
  wait(toB().fence({record}));
  EXPECT_EQ(b.service.fenced.coordinator.phase, VolumePhase::kActive);
  EXPECT_FALSE(b.service.fenced.coordinator.lastActive.has_value());
}

TEST_F(PeerMessagesTest, Fetch) {
  b.service.fetchRecords = chain(RecordIndex(8), Hash128{5, 6}, 4, 50);
  auto reply = wait(toB().fetch({uuid(1), Epoch(2), RecordIndex(8), RecordIndex(20)}));
  expectCall("fetch");
  EXPECT_EQ(b.service.fetched.volume, uuid(1));
  EXPECT_EQ(b.service.fetched.epoch, Epoch(2));
  EXPECT_EQ(b.service.fetched.first, RecordIndex(8));
  EXPECT_EQ(b.service.fetched.last, RecordIndex(20));
  expectSame(b.service.fetchRecords, reply.records);

  b.service.fetchRecords.clear();
  EXPECT_TRUE(wait(toB().fetch({})).records.empty());
}

TEST_F(PeerMessagesTest, CommonPrefix) {
  const LogPosition first{RecordIndex(1), Epoch(1), Hash128{1, 1}};
  const LogPosition second{RecordIndex(2), Epoch(1), Hash128{2, 1}};
  b.service.prefixReply = second;
  EXPECT_EQ(wait(toB().commonPrefix({uuid(1), {first, second}})), second);
  expectCall("commonPrefix");
  EXPECT_EQ(b.service.prefixAsked.volume, uuid(1));
  EXPECT_EQ(b.service.prefixAsked.positions, (std::vector<LogPosition>{first, second}));
}

TEST_F(PeerMessagesTest, Propose) {
  b.service.proposeReply = []() {
    return ProposeReply{ProposeReply::Outcome::kDone, RecordIndex(12), bytesOf("result"), "c",
                        "because"};
  };
  auto reply = wait(toB().propose({uuid(1), uuid(2), RecordKind(19), {uuid(3), uuid(4)},
                                   {"a", "b"}, bytesOf("payload")}));
  expectCall("propose");
  auto& got = b.service.proposed;
  EXPECT_EQ(got.volume, uuid(1));
  EXPECT_EQ(got.txn, uuid(2));
  EXPECT_EQ(got.kind, RecordKind(19));
  EXPECT_EQ(got.extents, (std::vector<ExtentId>{uuid(3), uuid(4)}));
  EXPECT_EQ(got.sealedOn, (std::vector<NodeId>{"a", "b"}));
  EXPECT_TRUE(got.payload.asPtr() == "payload"_kj.asBytes());
  EXPECT_EQ(reply.outcome, ProposeReply::Outcome::kDone);
  EXPECT_EQ(reply.index, RecordIndex(12));
  EXPECT_TRUE(reply.result.asPtr() == "result"_kj.asBytes());
  EXPECT_EQ(reply.primary, "c");
  EXPECT_EQ(reply.reason, "because");
}

TEST_F(PeerMessagesTest, ReadIndexAndConfirm) {
  b.service.readIndexReply = {true, Epoch(3), RecordIndex(4), "c", "why", RecordIndex(13)};
  auto read = wait(toB().readIndex({uuid(9), uuid(10), Epoch(11), uuid(12), true}));
  expectCall("readIndex");
  EXPECT_EQ(b.service.readIndexAsked.volume, uuid(9));
  EXPECT_EQ(b.service.readIndexAsked.member, uuid(10));
  EXPECT_EQ(b.service.readIndexAsked.follows, Epoch(11));
  EXPECT_EQ(b.service.readIndexAsked.nonce, uuid(12));
  EXPECT_TRUE(b.service.readIndexAsked.repairs);
  EXPECT_EQ(read.last, RecordIndex(13));
  EXPECT_TRUE(read.ok);
  EXPECT_EQ(read.epoch, Epoch(3));
  EXPECT_EQ(read.committed, RecordIndex(4));
  EXPECT_EQ(read.primary, "c");
  EXPECT_EQ(read.reason, "why");

  b.service.confirmReply = {true, 99, Epoch(6)};
  ConfirmRequest request;
  request.volume = uuid(8);
  request.member = uuid(7);
  request.epoch = Epoch(5);
  request.round = 98;
  auto confirmed = wait(toB().confirm(request));
  expectCall("confirm");
  EXPECT_EQ(b.service.confirmAsked.volume, uuid(8));
  EXPECT_EQ(b.service.confirmAsked.member, uuid(7));
  EXPECT_EQ(b.service.confirmAsked.epoch, Epoch(5));
  EXPECT_EQ(b.service.confirmAsked.round, 98u);
  EXPECT_TRUE(confirmed.follows);
  EXPECT_EQ(confirmed.round, 99u);
  EXPECT_EQ(confirmed.promised, Epoch(6));
}

TEST_F(PeerMessagesTest, Consent) {
  b.service.consentReply = {true, {"b", uuid(1)}, Epoch(7),
                            {RecordIndex(8), Epoch(6), Hash128{9, 10}}, "because"};
  auto reply = wait(toB().consent(
      {uuid(2), {"a", uuid(3)}, Epoch(5), {RecordIndex(4), Epoch(3), Hash128{1, 2}}, true}));
  expectCall("consent");
  auto& got = b.service.consentAsked;
  EXPECT_EQ(got.volume, uuid(2));
  EXPECT_EQ(got.candidate, (MemberIdentity{"a", uuid(3)}));
  EXPECT_EQ(got.epoch, Epoch(5));
  EXPECT_EQ(got.last, (LogPosition{RecordIndex(4), Epoch(3), Hash128{1, 2}}));
  EXPECT_TRUE(got.handOver);
  EXPECT_TRUE(reply.consents);
  EXPECT_EQ(reply.member, (MemberIdentity{"b", uuid(1)}));
  EXPECT_EQ(reply.promised, Epoch(7));
  EXPECT_EQ(reply.last, (LogPosition{RecordIndex(8), Epoch(6), Hash128{9, 10}}));
  EXPECT_EQ(reply.reason, "because");
}

TEST_F(PeerMessagesTest, TakeOverAndQuery) {
  wait(toB().takeOver(uuid(9)));
  expectCall("takeOver");
  EXPECT_EQ(b.service.volume, uuid(9));

  b.service.answer = "42";
  auto answer = wait(toB().query(uuid(3), "roots", bytesOf("which?")));
  expectCall("query");
  EXPECT_EQ(b.service.volume, uuid(3));
  EXPECT_EQ(b.service.queryName, "roots");
  EXPECT_EQ(b.service.question, "which?");
  EXPECT_TRUE(answer.asPtr() == "42"_kj.asBytes());
}

TEST_F(PeerMessagesTest, Extents) {
  auto data = kernelio::IoBuffer::copyOf(bytesOf("a block of an extent"));
  wait(toB().writeExtentBlock(uuid(1), 6, data, Hash128{3, 4}));
  wait(toB().sealExtent(uuid(1), 12345, Hash128{5, 6}));
  EXPECT_EQ(b.service.count("writeExtentBlock"), 1u);
  EXPECT_EQ(b.service.block, 6u);
  EXPECT_TRUE(b.service.blockData.bytes() == data.bytes());
  expectCall("sealExtent");
  EXPECT_EQ(b.service.extent, uuid(1));
  EXPECT_EQ(b.service.sealedBytes, 12345u);
  EXPECT_EQ(b.service.checksum, (Hash128{5, 6}));

  auto back = wait(toB().readExtentBlock(uuid(1), 8));
  expectCall("readExtentBlock");
  EXPECT_EQ(b.service.block, 8u);
  EXPECT_TRUE(back.data.bytes() == data.bytes());
  EXPECT_EQ(back.checksum, (Hash128{5, 6}));

  auto info = wait(toB().extentInfo(uuid(2)));
  expectCall("extentInfo");
  EXPECT_EQ(b.service.extent, uuid(2));
  EXPECT_EQ(info, std::make_pair(uint64_t(12345), Hash128{5, 6}));

  wait(toB().abandonExtent(uuid(3)));
  expectCall("abandonExtent");
  EXPECT_EQ(b.service.extent, uuid(3));
}

TEST_F(PeerMessagesTest, Checkpoints) {
  b.service.checkpointReply = {uuid(4), {RecordIndex(41), Epoch(3), Hash128{11, 12}}, 70'000,
                               Hash128{5, 6}};
  auto offer = wait(toB().openCheckpoint({uuid(1), uuid(2), uuid(3), true}));
  expectCall("openCheckpoint");
  EXPECT_EQ(b.service.checkpointAsked.volume, uuid(1));
  EXPECT_EQ(b.service.checkpointAsked.member, uuid(2));
  EXPECT_EQ(b.service.checkpointAsked.resume, uuid(3));
  EXPECT_EQ(b.service.checkpointAsked.replaces, true);
  EXPECT_EQ(offer.checkpoint, uuid(4));
  EXPECT_EQ(offer.position, (LogPosition{RecordIndex(41), Epoch(3), Hash128{11, 12}}));
  EXPECT_EQ(offer.manifestBytes, 70'000u);
  EXPECT_EQ(offer.manifestHash, (Hash128{5, 6}));

  b.service.blockData = kernelio::IoBuffer::copyOf(bytesOf("a block of a file"));
  b.service.checksum = Hash128{7, 8};
  auto block = wait(toB().readCheckpointBlock({uuid(1), uuid(4), 9, 1ull << 40}));
  expectCall("readCheckpointBlock");
  EXPECT_EQ(b.service.checkpointBlock.volume, uuid(1));
  EXPECT_EQ(b.service.checkpointBlock.checkpoint, uuid(4));
  EXPECT_EQ(b.service.checkpointBlock.file, 9u);
  EXPECT_EQ(b.service.checkpointBlock.block, 1ull << 40);
  EXPECT_TRUE(block.data.bytes() == b.service.blockData.bytes());
  EXPECT_EQ(block.checksum, (Hash128{7, 8}));

  wait(toB().closeCheckpoint({uuid(1), uuid(4)}));
  expectCall("closeCheckpoint");
  EXPECT_EQ(b.service.checkpointClosed.checkpoint, uuid(4));
}

TEST_F(PeerMessagesTest, ExceptionsKeepTheirKind) {
  b.service.onTakeOver = [](VolumeId) -> kj::Promise<void> {
    return KJ_EXCEPTION(OVERLOADED, "not so fast");
  };
  auto promise = toB().takeOver(uuid(1));
  KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { promise.wait(io.waitScope); })) {
    EXPECT_EQ(e->getType(), kj::Exception::Type::OVERLOADED);
    EXPECT_NE(std::string(e->getDescription().cStr()).find("not so fast"), std::string::npos);
  } else {
    FAIL() << "no exception";
  }
}

}  // namespace
}  // namespace packmoor::rpc
