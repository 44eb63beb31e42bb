// Goal: the coordinator over etcd comes through what etcd does on bad days, and knows a different past
// when it sees one (DESIGN rule 18). Method: a fake etcd in virtual time, and a simulated disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kernelio/sim_env.h>

#include "fake_etcd.h"
#include "rpc/etcd_coordinator.h"
#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source
using ::testing::HasSubstr;
using ::testing::Not;
using Mode = FakeEtcd::Mode;

Uuid uuid(uint8_t first) {
  Uuid id;
  for (size_t i = 0; i < 16; ++i) id.bytes[i] = static_cast<uint8_t>(first + 3 * i);
  return id;
}

VolumeRecord volume(const std::string& name, uint64_t epoch = 0) {
  VolumeRecord record;
  record.id = uuid(1);
  record.name = name;
  record.current.epoch = Epoch(epoch);
  record.current.nonce = uuid(static_cast<uint8_t>(50 + epoch));
  record.current.members = {{"a", uuid(2)}, {"b", uuid(3)}};
  record.current.writeQuorum = 2;
  return record;
}

class EtcdFaultTest : public ::testing::Test {
 protected:
  ~EtcdFaultTest() noexcept override {}

  EtcdOptions options(std::vector<std::string> endpoints = {"http://e1:1"}) {
    EtcdOptions options{loop.timer(), etcd.network(), kj::mv(endpoints), "dev", "/packmoor", 3'000,
                        [this](NoticeLevel, kj::StringPtr text) {
                          notices.emplace_back(text.cStr());
                        }};
    options.node = "a";
    options.disk = &env->disk();
    return options;
  }
  kj::Own<EtcdCoordinator> open() { return loop.wait(EtcdCoordinator::open(options())); }

  template <typename T>
  std::string failureOf(kj::Promise<T> promise) {
    KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { loop.wait(kj::mv(promise)); })) {
      return e->getDescription().cStr();
    }
    return "no failure";
  }
  // After storage.cutPower(): the node ends and starts again with what was durable.
  void reboot(kj::Own<EtcdCoordinator>& coordinator) {
    coordinator = nullptr;
    env = nullptr;
    storage.crash();
    env = kj::heap<kernelio::SimEnv>(loop, storage, 2);
    coordinator = open();
  }
  // Until it holds, in virtual time.
  template <typename Condition>
  bool comes(Condition holds, kj::Duration within = 1 * kj::MINUTES) {
    const auto end = loop.elapsed() + within;
    while (!holds() && loop.elapsed() < end) loop.runFor(10 * kj::MILLISECONDS);
    return holds();
  }
  // Takes the next epoch, as a takeover does.
  void takeEpoch(EtcdCoordinator& coordinator, const std::string& name = "main") {
    auto record = *loop.wait(coordinator.readVolume(name));
    auto next = volume(name, record.current.epoch.value + 1);
    next.revision = record.revision;
    ASSERT_TRUE(loop.wait(coordinator.compareAndSwap(next)));
  }
  EtcdAcceptance acceptance(EtcdCoordinator& coordinator, VolumeRecord record) {
    EtcdAcceptance acceptance;
    acceptance.survey = loop.wait(coordinator.survey());
    acceptance.volumes.push_back(kj::mv(record));
    acceptance.marker.past = uuid(200);
    acceptance.marker.nodes = {"a"};
    const auto& memory = coordinator.memory();
    acceptance.marker.continues = {{memory.clusterId, memory.past, memory.listed}};
    return acceptance;
  }

  kernelio::VirtualLoop loop;
  kernelio::SimStorage storage{1};
  kj::Own<kernelio::SimEnv> env = kj::heap<kernelio::SimEnv>(loop, storage, 1);
  FakeEtcd etcd{loop.timer()};
  std::vector<std::string> notices;
};

TEST_F(EtcdFaultTest, GoneForAnHourAsksRarelyAndIsBackAtOnce) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  ASSERT_TRUE(comes([&]() { return etcd.watches("e1") == 1; }));
  etcd.setMode(Mode::kRefuses);
  EXPECT_THAT(failureOf(coordinator->readVolume("main")), HasSubstr("Connection refused"));
  const size_t before = etcd.dials;
  loop.runFor(1 * kj::HOURS);
  EXPECT_FALSE(coordinator->reachable());
  // Each second a poll, twice, with a probe, and a watch each five.
  EXPECT_LT(etcd.dials - before, 5u * 3600);
  EXPECT_GT(etcd.dials - before, 3600u) << "it must go on asking";
  auto changed = coordinator->changed();
  loop.settle();
  etcd.setMode(Mode::kUp);
  EXPECT_TRUE(comes([&]() { return coordinator->reachable(); }, 2 * kj::SECONDS));
  loop.wait(kj::mv(changed));
  EXPECT_EQ(loop.wait(coordinator->readVolume("main"))->name, "main");
  loop.settle();
  EXPECT_EQ(etcd.watches("e1"), 1u) << "and the watch is back with it";
}

