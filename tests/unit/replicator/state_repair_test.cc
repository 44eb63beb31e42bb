// Goal: a member whose stored state has rotted does not go on from it, gives the lead away, and gets
// the state from another member, however it was found and whatever happens on the way; nothing that
// was acknowledged is lost. Method: a KvStateMachine says that its state is damaged, on whole nodes in
// virtual time.
#include "sim_load.h"

#include "replicator/outcome.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

constexpr uint64_t kFillerBytes = 3'000'000;   // of each checkpoint: a dozen blocks

ReplicatorOptions options() {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 64u << 20;
  return options;
}

class StateRepairTest : public testing::Test {
 protected:
  void begin(SimCluster& cluster, uint32_t writeQuorum) {
    cluster.kvOptions.checkpointBytes = kFillerBytes;
    cluster.begin(writeQuorum);
    for (int i = 0; i < 20; ++i) cluster.put(0, "early" + std::to_string(i), "v");
    cluster.settle();
  }

  static void damage(SimCluster& cluster, size_t node, bool unreadable = false) {
    cluster.node(node).disk.damage = "table 7 fails its checksum";
    cluster.node(node).disk.unreadable = unreadable;
  }

  static VolumeStatus status(SimCluster& cluster, size_t node) {
    return cluster.node(node).volume().status();
  }

