// Goal: what is acknowledged survives nodes that die, lose power, restart, are paused or replaced;
// what cannot be made durable on W members is never acknowledged. Method: scripted faults on
// whole nodes under load, in virtual time; the cluster's checks at the end.
#include "sim_load.h"

#include "replicator/outcome.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

TEST(VolumeFaultTest, CommitsWithOneStandbyDown) {
  SimCluster cluster(11, 3);
  cluster.begin(2);
  cluster.node(2).losePower();
  SimLoad load(cluster, {0, 0, 1, 1});
  cluster.loop().runFor(2 * kj::SECONDS);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  EXPECT_GT(load.done, 500u);
  EXPECT_GT(load.reads, 50u);
  cluster.startAll();
  cluster.settle();
  cluster.verify();
}

TEST(VolumeFaultTest, WithoutAQuorumNothingIsAcknowledged) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 1000;
  options.readTimeoutMs = 1000;
  SimCluster cluster(12, 3, options);
  cluster.begin(2);
  cluster.put(0, "a", "1");
  cluster.node(1).stop();
  cluster.node(2).stop();
  auto outcome = cluster.loop().wait(outcomeOf(cluster.propose(0, "put a 2").promise()));
  ASSERT_FALSE(outcome.ok());
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(outcome.exception).getDescription().cStr()).find("unknown"),
            std::string::npos);
  auto read = cluster.loop().wait(outcomeOf(cluster.read(0, "a").promise()));
  EXPECT_FALSE(read.ok());
  // A rejection is a read: a primary that nobody confirms may not give one.
  auto rejection = cluster.loop().wait(outcomeOf(cluster.propose(0, "swap a no 3").promise()));
  EXPECT_FALSE(rejection.ok());
  EXPECT_LT(cluster.node(0).volume().status().applied, cluster.node(0).volume().status().last);
  cluster.startAll();
  cluster.put(0, "b", "1");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeFaultTest, PowerLossOfAllNodesKeepsWhatWasAcknowledged) {
  for (uint64_t seed = 20; seed < 24; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.begin(2);
    SimLoad load(cluster, {0, 1, 2, 0});
    for (int round = 0; round < 3; ++round) {
      cluster.loop().runFor(static_cast<int64_t>(400 + cluster.random().below(800)) *
                            kj::MILLISECONDS);
      for (size_t i = 0; i < 3; ++i) cluster.node(i).losePower();
      cluster.startAll();
      cluster.awaitPrimary();
    }
    cluster.loop().runFor(500 * kj::MILLISECONDS);
    load.join();
    cluster.settle();
    cluster.verify();
    EXPECT_GT(load.done, 200u);
  }
}

TEST(VolumeFaultTest, AStandbyThatRestartsAllTheTimeDisturbsNobody) {
  SimCluster cluster(30, 3);
  cluster.begin(2);
  SimLoad load(cluster, {0, 0, 1, 1});
  for (int i = 0; i < 8; ++i) {
    cluster.loop().runFor(500 * kj::MILLISECONDS);
    if (i % 2 == 0) cluster.node(2).losePower();
    cluster.restart(2);
  }
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  EXPECT_GT(load.done, 1500u);
  EXPECT_LT(load.longestMs, 200);
  cluster.settle();
  cluster.verify();
  const VolumeStatus a = cluster.node(0).volume().status(), c = cluster.node(2).volume().status();
  EXPECT_EQ(a.last, c.last);
}

// The coordinator is away, for everybody: pushes go on, and a standby that restarts opens what it
// remembers and follows. Nobody leads without the coordinator, not even who led before.
TEST(VolumeFaultTest, WithoutTheCoordinatorARestartedNodeFollowsAndNeverLeads) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 1000;
  SimCluster cluster(34, 3, options);
  cluster.begin(2);
  cluster.put(0, "a", "1");
  cluster.settle();
  for (const NodeId& node : cluster.nodeIds()) cluster.coordinator().cutOff(node);
  SimLoad load(cluster, {0, 0, 1, 1});
  cluster.loop().runFor(500 * kj::MILLISECONDS);
  cluster.node(2).losePower();
  cluster.restart(2);
  cluster.loop().runFor(500 * kj::MILLISECONDS);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  cluster.put(2, "b", "2");
  EXPECT_EQ(cluster.get(2, "a"), "1");
  cluster.settle();
  cluster.verify();
  const uint64_t swaps = cluster.coordinator().swaps;
  cluster.restart(0);  // it led
  cluster.loop().runFor(20 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), nullptr);
  auto outcome = cluster.loop().wait(outcomeOf(cluster.propose(1, "put a 3").promise()));
  EXPECT_FALSE(outcome.ok());
  EXPECT_EQ(cluster.coordinator().swaps, swaps);
  cluster.coordinator().heal();
  cluster.awaitPrimary();
  cluster.put(1, "c", "4");
  cluster.settle();
  cluster.verify();
}

