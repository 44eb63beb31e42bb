// Goal: the coordinator over etcd keeps the contract of replicator/coordinator.h, and says plainly
// what is wrong when etcd is not well. Method: a real etcd, and a relay that loses answers.
#include "rpc/etcd_coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/vector.h>

#include "etcd_fixture.h"
#include "peer_fixture.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source
using ::testing::HasSubstr;

Uuid uuid(uint8_t first) {
  Uuid id;
  for (size_t i = 0; i < 16; ++i) id.bytes[i] = static_cast<uint8_t>(first + 3 * i);
  return id;
}

VolumeRecord newVolume(const std::string& name) {
  VolumeRecord record;
  record.id = uuid(1);
  record.name = name;
  record.current.members = {{"a", uuid(2)}, {"b", uuid(3)}};
  record.current.async = {{"far", uuid(4)}};
  record.current.writeQuorum = 2;
  return record;
}

class EtcdCoordinatorTest : public ::testing::Test {
 protected:
  EtcdCoordinatorTest() : io(kj::setupAsyncIo()) {}
  ~EtcdCoordinatorTest() noexcept override {}

  // A cluster name of the test's own, so that tests do not see each other's keys.
  static std::string clusterName() {
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    for (auto& c : name) c = static_cast<char>(tolower(c));
    return name;
  }
  kj::Own<EtcdCoordinator> coordinator(std::vector<std::string> endpoints,
                                        int64_t timeoutMs = 20'000) {
    return wait(EtcdCoordinator::open(EtcdOptions{
        io.provider->getTimer(), io.provider->getNetwork(), kj::mv(endpoints), clusterName(),
        "/packmoor", timeoutMs, [this](NoticeLevel, kj::StringPtr text) {
          notices.emplace_back(text.cStr());
        }}));
  }
  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(io.waitScope);
  }
  template <typename T>
  std::string failureOf(kj::Promise<T> promise) {
    KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { promise.wait(io.waitScope); })) {
      return e->getDescription().cStr();
    }
    return "no failure";
  }

  kj::AsyncIoContext io;
  std::vector<std::string> notices;
};

TEST_F(EtcdCoordinatorTest, CreatesReadsAndLists) {
  auto etcd = coordinator({sharedEtcd().endpoint()});
  EXPECT_FALSE(wait(etcd->readVolume("main")).has_value());
  EXPECT_TRUE(wait(etcd->listVolumes()).empty());
  EXPECT_TRUE(etcd->reachable());
  EXPECT_EQ(etcd->kind(), "etcd"_kj);

  auto record = newVolume("main");
  EXPECT_TRUE(wait(etcd->compareAndSwap(record)));
  EXPECT_FALSE(wait(etcd->compareAndSwap(record))) << "it exists now";
  EXPECT_TRUE(wait(etcd->compareAndSwap(newVolume("other"))));

  auto read = wait(etcd->readVolume("main"));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->id, record.id);
  EXPECT_EQ(read->name, "main");
  EXPECT_EQ(read->current, record.current);
  EXPECT_EQ(read->phase, VolumePhase::kRecovering);
  EXPECT_FALSE(read->lastActive.has_value());
  EXPECT_GT(read->revision, 0);

  auto all = wait(etcd->listVolumes());
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].name, "main");
  EXPECT_EQ(all[1].name, "other");
  EXPECT_NE(etcd->identity().clusterId, 0u);
  EXPECT_GE(etcd->identity().revision, all[1].revision);
}

TEST_F(EtcdCoordinatorTest, SwapsOnlyTheRevisionThatWasRead) {
  auto first = coordinator({sharedEtcd().endpoint()});
  auto second = coordinator({sharedEtcd().endpoint()});
  ASSERT_TRUE(wait(first->compareAndSwap(newVolume("main"))));
  auto seenByFirst = *wait(first->readVolume("main"));
  auto seenBySecond = *wait(second->readVolume("main"));

  seenByFirst.current.epoch = Epoch(1);
  seenByFirst.current.primary = {"a", uuid(2)};
  seenByFirst.current.nonce = uuid(9);
  EXPECT_TRUE(wait(first->compareAndSwap(seenByFirst)));
  EXPECT_FALSE(wait(second->compareAndSwap(seenBySecond)));

  auto now = *wait(second->readVolume("main"));
  EXPECT_EQ(now.current, seenByFirst.current);
  now.phase = VolumePhase::kActive;
  now.current.async = {{"far", now.current.members.front().journal}};
  now.current.joining = now.current.async;
  now.traits = {true, 7, {"far"}, true, {now.id}};
  now.lastActive = now.current;
  now.losses = {{replicator::Epoch(3),
                 {replicator::RecordIndex(9), replicator::Epoch(2), replicator::Hash128{3, 4}},
                 now.current.members, now.current.async, 1, 1'700'000'000'000, "user id 0",
                 "records \"above\" 9", true}};
  EXPECT_TRUE(wait(second->compareAndSwap(now)));
  auto after = *wait(first->readVolume("main"));
  EXPECT_EQ(after.phase, VolumePhase::kActive);
  EXPECT_EQ(after.lastActive, now.current);
  EXPECT_EQ(after.traits, now.traits);
  EXPECT_EQ(after.losses, now.losses);
  EXPECT_GT(after.revision, now.revision);
}

