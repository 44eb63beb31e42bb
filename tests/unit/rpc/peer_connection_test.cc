// Goal: connections come back by themselves, their loss is told at once, extents are streamed with
// bounds and in order, and never delay what goes by the control connection. Method: two transports
// over loopback; the service holds answers back; only order and counts are looked at.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>

#include "peer_fixture.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source
using ::testing::HasSubstr;

constexpr size_t kBlock = 256u << 10;

ExtentId extentId(uint8_t first) {
  ExtentId id;
  id.bytes[0] = first;
  return id;
}

class PeerConnectionTest : public ::testing::Test {
 protected:
  PeerConnectionTest() : io(kj::setupAsyncIo()), a(io, book, "a"), b(io, book, "b") {
    b.listen();
    port = KJ_ASSERT_NONNULL(b.listener)->port();
  }
  ~PeerConnectionTest() noexcept override {}

  Peer& toB() { return a.transport->peer("b"); }
  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(io.waitScope);
  }
  kj::Maybe<kj::Exception> failureOf(kj::Promise<void> promise) {
    return kj::runCatchingExceptions([&]() { promise.wait(io.waitScope); });
  }
  void expectDisconnected(kj::Promise<void> promise) {
    KJ_IF_MAYBE(e, failureOf(kj::mv(promise))) {
      EXPECT_EQ(e->getType(), kj::Exception::Type::DISCONNECTED) << e->getDescription().cStr();
    } else {
      FAIL() << "no failure";
    }
  }
  void ping() { wait(toB().confirm({})); }
  // Waits until b's service has seen so many calls of a method.
  void waitForCalls(const char* method, size_t count) {
    while (b.service.count(method) < count) {
      io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
    }
  }

  kj::AsyncIoContext io;
  AddressBook book;
  TestNode a, b;
  uint16_t port = 0;
};

TEST_F(PeerConnectionTest, TellsOfLossAndOfReturn) {
  ping();
  wait(a.transport->connectivityChanged());
  EXPECT_TRUE(toB().connected());
  b.service.onTakeOver = [](VolumeId) { return kj::Promise<void>(kj::NEVER_DONE); };
  auto running = toB().takeOver(VolumeId());
  waitForCalls("takeOver", 1);

  b.close();
  expectDisconnected(kj::mv(running));
  while (toB().connected()) wait(a.transport->connectivityChanged());
  expectDisconnected(toB().confirm({}).ignoreResult());

  b.listen(port);
  while (!toB().connected()) wait(a.transport->connectivityChanged());
  ping();
}

TEST_F(PeerConnectionTest, RefusedConnectionIsReportedAtOnce) {
  b.close();
  KJ_IF_MAYBE(e, failureOf(toB().confirm({}).ignoreResult())) {
    EXPECT_STREQ(e->getDescription().cStr(), "Node b is not reachable: Connection refused.");
    EXPECT_EQ(e->getType(), kj::Exception::Type::DISCONNECTED);
  } else {
    FAIL();
  }
}

TEST_F(PeerConnectionTest, ANewAddressIsDialledAtOnce) {
  book["b"] = "127.0.0.1:1";
  expectDisconnected(toB().confirm({}).ignoreResult());
  book["b"] = "127.0.0.1:" + std::to_string(port);
  a.transport->addressesChanged();
  while (!toB().connected()) wait(a.transport->connectivityChanged());
  ping();
}

TEST_F(PeerConnectionTest, ANodeThatConnectsIsDialledAtOnce) {
  a.listen();
  const std::string right = book["b"];
  book["b"] = "127.0.0.1:1";
  // Long enough for the pause between attempts to be at its longest.
  for (int i = 0; i < 8; ++i) {
    expectDisconnected(toB().confirm({}).ignoreResult());
    io.provider->getTimer().afterDelay(200 * kj::MILLISECONDS).wait(io.waitScope);
  }
  book["b"] = right;
  wait(b.transport->peer("a").confirm({}));
  while (!toB().connected()) wait(a.transport->connectivityChanged());
}

