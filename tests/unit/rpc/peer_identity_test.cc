// Goal: only the right node, of the right cluster, with a certificate of the right authority, is
// connected to or accepted; each refusal is told in a sentence on both sides. Method: transports
// over loopback that are configured wrongly in one way each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include "peer_fixture.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source
using ::testing::HasSubstr;

class PeerIdentityTest : public ::testing::Test {
 protected:
  PeerIdentityTest() : io(kj::setupAsyncIo()), b(io, book, "b") { b.listen(); }
  ~PeerIdentityTest() noexcept override {}

  // What the first call from `node` to b fails with.
  std::string failure(TestNode& node) {
    auto call = node.transport->peer("b").readIndex({});
    KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { call.wait(io.waitScope); })) {
      EXPECT_EQ(e->getType(), kj::Exception::Type::DISCONNECTED);
      EXPECT_FALSE(node.transport->peer("b").connected());
      return e->getDescription().cStr();
    }
    return "no failure";
  }

  kj::AsyncIoContext io;
  AddressBook book;
  TestNode b;
};

TEST_F(PeerIdentityTest, AcceptsItsOwn) {
  TestNode a(io, book, "a");
  EXPECT_EQ(failure(a), "no failure");
  EXPECT_TRUE(a.transport->peer("b").connected());
  auto status = a.transport->status();
  ASSERT_EQ(status.size(), 1u);
  EXPECT_EQ(status[0].node, "b");
  EXPECT_EQ(status[0].address, book["b"]);
  EXPECT_EQ(status[0].software, "test");
  EXPECT_TRUE(status[0].control);
  EXPECT_EQ(status[0].problem, "");
}

TEST_F(PeerIdentityTest, RefusesAnUnknownAuthority) {
  // The server's certificate is checked first, by the side that dials.
  TestNode stranger(io, book, "a", {.files = TestCertificates::instance().foreignFiles("a")});
  EXPECT_THAT(failure(stranger), HasSubstr("did not prove by its certificate to be that node"));
  b.waitForNotice("was refused"_kj);

  // A stranger that believes our authority gets as far as showing its own certificate.
  auto files = TestCertificates::instance().foreignFiles("a");
  const std::string both = TestCertificates::instance().path() + "/both.crt";
  ASSERT_EQ(system(("cat " + files.authority + " " + TestCertificates::instance().files("a").authority +
                    " > " + both).c_str()), 0);
  files.authority = both;
  TestNode believer(io, book, "a", {.files = files});
  EXPECT_THAT(failure(believer), HasSubstr("it does not accept this node's certificate"));
}

TEST_F(PeerIdentityTest, RefusesTheCertificateOfAnotherNode) {
  // The node at the address of c is b.
  TestNode a(io, book, "a");
  book["c"] = book["b"];
  auto call = a.transport->peer("c").readIndex({});
  KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { call.wait(io.waitScope); })) {
    EXPECT_THAT(e->getDescription().cStr(), HasSubstr("ostname mismatch"));
  } else {
    FAIL() << "b was taken for c";
  }
  a.waitForNotice("Node c at "_kj);
  EXPECT_EQ(b.service.calls.size(), 0u);
}

TEST_F(PeerIdentityTest, RefusesANodeThatSaysItIsAnother) {
  TestNode liar(io, book, "a", {.certifiedAs = "c"});
  EXPECT_THAT(failure(liar), HasSubstr("It says that it is node a, but its certificate is of c."));
  b.waitForNotice("It says that it is node a, but its certificate is of c."_kj);
}

TEST_F(PeerIdentityTest, RefusesAnotherCluster) {
  TestNode other(io, book, "a", {.cluster = "omega"});
  EXPECT_THAT(failure(other),
              HasSubstr("Node a belongs to cluster omega, node b to cluster alpha."));
  b.waitForNotice("belongs to cluster omega"_kj);
  other.waitForNotice("node b refuses this node"_kj);
}

TEST_F(PeerIdentityTest, RefusesItsOwnName) {
  TestNode twin(io, book, "b");
  EXPECT_THAT(failure(twin), HasSubstr("Two nodes call themselves b."));
}

TEST_F(PeerIdentityTest, UnknownAddress) {
  TestNode a(io, book, "a");
  auto call = a.transport->peer("nowhere").readIndex({});
  KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { call.wait(io.waitScope); })) {
    EXPECT_STREQ(e->getDescription().cStr(),
                 "Node nowhere is not reachable: its address is not known.");
  } else {
    FAIL();
  }
}

TEST_F(PeerIdentityTest, TellsAFailureOnce) {
  TestNode a(io, book, "a");
  book["b"] = "127.0.0.1:1";
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(failure(a), "Node b is not reachable: Connection refused.");
    io.provider->getTimer().afterDelay(kPeerBackoffMinMs * kj::MILLISECONDS).wait(io.waitScope);
  }
  EXPECT_EQ(a.notices.size(), 2u) << "one for control, one for bulk";
}

}  // namespace
}  // namespace packmoor::rpc