TEST_F(EtcdCoordinatorTest, OneOfManyConcurrentSwapsWins) {
  auto etcd = coordinator({sharedEtcd().endpoint()});
  kj::Vector<kj::Promise<bool>> attempts;
  for (uint8_t i = 0; i < 10; ++i) {
    auto record = newVolume("main");
    record.current.nonce = uuid(static_cast<uint8_t>(100 + i));
    attempts.add(etcd->compareAndSwap(record));
  }
  auto results = wait(kj::joinPromises(attempts.releaseAsArray()));
  size_t winners = 0, winner = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i]) ++winners, winner = i;
  }
  EXPECT_EQ(winners, 1u);
  EXPECT_EQ(wait(etcd->readVolume("main"))->current.nonce, uuid(static_cast<uint8_t>(100 + winner)));
}

TEST_F(EtcdCoordinatorTest, RegistersNodes) {
  auto etcd = coordinator({sharedEtcd().endpoint()});
  wait(etcd->registerNode({"a", uuid(1), "h1:7", "h1:8", "0.1"}));
  wait(etcd->registerNode({"b", uuid(2), "h2:7", "h2:8", "0.1"}));
  wait(etcd->registerNode({"a", uuid(1), "h3:7", "h3:8", "0.2"}));
  auto nodes = wait(etcd->listNodes());
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0].node, "a");
  EXPECT_EQ(nodes[0].journal, uuid(1));
  EXPECT_EQ(nodes[0].rpcAddress, "h3:7");
  EXPECT_EQ(nodes[0].httpAddress, "h3:8");
  EXPECT_EQ(nodes[0].version, "0.2");
  EXPECT_EQ(nodes[1].node, "b");
}

TEST_F(EtcdCoordinatorTest, TellsOfChangesByOthers) {
  auto watching = coordinator({sharedEtcd().endpoint()});
  auto writing = coordinator({sharedEtcd().endpoint()});
  wait(watching->changed());  // the watch is there
  for (int i = 0; i < 3; ++i) {
    auto changed = watching->changed();
    ASSERT_TRUE(wait(writing->compareAndSwap(newVolume("v" + std::to_string(i)))));
    wait(kj::mv(changed));
    // Any further wake for the same write comes before the next write.
    EXPECT_EQ(wait(watching->listVolumes()).size(), static_cast<size_t>(i + 1));
  }
}

TEST_F(EtcdCoordinatorTest, LostAnswerIsAnUnknownResult) {
  TcpRelay relay(io, sharedEtcd().port());
  auto etcd = coordinator({relay.endpoint()});
  auto direct = coordinator({sharedEtcd().endpoint()});
  auto record = newVolume("main");
  record.current.nonce = uuid(77);
  relay.loseTransactions(true);
  const std::string failure = failureOf(etcd->compareAndSwap(record));
  EXPECT_THAT(failure, HasSubstr("etcd at " + relay.endpoint() + " failed"));
  EXPECT_FALSE(etcd->reachable());
  auto stored = wait(direct->readVolume("main"));
  ASSERT_TRUE(stored.has_value()) << "etcd acted";
  EXPECT_EQ(stored->current.nonce, uuid(77)) << "and the nonce tells whose epoch it is";
  relay.loseTransactions(false);
  EXPECT_TRUE(wait(etcd->readVolume("main")).has_value());
  EXPECT_TRUE(etcd->reachable());
}

TEST_F(EtcdCoordinatorTest, SaysThatNobodyAnswers) {
  auto etcd = coordinator({"http://127.0.0.1:1"});
  const std::string failure = failureOf(etcd->readVolume("main"));
  EXPECT_EQ(failure, "etcd at http://127.0.0.1:1 failed: Connection refused.");
  EXPECT_FALSE(etcd->reachable());
  EXPECT_EQ(etcd->problem(), failure);
  failureOf(etcd->listVolumes());
  EXPECT_EQ(notices.size(), 1u) << "the same problem is told once";
}