TEST_F(PeerConnectionTest, ClosingTheListenerEndsCallsInTheService) {
  bool dropped = false;
  b.service.onTakeOver = [&dropped](VolumeId) {
    return kj::Promise<void>(kj::NEVER_DONE).attach(kj::defer([&dropped]() { dropped = true; }));
  };
  auto running = toB().takeOver(VolumeId());
  waitForCalls("takeOver", 1);
  b.close();
  EXPECT_TRUE(dropped) << "the service may be gone now";
  expectDisconnected(kj::mv(running));
}

TEST_F(PeerConnectionTest, ANewerConnectionTakesThePlaceOfTheOlder) {
  ping();
  auto& listener = *KJ_ASSERT_NONNULL(b.listener);
  wait(toB().query(VolumeId(), "x", nullptr));  // both connections are there
  EXPECT_EQ(listener.connections(), 2u);
  TestNode again(io, book, "a");
  wait(again.transport->peer("b").query(VolumeId(), "x", nullptr));
  wait(again.transport->peer("b").confirm({}));
  EXPECT_EQ(listener.connections(), 2u);
  while (toB().connected()) wait(a.transport->connectivityChanged());
}

TEST_F(PeerConnectionTest, StreamsAnExtentInOrderBesideHeartbeats) {
  constexpr size_t kBlocks = (64u << 20) / kBlock;
  std::vector<uint64_t> written;
  b.service.onBlock = [&](ExtentId, uint64_t number, kernelio::IoBuffer data) {
    EXPECT_EQ(data.size(), kBlock);
    EXPECT_EQ(data.begin()[0], static_cast<kj::byte>(number));
    written.push_back(number);
    return kj::Promise<void>(kj::READY_NOW);
  };
  size_t pings = 0;
  bool done = false;
  std::function<kj::Promise<void>()> pingLoop = [&]() -> kj::Promise<void> {
    if (done) return kj::READY_NOW;
    return toB().confirm({}).then([&](ConfirmReply) {
      ++pings;
      return pingLoop();
    });
  };
  auto pinging = pingLoop().eagerlyEvaluate(nullptr);
  for (size_t i = 0; i < kBlocks; ++i) {
    auto data = kernelio::IoBuffer::allocate(kBlock);
    data.begin()[0] = static_cast<kj::byte>(i);
    wait(toB().writeExtentBlock(extentId(1), i, data, Hash128()));
  }
  wait(toB().sealExtent(extentId(1), kBlocks * kBlock, Hash128()));
  done = true;
  wait(kj::mv(pinging));
  ASSERT_EQ(written.size(), kBlocks);
  for (size_t i = 0; i < kBlocks; ++i) EXPECT_EQ(written[i], i);
  EXPECT_EQ(b.service.count("sealExtent"), 1u);
  EXPECT_GE(pings, 10u);
}

TEST_F(PeerConnectionTest, AStuckExtentIsBoundedAndDelaysNothingElse) {
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> release;
  b.service.onBlock = [&](ExtentId, uint64_t number, kernelio::IoBuffer) -> kj::Promise<void> {
    if (number != 0) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    release = kj::mv(paf.fulfiller);
    return kj::mv(paf.promise);
  };
  size_t accepted = 0;
  std::function<kj::Promise<void>()> writeLoop = [&]() -> kj::Promise<void> {
    if (accepted == 64) return kj::READY_NOW;
    auto data = kernelio::IoBuffer::allocate(kBlock);
    return toB().writeExtentBlock(extentId(1), accepted, data, Hash128()).then([&]() {
      ++accepted;
      return writeLoop();
    });
  };
  auto writing = writeLoop().eagerlyEvaluate(nullptr);
  waitForCalls("writeExtentBlock", 1);
  for (int i = 0; i < 200; ++i) ping();
  EXPECT_LE(accepted, kPeerStreamWindowBytes / kBlock + 1);
  EXPECT_EQ(b.service.count("writeExtentBlock"), 1u) << "one block after the other";
  // Another extent goes on meanwhile, on the same connection.
  auto data = kernelio::IoBuffer::allocate(kBlock);
  wait(toB().writeExtentBlock(extentId(2), 1, data, Hash128()));
  wait(toB().sealExtent(extentId(2), kBlock, Hash128()));

  KJ_ASSERT_NONNULL(release)->fulfill();
  wait(kj::mv(writing));
  wait(toB().sealExtent(extentId(1), 64 * kBlock, Hash128()));
  EXPECT_EQ(b.service.count("writeExtentBlock"), 65u);
}