  static void untilReplaced(SimCluster& cluster, size_t node, uint64_t times = 1) {
    cluster.until([&]() {
      return cluster.node(node).disk.replaced == times && cluster.node(node).hasVolume() &&
             !status(cluster, node).repairing;
    }, 60'000, "the state is replaced");
    EXPECT_EQ(cluster.node(node).disk.damage, "");
  }

  static void settleAndVerify(SimCluster& cluster) {
    cluster.settle(60'000);
    cluster.verify();
    for (size_t n = 0; n < cluster.size(); ++n) {
      EXPECT_EQ(cluster.get(n, "early7"), "v");
    }
  }
};

TEST_F(StateRepairTest, AStandbyGetsItsStateAnewUnderLoad) {
  SimCluster cluster(701, 3, options());
  begin(cluster, 2);
  SimLoad load(cluster, {0, 0, 1, 1});
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  const size_t standby = cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2;
  damage(cluster, standby);
  cluster.until([&]() { return status(cluster, standby).repairing; }, 1000, "it is found");
  const VolumeStatus found = status(cluster, standby);
  EXPECT_FALSE(found.repair.stuck) << found.repair.step;
  EXPECT_EQ(found.repair.damage, "table 7 fails its checksum");
  EXPECT_NE(found.problem.find("table 7 fails its checksum"), std::string::npos);
  cluster.until([&]() { return !status(cluster, standby).repair.source.empty(); }, 1000,
                "it has a source");
  EXPECT_EQ(status(cluster, standby).repair.source, cluster.awaitPrimary().id());
  EXPECT_FALSE(status(cluster, standby).repair.stuck);
  untilReplaced(cluster, standby);
  EXPECT_EQ(status(cluster, standby).problem, "");
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  settleAndVerify(cluster);
}

// It acknowledges meanwhile: its journal is whole.
TEST_F(StateRepairTest, AWriteQuorumThatNeedsItGoesOn) {
  ReplicatorOptions slow = options();
  slow.transferBytesPerSecond = 1'000'000;
  SimCluster cluster(702, 3, slow);
  begin(cluster, 3);
  SimLoad load(cluster, {0, 0, 1, 1});
  damage(cluster, cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2);
  const size_t standby = cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2;
  cluster.until([&]() { return status(cluster, standby).transfer.phase == "fetching"; }, 5000,
                "it fetches");
  const uint64_t before = load.done;
  cluster.loop().runFor(500 * kj::MILLISECONDS);
  EXPECT_EQ(status(cluster, standby).transfer.phase, "fetching");
  EXPECT_GT(load.done, before + 50);
  untilReplaced(cluster, standby);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  settleAndVerify(cluster);
}

// Nothing was ordered since its last checkpoint: the one that it gets is of the same record.
TEST_F(StateRepairTest, AVolumeAtRestIsRepairedToo) {
  SimCluster cluster(703, 3, options());
  begin(cluster, 2);
  for (size_t n = 0; n < 3; ++n) cluster.loop().wait(cluster.node(n).volume().checkpointNow());
  const size_t standby = cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2;
  const RecordIndex stood = status(cluster, standby).checkpoint;
  EXPECT_EQ(stood, status(cluster, cluster.indexOf(cluster.awaitPrimary())).applied);
  for (uint64_t times = 1; times <= 3; ++times) {
    damage(cluster, standby);
    untilReplaced(cluster, standby, times);
    EXPECT_EQ(status(cluster, standby).checkpoint, stood);
  }
  cluster.restart(standby);
  settleAndVerify(cluster);
}

TEST_F(StateRepairTest, AStateThatCannotBeOpenedIsFetched) {
  SimCluster cluster(704, 3, options());
  begin(cluster, 2);
  for (size_t n = 0; n < 3; ++n) cluster.loop().wait(cluster.node(n).volume().checkpointNow());
  for (bool ordersMeanwhile : {true, false}) {
    const size_t standby = cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2;
    const uint64_t before = cluster.node(standby).disk.replaced;
    cluster.node(standby).stop();
    damage(cluster, standby, true);
    if (ordersMeanwhile) {
      for (int i = 0; i < 50; ++i) cluster.put(0, "later" + std::to_string(i), "v");
    }
    cluster.startAll();
    untilReplaced(cluster, standby, before + 1);
    settleAndVerify(cluster);
  }
}

// Reads of what it does not have wait, or fail; they are never answered with less.
TEST_F(StateRepairTest, WithoutAStateNothingIsServed) {
  ReplicatorOptions slow = options();
  slow.transferBytesPerSecond = 200'000;
  slow.readTimeoutMs = 2000;
  SimCluster cluster(705, 3, slow);
  begin(cluster, 2);
  const size_t standby = cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2;
  cluster.node(standby).stop();
  damage(cluster, standby, true);
  cluster.startAll();
  EXPECT_TRUE(status(cluster, standby).repairing);
  auto reading = outcomeOf(cluster.read(standby, "early7").promise());
  auto outcome = cluster.loop().wait(kj::mv(reading));
  EXPECT_FALSE(outcome.ok());
  EXPECT_TRUE(status(cluster, standby).repairing);
  untilReplaced(cluster, standby);
  settleAndVerify(cluster);
}

TEST_F(StateRepairTest, AStateThatFailsUnderApplyIsFetched) {
  SimCluster cluster(706, 3, options());
  begin(cluster, 2);
  SimLoad load(cluster, {0, 0, 1, 1});
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  const size_t standby = cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2;
  damage(cluster, standby, true);
  untilReplaced(cluster, standby);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  settleAndVerify(cluster);
}

TEST_F(StateRepairTest, APrimaryGivesTheLeadAwayFirst) {
  for (bool unreadable : {false, true}) {
    SimCluster cluster(707 + unreadable, 3, options());
    begin(cluster, 2);
    SimLoad load(cluster, {0, 1, 2, 1});
    cluster.loop().runFor(300 * kj::MILLISECONDS);
    const size_t leads = cluster.indexOf(cluster.awaitPrimary());
    damage(cluster, leads, unreadable);
    untilReplaced(cluster, leads);
    EXPECT_NE(cluster.indexOf(cluster.awaitPrimary()), leads);
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    settleAndVerify(cluster);
  }
}

// What is ordered in the same turn as a proposal that cannot be judged gets its own answer, and is kept.
TEST_F(StateRepairTest, AProposalThatCannotBeJudgedFailsAlone) {
  ReplicatorOptions some = options();
  some.proposeTimeoutMs = 1000;
  SimCluster cluster(709, 3, some);
  begin(cluster, 2);
  const size_t leads = cluster.indexOf(cluster.awaitPrimary());
  cluster.node(leads).disk.unreadableKey = "bad";
  auto propose = [&](const char* operation) {
    return outcomeOf(cluster.propose(leads, operation).promise());
  };
  auto before = propose("put x 1"), bad = propose("put bad 1"), behind = propose("put y 2");
  EXPECT_TRUE(cluster.loop().wait(kj::mv(before)).ok());
  EXPECT_TRUE(cluster.loop().wait(kj::mv(behind)).ok());
  auto failed = cluster.loop().wait(kj::mv(bad));
  ASSERT_FALSE(failed.ok());
  const std::string why = KJ_ASSERT_NONNULL(failed.exception).getDescription().cStr();
  EXPECT_NE(why.find("was not committed and will not be"), std::string::npos) << why;
  EXPECT_NE(why.find("cannot read the state"), std::string::npos) << why;
  EXPECT_EQ(cluster.get(leads, "x"), "1");
  EXPECT_EQ(cluster.get(leads, "y"), "2");
  cluster.put(leads, "x", "3");
  settleAndVerify(cluster);
}

TEST_F(StateRepairTest, TheOnlyCopyServesWhatItCanAndSaysSo) {
  SimCluster cluster(710, 1, options());
  begin(cluster, 1);
  damage(cluster, 0);
  cluster.loop().runFor(5 * kj::SECONDS);
  const VolumeStatus found = status(cluster, 0);
  EXPECT_TRUE(found.repairing);
  EXPECT_TRUE(found.repair.stuck);
  EXPECT_EQ(found.role, VolumeRole::kPrimary);
  EXPECT_NE(found.problem.find("this one copy only"), std::string::npos) << found.problem;
  cluster.put(0, "late", "1");
  EXPECT_EQ(cluster.get(0, "late"), "1");
  cluster.restart(0);   // it leads again, by the same reason
  cluster.awaitPrimary();
  EXPECT_EQ(cluster.get(0, "late"), "1");
}

// While nobody else can lead, the damaged one does.
TEST_F(StateRepairTest, APrimaryWhoseStandbysAreAwayGoesOn) {
  ReplicatorOptions some = options();
  some.proposeTimeoutMs = 3000;
  SimCluster cluster(711, 2, some);
  begin(cluster, 1);
  const size_t leads = cluster.indexOf(cluster.awaitPrimary());
  cluster.node(1 - leads).stop();
  damage(cluster, leads);
  cluster.until([&]() { return status(cluster, leads).repair.stuck; }, 20'000, "it says so");
  cluster.put(leads, "alone", "1");
  EXPECT_EQ(cluster.get(leads, "alone"), "1");
  cluster.startAll();
  untilReplaced(cluster, leads);
  settleAndVerify(cluster);
}

TEST_F(StateRepairTest, RestartsAndNewPrimariesDoNotStopIt) {
  for (uint64_t seed = 720; seed < 726; ++seed) {
    ReplicatorOptions slow = options();
    slow.transferBytesPerSecond = 5'000'000;
    SimCluster cluster(seed, 3, slow);
    begin(cluster, 2);
    SimLoad load(cluster, {0, 1, 0, 1});
    cluster.loop().runFor(300 * kj::MILLISECONDS);
    damage(cluster, 2, seed % 2 == 0);
    for (int round = 0; round < 4; ++round) {
      cluster.loop().runFor(static_cast<int64_t>(cluster.random().below(300)) * kj::MILLISECONDS);
      if (round % 2 == 0) {
        const size_t leads = cluster.indexOf(cluster.awaitPrimary());
        auto moved = cluster.node(leads).volume().switchOver(cluster.node(leads == 0 ? 1 : 0).id());
        cluster.tasks().add(outcomeOf(kj::mv(moved)).ignoreResult());
      } else {
        cluster.node(2).losePower();
        cluster.startAll();
      }
    }
    cluster.until([&]() { return cluster.node(2).disk.replaced >= 1 &&
                                 !status(cluster, 2).repairing; }, 60'000, "it is whole");
    load.join();
    settleAndVerify(cluster);
    EXPECT_GT(load.done, 100u);
  }
}

}  // namespace
}  // namespace packmoor::replicator