TEST_F(EtcdFaultTest, AHungEndpointCostsOneDeadlineAndLosesTheWatch) {
  auto coordinator = loop.wait(EtcdCoordinator::open(options({"http://e1:1", "http://e2:1"})));
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  ASSERT_TRUE(comes([&]() { return etcd.watches("e1") == 1; }));
  etcd.setMode("e1", Mode::kHangs);
  const auto before = loop.elapsed();
  EXPECT_TRUE(loop.wait(coordinator->readVolume("main")).has_value());
  EXPECT_EQ(loop.elapsed() - before, 3 * kj::SECONDS);
  EXPECT_EQ(coordinator->endpoint(), "http://e2:1");
  EXPECT_TRUE(loop.wait(coordinator->readVolume("main")).has_value());
  EXPECT_EQ(loop.elapsed() - before, 3 * kj::SECONDS) << "it stays with the one that answers";
  // Nothing on the watch's connection tells that it is dead.
  EXPECT_TRUE(comes([&]() { return etcd.watches("e2") == 1; }));
}

TEST_F(EtcdFaultTest, AnErrorIsNoAnswerAndTheNextEndpointIsAsked) {
  auto coordinator = loop.wait(EtcdCoordinator::open(options({"http://e1:1", "http://e2:1"})));
  etcd.setMode("e1", Mode::kError);
  EXPECT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  etcd.setMode("e2", Mode::kError);
  const auto failure = failureOf(coordinator->readVolume("main"));
  EXPECT_THAT(failure, HasSubstr("it answered 503 (etcdserver: no leader)"));
  EXPECT_THAT(failure, HasSubstr("http://e1:1"));
}

TEST_F(EtcdFaultTest, LogsInAndRenewsTheToken) {
  etcd.user = "packmoor";
  etcd.password = "s3cret-word";
  auto with = options();
  with.user = "packmoor";
  std::string password = "wrong-one";
  with.password = [&password]() { return password; };
  auto coordinator = loop.wait(EtcdCoordinator::open(kj::mv(with)));
  const auto failure = failureOf(coordinator->readVolume("main"));
  EXPECT_THAT(failure, HasSubstr("does not let in the user \"packmoor\" (etcdserver: authentication "
                                 "failed"));
  loop.settle();             // the poll had asked with the wrong one, too
  password = "s3cret-word";  // is read anew
  EXPECT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  ASSERT_TRUE(comes([&]() { return etcd.watches("e1") == 1; }));
  const size_t before = etcd.authentications;
  EXPECT_TRUE(loop.wait(coordinator->readVolume("main")).has_value());
  EXPECT_EQ(etcd.authentications, before) << "one token serves many requests";
  etcd.forgetTokens();  // expired, or etcd restarted
  takeEpoch(*coordinator);
  EXPECT_EQ(etcd.authentications, before + 1);
  for (const auto& notice : notices) {
    EXPECT_THAT(notice, Not(HasSubstr("s3cret-word")));
    EXPECT_THAT(notice, Not(HasSubstr("wrong-one")));
  }
}

// etcd takes its time over a password. Many who ask at once must not each make it do so, and an
// answer that is late for its request must serve the next.
TEST_F(EtcdFaultTest, ASlowAuthenticationIsMadeOnce) {
  etcd.user = etcd.password = "packmoor";
  etcd.authenticationTime = 5 * kj::SECONDS;
  auto with = options();
  with.user = "packmoor";
  with.password = []() { return std::string("packmoor"); };
  auto coordinator = loop.wait(EtcdCoordinator::open(kj::mv(with)));
  auto first = coordinator->listVolumes();
  auto second = coordinator->listNodes();
  EXPECT_THAT(failureOf(kj::mv(first)), HasSubstr("no answer within 3000 ms"));
  EXPECT_THAT(failureOf(kj::mv(second)), HasSubstr("no answer within 3000 ms"));
  EXPECT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  EXPECT_EQ(etcd.authentications, 1u);
}