// Rule 18: a coordinator with another past. The present primary goes on; nobody takes over, neither by
// himself nor with the promise of a member that doubts.
TEST(VolumeFaultTest, InDoubtOfTheCoordinatorNobodyTakesOver) {
  SimCluster cluster(35, 3);
  cluster.begin(2);
  cluster.put(0, "a", "1");
  cluster.coordinator().doubting = {"b", "c"};
  auto refused = cluster.loop().wait(outcomeOf(cluster.node(1).volume().takeOver()));
  EXPECT_TRUE(refused != nullptr);
  cluster.put(1, "a", "2");
  cluster.settle();
  cluster.node(0).stop();
  cluster.coordinator().doubting = {"c"};
  // b may ask, and is not answered.
  auto taking = outcomeOf(cluster.node(1).volume().takeOver());
  cluster.loop().runFor(5 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), nullptr);
  cluster.coordinator().doubting.clear();
  EXPECT_EQ(&cluster.awaitPrimary(), &cluster.node(1));
  EXPECT_TRUE(cluster.loop().wait(kj::mv(taking)) == nullptr);
  EXPECT_EQ(cluster.get(2, "a"), "2");
  cluster.startAll();
  cluster.settle();
  cluster.verify();
}

TEST(VolumeFaultTest, APausedStandbyCatchesUpFromTheJournal) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 64u << 20;
  SimCluster cluster(31, 3, options);
  cluster.begin(2);
  cluster.network().isolate("c", cluster.nodeIds());
  SimLoad load(cluster, {0, 0, 0, 0, 1, 1, 1, 1}, 1);
  cluster.loop().runFor(20 * kj::SECONDS);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  const VolumeStatus before = cluster.node(2).volume().status();
  const VolumeStatus primary = cluster.node(0).volume().status();
  EXPECT_LT(before.last.value, 200u);
  EXPECT_GT(primary.last.value, 18'000u);    // far more than is kept at hand
  EXPECT_LE(primary.base, before.last);       // kept for the one that is behind
  EXPECT_GT(primary.checkpoint, before.last);
  cluster.network().heal();
  cluster.settle();
  cluster.verify();
  // Everybody has everything: the primary need not keep it any more.
  cluster.loop().runFor(5 * kj::SECONDS);
  EXPECT_GT(cluster.node(0).volume().status().base, before.last);
}

TEST(VolumeFaultTest, TheJournalIsNotKeptForEverForAMemberThatIsGone) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 300u << 10;
  SimCluster cluster(32, 3, options);
  cluster.begin(2);
  cluster.put(0, "a", "1");
  cluster.settle();
  cluster.node(2).stop();
  SimLoad load(cluster, {0, 0, 0, 1}, 1);
  cluster.loop().runFor(15 * kj::SECONDS);
  load.join();
  const VolumeStatus status = cluster.node(0).volume().status();
  EXPECT_GT(status.base.value, 3000u);
  EXPECT_LT(cluster.node(0).journal().statistics().segments, 12u);
  EXPECT_LT(cluster.node(1).journal().statistics().segments, 12u);
}