TEST_F(EtcdCoordinatorTest, GoesToTheNextEndpoint) {
  TcpRelay hanging(io, sharedEtcd().port());
  hanging.hang();
  auto etcd = coordinator({"http://127.0.0.1:1", hanging.endpoint(), sharedEtcd().endpoint()},
                          500);
  EXPECT_TRUE(wait(etcd->compareAndSwap(newVolume("main"))));
  EXPECT_EQ(etcd->endpoint(), sharedEtcd().endpoint());
  EXPECT_TRUE(wait(etcd->readVolume("main")).has_value());
}

TEST_F(EtcdCoordinatorTest, ComesBackAfterEtcdWasDown) {
  EtcdProcess process;
  auto etcd = coordinator({process.endpoint()});
  ASSERT_TRUE(wait(etcd->compareAndSwap(newVolume("main"))));
  wait(etcd->changed());
  process.stop();
  EXPECT_THAT(failureOf(etcd->readVolume("main")), HasSubstr(process.endpoint()));
  process.start();
  EXPECT_TRUE(wait(etcd->readVolume("main")).has_value());
  wait(etcd->changed());  // by the new watch
}

TEST_F(EtcdCoordinatorTest, RefusesAnotherEtcdCluster) {
  EtcdProcess other;
  EtcdProcess process;
  auto etcd = coordinator({process.endpoint(), other.endpoint()});
  ASSERT_TRUE(wait(etcd->compareAndSwap(newVolume("main"))));
  process.stop();
  EXPECT_THAT(failureOf(etcd->readVolume("main")), HasSubstr("etcd is another cluster"));
  process.start();
  etcd->changed().wait(io.waitScope);
  while (!etcd->doubt().empty()) etcd->changed().wait(io.waitScope);
  EXPECT_TRUE(wait(etcd->readVolume("main")).has_value()) << "the known one is back";
}

TEST_F(EtcdCoordinatorTest, NamesTheKeyOfAValueThatItCannotUse) {
  auto etcd = coordinator({sharedEtcd().endpoint()});
  const std::string key = "/packmoor/" + clusterName() + "/volumes/main";
  sharedEtcd().put(key, "{\"schema\":3}");
  EXPECT_EQ(failureOf(etcd->readVolume("main")),
            "The value of " + key + " in etcd cannot be used: it has schema 3, and this version "
            "reads up to 2; upgrade this node.");
  sharedEtcd().put(key, "nonsense");
  EXPECT_THAT(failureOf(etcd->listVolumes()), HasSubstr(key));
}

// etcd has the certificate of node a.
TEST_F(EtcdCoordinatorTest, SpeaksTlsAndVerifiesEtcd) {
  auto& certificates = TestCertificates::instance();
  EtcdProcess process(certificates.files("a"));
  auto attempt = [&](const TlsFiles& files, std::string serverName) {
    auto tls = TlsMaterial::loadForClient(files, wallClockMs());
    EtcdOptions options{io.provider->getTimer(), io.provider->getNetwork(),
                        {process.secureEndpoint()}, clusterName(), "/packmoor", 20'000,
                        [](NoticeLevel, kj::StringPtr) {}};
    options.tls = tls.get();
    options.serverName = kj::mv(serverName);
    auto etcd = wait(EtcdCoordinator::open(kj::mv(options)));
    return failureOf(etcd->compareAndSwap(newVolume("main")));
  };
  EXPECT_EQ(attempt(certificates.files("b"), "a"), "no failure");
  EXPECT_THAT(attempt(certificates.files("b"), "c"), HasSubstr("ostname mismatch"));
  EXPECT_THAT(attempt(certificates.files("b"), ""), HasSubstr("ostname mismatch"));
  EXPECT_THAT(attempt(certificates.foreignFiles("a"), "a"), HasSubstr("certificate"));
  auto without = certificates.files("b");
  without.certificate = without.key = "";
  EXPECT_NE(attempt(without, "a"), "no failure") << "etcd asks for a certificate";
}

TEST_F(EtcdCoordinatorTest, RefusesOptionsThatCannotBeRight) {
  auto refusal = [&](std::vector<std::string> endpoints) {
    KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { coordinator(kj::mv(endpoints)); })) {
      return std::string(e->getDescription().cStr());
    }
    return std::string();
  };
  EXPECT_EQ(refusal({}), "No etcd endpoint is configured.");
  EXPECT_THAT(refusal({"127.0.0.1:2379"}), HasSubstr("write it as http://HOST:PORT"));
  EXPECT_THAT(refusal({"ftp://x"}), HasSubstr("write it as http://HOST:PORT"));
  EXPECT_THAT(refusal({"https://x:2379"}), HasSubstr("no authority"));
}

}  // namespace
}  // namespace packmoor::rpc