TEST_F(EtcdFaultTest, RemembersThroughARestartWhatItHasSeen) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  loop.wait(coordinator->registerNode({"a", uuid(2), "h1:7", "h1:8", "0.1"}));
  loop.wait(coordinator->listNodes());
  takeEpoch(*coordinator);
  coordinator = nullptr;
  etcd.setMode(Mode::kRefuses);
  auto again = open();
  ASSERT_EQ(again->remembered().size(), 1u);
  EXPECT_EQ(again->remembered()[0].current.epoch, Epoch(1));
  EXPECT_EQ(again->rememberedNodes()[0].rpcAddress, "h1:7");
  EXPECT_EQ(again->identity().clusterId, 0xc1u);
  EXPECT_EQ(again->doubt(), "");
  EXPECT_NE(failureOf(again->readVolume("main")), "no failure") << "memory is not the coordinator";
}

TEST_F(EtcdFaultTest, WhatASwapTookIsDurableBeforeItIsTold) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  takeEpoch(*coordinator);
  storage.cutPower();
  reboot(coordinator);
  ASSERT_EQ(coordinator->remembered().size(), 1u);
  EXPECT_EQ(coordinator->remembered()[0].current.epoch, Epoch(1));
}

TEST_F(EtcdFaultTest, AFullDiskKeepsAnEpochFromBeingTaken) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  kernelio::SimFault fault;
  fault.kind = kernelio::SimFaultKind::kWriteError;
  fault.pathPrefix = "coordinator-known";
  fault.count = kernelio::SimFault::kForever;
  storage.inject(fault);
  auto next = volume("main", 1);
  next.revision = loop.wait(coordinator->readVolume("main"))->revision;
  EXPECT_THAT(failureOf(coordinator->compareAndSwap(next)), HasSubstr("cannot be kept on this node"));
}

TEST_F(EtcdFaultTest, ADamagedFileEndsTheStartWithASentence) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  coordinator = nullptr;
  loop.wait(kernelio::replaceFile(env->disk(), "coordinator-known",
                                  "packmoor-etcd-memory 1 0\n{}"_kj.asBytes()));
  EXPECT_THAT(failureOf(EtcdCoordinator::open(options())), HasSubstr("its checksum does not match"));
}

// ---- Rule 18 -----------------------------------------------------------------------------------

TEST_F(EtcdFaultTest, AStepBackIsSeenAndLasts) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  const auto backup = etcd.history;
  takeEpoch(*coordinator);
  etcd.history = backup;
  const auto failure = failureOf(coordinator->readVolume("main"));
  EXPECT_THAT(failure, HasSubstr("has gone back"));
  EXPECT_THAT(failure, HasSubstr("packmoorctl coordinator accept"));
  EXPECT_EQ(coordinator->doubt(), failure);
  EXPECT_TRUE(coordinator->reachable());
  auto next = volume("main", 1);
  next.revision = backup.entries.begin()->second.revision;
  EXPECT_EQ(failureOf(coordinator->compareAndSwap(next)), failure) << "nobody takes over";
  EXPECT_EQ(etcd.history.revision, backup.revision) << "nothing is written to it";
  // Others may write until the revision is where it was; that heals nothing, nor does a restart.
  while (etcd.history.revision < backup.revision + 10) etcd.put("/else", "x");
  EXPECT_EQ(failureOf(coordinator->listVolumes()), failure);
  loop.runFor(1 * kj::SECONDS);  // it is written behind
  coordinator = nullptr;
  auto again = open();
  EXPECT_EQ(again->doubt(), failure);
  EXPECT_EQ(failureOf(again->readVolume("main")), failure);
  EXPECT_EQ(again->remembered()[0].current.epoch, Epoch(1)) << "what was known is still known";
}

TEST_F(EtcdFaultTest, AnOlderRecordAtALaterRevisionIsSeen) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  const auto backup = etcd.history;
  takeEpoch(*coordinator);
  etcd.history = backup;
  while (etcd.history.revision < backup.revision + 10) etcd.put("/else", "x");
  EXPECT_THAT(failureOf(coordinator->listVolumes()), HasSubstr("is older than the one that this"));
  EXPECT_NE(coordinator->doubt(), "");
}

TEST_F(EtcdFaultTest, AnotherClusterIsDoubtedUntilTheKnownOneIsBack) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  const auto known = etcd.history;
  etcd.history.clusterId = 0xc2;
  etcd.history.revision += 100;
  EXPECT_THAT(failureOf(coordinator->readVolume("main")), HasSubstr("is another cluster"));
  EXPECT_EQ(coordinator->seen().clusterId, 0xc2u);
  etcd.history = known;
  EXPECT_TRUE(comes([&]() { return coordinator->doubt().empty(); }));
  EXPECT_TRUE(loop.wait(coordinator->readVolume("main")).has_value());
}