TEST(VolumeFaultTest, ASuffixThatWasNeverCommittedIsReplaced) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 500;
  SimCluster cluster(33, 3, options);
  cluster.begin(2);
  for (int i = 0; i < 10; ++i) cluster.put(0, "k", std::to_string(i));
  cluster.settle();
  cluster.network().isolate("a", cluster.nodeIds());
  // These reach a's own journal only.
  auto first = cluster.loop().wait(outcomeOf(cluster.propose(0, "put k lost1").promise()));
  auto second = cluster.loop().wait(outcomeOf(cluster.propose(0, "put k lost2").promise()));
  EXPECT_FALSE(first.ok());
  EXPECT_FALSE(second.ok());
  const RecordIndex alone = cluster.node(0).volume().status().last;
  cluster.loop().wait(cluster.node(1).volume().takeOver());
  for (int i = 0; i < 5; ++i) cluster.put(1, "k", "new" + std::to_string(i));
  EXPECT_EQ(cluster.node(0).volume().status().last, alone);
  cluster.network().heal();
  cluster.until([&]() {
    return cluster.node(0).volume().status().applied ==
           cluster.node(1).volume().status().committed;
  }, 10'000, "a follows b");
  EXPECT_EQ(cluster.node(0).volume().status().role, VolumeRole::kStandby);
  EXPECT_EQ(cluster.get(0, "k"), "new4");
  cluster.verify();
}

// The positions at which two logs are compared are sparse. None of them needs to lie in the little
// that a member with a young log still holds, below a suffix that is not the primary's.
TEST(VolumeFaultTest, AMemberTellsACommittedPositionWhereNoneOfThoseAskedForIsHeld) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 300;
  SimCluster cluster(35, 3, options);
  cluster.begin(2);
  for (int i = 0; i < 20; ++i) cluster.put(0, "k", std::to_string(i));
  cluster.settle();
  const VolumeStatus before = cluster.node(0).volume().status();
  cluster.network().isolate("a", cluster.nodeIds());
  auto lost = cluster.loop().wait(outcomeOf(cluster.propose(0, "put k lost").promise()));
  EXPECT_FALSE(lost.ok());
  CommonPrefixRequest request;
  request.volume = before.id;
  for (uint64_t index : {before.last.value + 1, before.last.value + 50}) {
    request.positions.push_back(LogPosition{RecordIndex(index), Epoch(2), Hash128{index, 7}});
  }
  auto answer = cluster.loop().wait(cluster.node(0).replicator().commonPrefix("b", request));
  EXPECT_EQ(answer.index, before.committed);
  EXPECT_EQ(answer.hash, KJ_ASSERT_NONNULL(cluster.node(1).journal().position(
                             before.id, before.committed)).hash);
}

TEST(VolumeFaultTest, ADeposedPrimaryCommitsNothing) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 3000;
  options.readTimeoutMs = 1500;
  SimCluster cluster(34, 3, options);
  cluster.begin(2);
  cluster.put(0, "k", "old");
  // a hears nobody, but can still be asked by its own clients; even the coordinator is out of reach.
  cluster.network().isolate("a", cluster.nodeIds());
  cluster.coordinator().cutOff("a");
  cluster.loop().wait(cluster.node(1).volume().takeOver());
  cluster.put(1, "k", "new");
  EXPECT_EQ(cluster.node(0).volume().status().role, VolumeRole::kPrimary);  // it cannot know
  auto write = outcomeOf(cluster.propose(0, "put k stale").promise());
  auto read = cluster.loop().wait(outcomeOf(cluster.read(0, "k").promise()));
  EXPECT_FALSE(read.ok());
  EXPECT_EQ(cluster.node(0).kv().state().values.at("k"), "old");
  cluster.network().heal();
  cluster.coordinator().heal();
  auto written = cluster.loop().wait(kj::mv(write));
  cluster.settle();
  EXPECT_EQ(cluster.node(0).volume().status().role, VolumeRole::kStandby);
  // Within its bound the front found the new primary, with the same transaction id.
  EXPECT_TRUE(written.ok());
  EXPECT_EQ(cluster.get(2, "k"), "stale");
  cluster.verify();
}

TEST(VolumeFaultTest, SwitchoverUnderLoadFailsNoProposal) {
  for (uint64_t seed = 40; seed < 44; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.begin(2);
    SimLoad load(cluster, {0, 0, 1, 1, 2, 2}, 1);
    for (int i = 1; i < 8; ++i) {
      cluster.loop().runFor(300 * kj::MILLISECONDS);
      const size_t to = static_cast<size_t>(i) % 3;
      cluster.loop().wait(
          cluster.node(cluster.random().below(3)).volume().switchOver(cluster.node(to).id()));
      EXPECT_EQ(cluster.primary(), &cluster.node(to));
    }
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    EXPECT_EQ(load.lost, 0u);
    EXPECT_GT(load.done, 2000u);
    EXPECT_LT(load.longestMs, 300);
    cluster.settle();
    cluster.verify();
  }
}

