// Goal: nothing that arrives on the port for nodes ends it, or takes it up for long; each refusal
// is told. Method: raw connections over loopback with all kinds of wrong bytes; a clock of the
// test's own for what is silent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/vector.h>
#include <kj/compat/tls.h>
#include <sys/socket.h>

#include <kernelio/seeded_random.h>

#include "peer_fixture.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source

class PeerGarbageTest : public ::testing::Test {
 protected:
  PeerGarbageTest()
      : io(kj::setupAsyncIo()),
        timer(kj::origin<kj::TimePoint>() + 1 * kj::HOURS),
        a(io, book, "a"),
        b(io, book, "b", {.timer = timer}) {
    b.listen();
  }
  ~PeerGarbageTest() noexcept override {}

  kj::Own<kj::AsyncIoStream> connect() {
    auto address = io.provider->getNetwork()
                       .parseAddress(kj::StringPtr(book["b"].c_str()))
                       .wait(io.waitScope);
    return address->connect().wait(io.waitScope);
  }
  PeerListener& listener() { return *KJ_ASSERT_NONNULL(b.listener); }
  void waitForRefusals(uint64_t count) {
    while (listener().refusals() < count) {
      io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
    }
  }
  void send(kj::StringPtr bytes) {
    auto stream = connect();
    stream->write(bytes.begin(), bytes.size()).wait(io.waitScope);
    stream->shutdownWrite();
    waitForRefusals(++expected);
  }
  // A node that is as it should be is still served.
  void expectServing() {
    a.transport->peer("b").confirm({}).wait(io.waitScope);
    EXPECT_TRUE(a.transport->peer("b").connected());
  }

  kj::AsyncIoContext io;
  kj::TimerImpl timer;
  AddressBook book;
  TestNode a, b;
  uint64_t expected = 0;
};

TEST_F(PeerGarbageTest, WrongBytes) {
  send("");
  send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
  EXPECT_TRUE(b.noticed("to the port for nodes was refused: http request."_kj));
  send("\x16\x03\x01\x02");               // the beginning of a TLS handshake
  send("SSH-2.0-OpenSSH_9.2p1\r\n");
  send("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n");
  expectServing();
  EXPECT_EQ(listener().refusals(), expected);
}

TEST_F(PeerGarbageTest, RandomBytes) {
  kernelio::SeededRandom random(17);
  for (int i = 0; i < 100; ++i) {
    auto bytes = kj::heapString(random.below(2000));
    random.fill(bytes.asArray().asBytes().slice(0, bytes.size()));
    auto stream = connect();
    // It may be closed while we write.
    stream->write(bytes.begin(), bytes.size()).then([]() {}, [](kj::Exception&&) {}).wait(io.waitScope);
    kj::runCatchingExceptions([&]() { stream->shutdownWrite(); });
    waitForRefusals(++expected);
  }
  expectServing();
  EXPECT_LE(b.notices.size(), 25u) << "a flood of them is counted, not told";
}

TEST_F(PeerGarbageTest, ConnectionsThatAreResetAtOnce) {
  for (int i = 0; i < 50; ++i) {
    auto stream = connect();
    const linger abort = {1, 0};
    stream->setsockopt(SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  }
  waitForRefusals(50);
  expectServing();
}

TEST_F(PeerGarbageTest, TlsWithoutACertificate) {
  kj::TlsContext::Options options;
  kj::TlsContext anonymous(options);
  auto attempt = anonymous.wrapClient(connect(), "b").ignoreResult();
  KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { attempt.wait(io.waitScope); })) { (void)e; }
  waitForRefusals(1);
  expectServing();
}

TEST_F(PeerGarbageTest, GarbageInsideTls) {
  auto greet = [&](kj::ArrayPtr<const kj::byte> bytes) {
    auto stream = a.tls->dialling().wrapClient(connect(), "b").wait(io.waitScope);
    stream->write(bytes.begin(), bytes.size()).wait(io.waitScope);
    waitForRefusals(++expected);
  };
  const kj::byte huge[8] = {0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f};
  greet(huge);
  const kj::byte segments[8] = {0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0};
  greet(segments);
  const kj::byte empty[16] = {0, 0, 0, 0, 1, 0, 0, 0};  // a Hello of defaults
  greet(empty);
  EXPECT_TRUE(b.noticed("It says that it is node , but its certificate is of a."_kj));
  expectServing();
}

TEST_F(PeerGarbageTest, SilenceEndsInTime) {
  auto silent = connect();
  auto halfWay = connect();
  halfWay->write("\x16\x03\x01\x02", 4).wait(io.waitScope);
  auto secured = a.tls->dialling().wrapClient(connect(), "b").wait(io.waitScope);
  expectServing();
  EXPECT_EQ(listener().refusals(), 0u);
  timer.advanceTo(timer.now() + kPeerHandshakeTimeoutMs * kj::MILLISECONDS);
  waitForRefusals(3);
  EXPECT_TRUE(b.noticed("it did not say who it is in time."_kj));
  EXPECT_EQ(listener().connections(), 1u + (a.transport->status()[0].bulk ? 1 : 0));
  expectServing();
}

TEST_F(PeerGarbageTest, UnprovenConnectionsAreBounded) {
  expectServing();
  while (!a.transport->status()[0].bulk) a.transport->connectivityChanged().wait(io.waitScope);
  kj::Vector<kj::Own<kj::AsyncIoStream>> open;
  for (size_t i = 0; i < kPeerUnauthenticatedMax; ++i) open.add(connect());
  open.add(connect());
  waitForRefusals(1);
  EXPECT_TRUE(b.noticed("too many connections that have not yet proved a node id."_kj));
  expectServing();  // who has proved it stays
  timer.advanceTo(timer.now() + kPeerHandshakeTimeoutMs * kj::MILLISECONDS);
  waitForRefusals(1 + kPeerUnauthenticatedMax);
  TestNode c(io, book, "c");
  c.transport->peer("b").confirm({}).wait(io.waitScope);
}

}  // namespace
}  // namespace packmoor::rpc