TEST_F(EtcdFaultTest, AcceptWritesAnewAndIsDurableBeforeItAnswers) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  auto registered = coordinator->registerNode({"a", uuid(2), "h1:7", "h1:8", "0.1"});
  loop.wait(kj::mv(registered));
  const auto backup = etcd.history;
  takeEpoch(*coordinator);
  takeEpoch(*coordinator);
  const auto known = coordinator->remembered()[0];
  etcd.history = backup;
  failureOf(coordinator->readVolume("main"));
  ASSERT_NE(coordinator->doubt(), "");
  auto record = known;
  record.revision = revisionOf(1, 0);
  loop.wait(coordinator->accept(acceptance(*coordinator, record)));
  storage.cutPower();  // at once
  EXPECT_EQ(coordinator->doubt(), "");
  auto now = *loop.wait(coordinator->readVolume("main"));
  EXPECT_EQ(now.current, known.current);
  EXPECT_GT(now.revision, known.revision) << "revisions grow although etcd's went back";
  EXPECT_LT(etcd.history.revision, known.revision + 10);
  reboot(coordinator);
  EXPECT_EQ(coordinator->doubt(), "");
  takeEpoch(*coordinator);
  EXPECT_EQ(loop.wait(coordinator->readVolume("main"))->current.epoch, Epoch(3));
}

TEST_F(EtcdFaultTest, AnAnswerFromBeforeTheAcceptanceRaisesNoDoubt) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  takeEpoch(*coordinator);
  auto record = coordinator->remembered()[0];
  // Two questions that are answered late: one by the old cluster, one by the new.
  etcd.hold(true);
  auto ofOld = coordinator->listVolumes();
  loop.settle();
  etcd.history.clusterId = 0xc2;
  etcd.history.revision = 500;
  auto ofNew = coordinator->listVolumes();
  loop.settle();
  ASSERT_EQ(etcd.held(), 2u);
  etcd.hold(false);
  EXPECT_THAT(failureOf(coordinator->readVolume("main")), HasSubstr("is another cluster"));
  record.revision = revisionOf(1, 0);
  loop.wait(coordinator->accept(acceptance(*coordinator, record)));
  ASSERT_EQ(coordinator->doubt(), "");
  etcd.release();
  // Neither answer is believed or doubted: the questions are asked again.
  for (auto* late : {&ofOld, &ofNew}) {
    auto records = loop.wait(kj::mv(*late));
    ASSERT_EQ(records.size(), 1u);
    EXPECT_EQ(generationOf(records[0].revision), 1u) << "an answer from before was taken";
  }
  EXPECT_EQ(coordinator->doubt(), "");
  EXPECT_EQ(coordinator->identity().clusterId, 0xc2u);
  EXPECT_EQ(loop.wait(coordinator->readVolume("main"))->current.epoch, Epoch(1));
}

TEST_F(EtcdFaultTest, ANodeThatWasNotAskedFollowsTheMarkerOnlyWhenItKnowsNoMore) {
  auto coordinator = open();
  ASSERT_TRUE(loop.wait(coordinator->compareAndSwap(volume("main"))));
  takeEpoch(*coordinator);
  const int64_t revision = loop.wait(coordinator->listVolumes()).size() == 1
                               ? coordinator->memory().listed : 0;
  ASSERT_GT(revision, 0);
  etcd.history.clusterId = 0xc2;
  EtcdPastMarker marker;
  marker.past = uuid(99);
  marker.continues = {{0xc1, Uuid(), revision - 1}};
  etcd.put("/packmoor/dev/past", markerToJson(marker));
  failureOf(coordinator->readVolume("main"));
  loop.runFor(1 * kj::MINUTES);
  EXPECT_NE(coordinator->doubt(), "") << "it has seen more than was known to those who accepted";
  marker.continues[0].revision = revision;
  etcd.put("/packmoor/dev/past", markerToJson(marker));
  EXPECT_TRUE(comes([&]() { return coordinator->doubt().empty(); }));
  EXPECT_EQ(coordinator->identity().clusterId, 0xc2u);
  EXPECT_EQ(coordinator->memory().past, uuid(99));
  // The same marker, restored once more, accepts nothing.
  const auto backup = etcd.history;
  takeEpoch(*coordinator);
  etcd.history = backup;
  failureOf(coordinator->readVolume("main"));
  loop.runFor(1 * kj::MINUTES);
  EXPECT_NE(coordinator->doubt(), "");
}

}  // namespace
}  // namespace packmoor::rpc