TEST_F(PeerConnectionTest, AFailedBlockFailsTheSeal) {
  b.service.onBlock = [](ExtentId, uint64_t number, kernelio::IoBuffer) -> kj::Promise<void> {
    if (number == 1) return KJ_EXCEPTION(FAILED, "the disk is full");
    return kj::READY_NOW;
  };
  auto data = kernelio::IoBuffer::allocate(100);
  wait(toB().writeExtentBlock(extentId(1), 0, data, Hash128()));
  wait(toB().writeExtentBlock(extentId(1), 1, data, Hash128()));
  KJ_IF_MAYBE(e, failureOf(toB().sealExtent(extentId(1), 200, Hash128()))) {
    EXPECT_THAT(e->getDescription().cStr(), HasSubstr("the disk is full"));
  } else {
    FAIL();
  }
  EXPECT_EQ(b.service.count("sealExtent"), 0u);
  waitForCalls("abandonExtent", 1);
  // It may be sent again as a whole.
  b.service.onBlock = nullptr;
  wait(toB().writeExtentBlock(extentId(1), 0, data, Hash128()));
  wait(toB().sealExtent(extentId(1), 100, Hash128()));
}

TEST_F(PeerConnectionTest, AbandonedBlocksAreNotWritten) {
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> release;
  b.service.onBlock = [&](ExtentId, uint64_t number, kernelio::IoBuffer) -> kj::Promise<void> {
    auto paf = kj::newPromiseAndFulfiller<void>();
    release = kj::mv(paf.fulfiller);
    return kj::mv(paf.promise);
  };
  auto data = kernelio::IoBuffer::allocate(100);
  for (uint64_t i = 0; i < 3; ++i) wait(toB().writeExtentBlock(extentId(1), i, data, Hash128()));
  waitForCalls("writeExtentBlock", 1);
  wait(toB().abandonExtent(extentId(1)));
  KJ_ASSERT_NONNULL(release)->fulfill();
  ping();
  EXPECT_EQ(b.service.count("writeExtentBlock"), 1u);
  EXPECT_EQ(b.service.count("abandonExtent"), 1u);
}

TEST_F(PeerConnectionTest, ABrokenConnectionLosesItsExtents) {
  auto data = kernelio::IoBuffer::allocate(100);
  wait(toB().writeExtentBlock(extentId(1), 0, data, Hash128()));
  waitForCalls("writeExtentBlock", 1);
  b.close();
  EXPECT_EQ(b.service.count("abandonExtent"), 1u) << "by the receiver, at once";
  while (a.transport->status()[0].bulk) wait(a.transport->connectivityChanged());
  b.listen(port);
  while (!a.transport->status()[0].bulk) wait(a.transport->connectivityChanged());
  expectDisconnected(toB().writeExtentBlock(extentId(1), 1, data, Hash128()));
  expectDisconnected(toB().sealExtent(extentId(1), 200, Hash128()));
  // The failed seal has forgotten it.
  wait(toB().writeExtentBlock(extentId(1), 0, data, Hash128()));
  wait(toB().sealExtent(extentId(1), 100, Hash128()));
  EXPECT_EQ(b.service.count("sealExtent"), 1u);
}

TEST_F(PeerConnectionTest, ManyAppendsInFlight) {
  AppendRequest request;
  auto payload = kj::heapArray<kj::byte>(300);
  for (auto& byte : payload) byte = 7;
  request.records.push_back(makeRecord(RecordIndex(1), Epoch(1), Hash128(), RecordKind(16), {},
                                       kj::mv(payload)));
  std::list<kj::Promise<AppendReply>> calls;
  for (int i = 0; i < 4096; ++i) calls.push_back(toB().append(request));
  for (auto& call : calls) wait(kj::mv(call));
  EXPECT_EQ(b.service.count("append"), 4096u);
}

}  // namespace
}  // namespace packmoor::rpc