TEST(VolumeFaultTest, CommitsGoOnWithoutTheCoordinator) {
  SimCluster cluster(50, 3);
  cluster.begin(2);
  for (const NodeId& id : cluster.nodeIds()) cluster.coordinator().cutOff(id);
  SimLoad load(cluster, {0, 1, 2});
  cluster.loop().runFor(3 * kj::SECONDS);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  cluster.settle();
  cluster.verify();
}

TEST(VolumeFaultTest, ACoordinatorThatLosesAnswersIsReadAgain) {
  for (uint64_t seed = 60; seed < 70; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.coordinator().unknownPerMillion = 500'000;
    cluster.startAll();
    for (;;) {
      auto made = cluster.loop().wait(outcomeOf(
          cluster.node(0).replicator().createVolume("main", cluster.nodeIds(), 2)));
      if (made.ok()) break;
    }
    for (size_t i = 0; i < 3; ++i) {
      cluster.loop().wait(cluster.node(i).replicator().whenOpen("main", 10'000));
    }
    cluster.awaitPrimary(60'000);
    cluster.put(1, "k", "1");
    for (size_t i = 0; i < 3; ++i) cluster.node(i).losePower();
    cluster.startAll();
    cluster.awaitPrimary(60'000);
    EXPECT_EQ(cluster.get(2, "k"), "1");
    cluster.settle();
    cluster.verify();
  }
}

TEST(VolumeFaultTest, APrimaryThatWasRefusedLeadsAgainWhenNobodyElseDoes) {
  SimCluster cluster(71, 3);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  const Epoch before = cluster.node(0).volume().status().epoch;
  // b takes an epoch, fences the others, and dies before it can lead.
  cluster.coordinator().delayUsMin = cluster.coordinator().delayUsMax = 20'000;
  auto attempt = outcomeOf(cluster.node(1).volume().takeOver());
  cluster.until([&]() { return cluster.node(2).volume().status().promised > before; }, 5000,
                "the others have promised");
  cluster.node(1).stop();
  auto outcome = cluster.loop().wait(kj::mv(attempt));
  EXPECT_NE(outcome, nullptr);
  cluster.awaitPrimary();
  EXPECT_EQ(cluster.primary(), &cluster.node(0));
  EXPECT_GT(cluster.node(0).volume().status().epoch.value, before.value + 1);
  cluster.put(2, "k", "2");
  cluster.startAll();
  cluster.settle();
  cluster.verify();
}

TEST(VolumeFaultTest, OneMemberCannotTakeOverAlone) {
  SimCluster cluster(72, 3);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  cluster.node(0).stop();
  cluster.node(1).stop();
  auto attempt = outcomeOf(cluster.node(2).volume().takeOver());
  cluster.loop().runFor(10 * kj::SECONDS);
  const VolumeStatus status = cluster.node(2).volume().status();
  EXPECT_EQ(status.role, VolumeRole::kTakingOver);
  EXPECT_NE(status.problem, "");
  cluster.restart(1);
  auto outcome = cluster.loop().wait(kj::mv(attempt));
  EXPECT_EQ(outcome, nullptr);
  EXPECT_EQ(cluster.get(2, "k"), "1");
  cluster.startAll();
  cluster.put(0, "k", "2");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeFaultTest, AFailingStateMachineStopsTheVolumeThere) {
  SimCluster cluster(73, 3);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  cluster.settle();
  cluster.node(2).kv().failNextApply = true;
  cluster.put(0, "k", "2");
  cluster.until([&]() { return cluster.node(2).volume().status().problem != ""; }, 5000,
                "the problem is told");
  EXPECT_TRUE(cluster.node(2).volume().status().repairing);
  cluster.put(0, "k", "3");   // a and b go on
  auto takeOver = cluster.loop().wait(outcomeOf(cluster.node(2).volume().takeOver()));
  EXPECT_NE(takeOver, nullptr);
  auto read = cluster.loop().wait(outcomeOf(cluster.read(2, "k").promise()));
  EXPECT_FALSE(read.ok());
  cluster.restart(2);
  cluster.settle();
  cluster.verify();
}

}  // namespace
}  // namespace packmoor::replicator
