// Goal: members are added and removed, the write quorum is changed, and a pair goes on with one node,
// all under load and faults; nothing is lost, no client sees an error, no change that stalls blocks
// the volume, and no joiner is counted before it has caught up. Method: whole nodes in virtual time;
// faults in the turn in which the coordinator stores a step of a change.
#include "sim_load.h"

#include "configuration_change.h"
#include "replicator/outcome.h"
#include "quorum.h"

namespace packmoor::replicator {
namespace {

using Kind = ConfigurationChange::Kind;

ReplicatorOptions keeping() {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 64u << 20;
  options.checkpointIntervalMs = 3'600'000;  // a joiner finds the whole log
  options.checkpointBytes = 1u << 30;
  return options;
}

void expectUnharmed(SimCluster& cluster, SimLoad& load) {
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  EXPECT_EQ(load.lost, 0u);
  cluster.settle();
  cluster.verify();
}

const VolumeRecord& record(SimCluster& cluster) { return cluster.coordinator().volumes.at("main"); }

void change(SimCluster& cluster, ConfigurationChange what) {
  cluster.loop().wait(cluster.awaitPrimary().volume().changeConfiguration(kj::mv(what)));
}

// Why the change is refused; empty: it is not.
std::string refusal(SimCluster& cluster, ConfigurationChange what) {
  auto changed = cluster.awaitPrimary().volume().changeConfiguration(kj::mv(what));
  auto failure = cluster.loop().wait(outcomeOf(kj::mv(changed)));
  KJ_IF_MAYBE(exception, failure) { return exception->getDescription().cStr(); }
  return "";
}

bool isActive(SimCluster& cluster, const char* node) {
  return record(cluster).phase == VolumePhase::kActive && record(cluster).current.hasMember(node);
}

void awaitCounted(SimCluster& cluster, const char* node) {
  cluster.until([&]() { return isActive(cluster, node); }, 20'000, "the joiner is counted");
}

// Fails when a record is stored that counts a member that does not have all that was acknowledged.
void watchJoiners(SimCluster& cluster) {
  cluster.coordinator().onStored = [&cluster](const VolumeRecord& stored) {
    if (!stored.lastActive) return;
    for (const MemberIdentity& member : stored.current.members) {
      if (isMember(*stored.lastActive, member)) continue;
      for (size_t i = 0; i < cluster.size(); ++i) {
        if (cluster.node(i).id() != member.node) continue;
        ASSERT_TRUE(cluster.node(i).hasVolume());
        for (const Acknowledged& done : cluster.acknowledged()) {
          ASSERT_LE(done.index, cluster.node(i).volume().status().durable);
        }
      }
    }
  };
}

TEST(VolumeMembersTest, AMemberIsAddedUnderLoadAndOneIsRemoved) {
  for (uint64_t seed = 200; seed < 204; ++seed) {
    SimCluster cluster(seed, 4, keeping());
    cluster.begin(2, 3);
    watchJoiners(cluster);
    SimLoad load(cluster, {0, 1, 0, 1}, 1);
    cluster.loop().runFor(500 * kj::MILLISECONDS);
    change(cluster, {Kind::kAddMember, "d", 0});
    EXPECT_FALSE(isActive(cluster, "d"));
    awaitCounted(cluster, "d");
    change(cluster, {Kind::kSetQuorum, "", 3});
    change(cluster, {Kind::kRemove, "c", 0});
    EXPECT_EQ(record(cluster).current.members.size(), 3u);
    EXPECT_EQ(record(cluster).current.writeQuorum, 3u);
    cluster.loop().runFor(200 * kj::MILLISECONDS);
    // With W = 3 of a, b and d, everything is on d.
    const uint64_t before = load.done;
    cluster.node(2).losePower();
    cluster.loop().runFor(500 * kj::MILLISECONDS);
    EXPECT_GT(load.done, before + 50);
    EXPECT_LT(load.longestMs, 400);
    expectUnharmed(cluster, load);
    EXPECT_EQ(cluster.get(3, "c0"), cluster.get(0, "c0"));
  }
}

TEST(VolumeMembersTest, AnAsyncStandbyFollowsAndIsNotCountedUntilPromoted) {
  SimCluster cluster(210, 4, keeping());
  cluster.begin(2, 3);
  watchJoiners(cluster);
  SimLoad load(cluster, {0, 1}, 1);
  change(cluster, {Kind::kAddAsync, "d", 0});
  cluster.loop().runFor(2 * kj::SECONDS);
  ASSERT_TRUE(cluster.node(3).hasVolume());
  EXPECT_EQ(cluster.node(3).volume().status().role, VolumeRole::kAsync);
  EXPECT_FALSE(isActive(cluster, "d"));
  const RecordIndex here = cluster.node(3).volume().status().applied;
  EXPECT_GT(here.value + 200, cluster.primary()->volume().status().committed.value);
  change(cluster, {Kind::kPromote, "d", 0});
  awaitCounted(cluster, "d");
  expectUnharmed(cluster, load);
}

TEST(VolumeMembersTest, ChangesThatCannotBeAreRefusedWithASentence) {
  SimCluster cluster(220, 4, keeping());
  cluster.begin(2, 3);
  const uint64_t swaps = cluster.coordinator().swaps;
  auto expect = [&](ConfigurationChange what, const char* sentence) {
    const std::string said = refusal(cluster, kj::mv(what));
    EXPECT_NE(said.find(sentence), std::string::npos) << said;
  };
  expect({Kind::kAddMember, "x", 0}, "no node x has registered");
  expect({Kind::kAddMember, "b", 0}, "b is a member of the volume already");
  expect({Kind::kPromote, "d", 0}, "not an async standby of the volume; add it first");
  expect({Kind::kPromote, "b", 0}, "counted member of the volume already");
  expect({Kind::kRemove, "a", 0}, "a leads the volume");
  expect({Kind::kRemove, "d", 0}, "d is not a member");
  expect({Kind::kSetQuorum, "", 4}, "must be between 1 and the number of counted members");
  expect({Kind::kSetQuorum, "", 0}, "must be between 1 and the number of counted members");
  expect({Kind::kSetQuorum, "", 2}, "the write quorum is 2 already");
  EXPECT_EQ(cluster.coordinator().swaps, swaps);
  change(cluster, {Kind::kSetQuorum, "", 3});
  expect({Kind::kRemove, "c", 0}, "a write is kept on 3 of them");
  // Two at a time: one after the other.
  auto first = cluster.primary()->volume().changeConfiguration({Kind::kAddAsync, "d", 0});
  change(cluster, {Kind::kSetQuorum, "", 2});
  cluster.loop().wait(kj::mv(first));
  EXPECT_EQ(record(cluster).current.writeQuorum, 2u);
  EXPECT_EQ(record(cluster).current.async.size(), 1u);
  expect({Kind::kAddAsync, "d", 0}, "async standby of the volume already");
  // A change that the members that are there could not acknowledge is not begun.
  cluster.node(2).stop();
  cluster.loop().runFor(200 * kj::MILLISECONDS);
  expect({Kind::kSetQuorum, "", 3}, "fewer members than the write quorum would be connected");
}

TEST(VolumeMembersTest, AJoinerThatCannotFollowStopsNobodyAndIsCountedOnceItCan) {
  SimCluster cluster(230, 4, keeping());
  cluster.begin(2, 3);
  watchJoiners(cluster);
  SimLoad load(cluster, {0, 1}, 1);
  cluster.network().isolate("d", cluster.nodeIds());
  change(cluster, {Kind::kAddMember, "d", 0});
  cluster.loop().runFor(5 * kj::SECONDS);
  EXPECT_FALSE(isActive(cluster, "d"));
  EXPECT_LT(load.longestMs, 400);
  cluster.node(3).losePower();
  cluster.network().heal();
  cluster.loop().runFor(2 * kj::SECONDS);
  EXPECT_FALSE(isActive(cluster, "d"));
  // The lead moves; that the standby is to be counted is known to the next primary, too.
  cluster.node(0).losePower();
  cluster.until([&]() { return cluster.primary() != nullptr; }, 5000, "a new primary");
  cluster.startAll();
  awaitCounted(cluster, "d");
  load.join();
  cluster.settle();
  cluster.verify();
}

// Rule 9: what is tried again by itself is the last active configuration.
TEST(VolumeMembersTest, AChangeThatStallsDoesNotBlockTheVolume) {
  for (uint64_t seed = 240; seed < 246; ++seed) {
    SimCluster cluster(seed, 3, keeping());
    cluster.begin(2);
    SimLoad load(cluster, {0, 1}, 1);
    cluster.loop().runFor(300 * kj::MILLISECONDS);
    cluster.coordinator().onStored = [&](const VolumeRecord& stored) {
      if (stored.phase == VolumePhase::kRecovering && stored.current.writeQuorum == 3) {
        cluster.network().isolate("c", cluster.nodeIds());
      }
    };
    const std::string said = refusal(cluster, {Kind::kSetQuorum, "", 3});
    EXPECT_NE(said.find("it was given up"), std::string::npos) << said;
    const uint64_t before = load.done;
    cluster.loop().runFor(2 * kj::SECONDS);
    EXPECT_GT(load.done, before + 100);
    EXPECT_EQ(record(cluster).current.writeQuorum, 2u);
    cluster.network().heal();
    expectUnharmed(cluster, load);
  }
}

// Rule 10: the primary goes on in the epoch before, for ever if need be, while nobody serves the node that
// only the attempt names.
TEST(VolumeMembersTest, AChangeWhoseNodeNeverLearnsThatItWasStoredIsEndedByThePrimary) {
  SimCluster cluster(248, 4, keeping());
  cluster.begin(2, 3);
  SimLoad load(cluster, {0, 1}, 1);
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  bool stored = false;
  cluster.coordinator().onStored = [&](const VolumeRecord& taken) {
    stored = stored || taken.phase == VolumePhase::kRecovering;
    cluster.coordinator().cutOff("a");
  };
  const std::string said = refusal(cluster, {Kind::kAddAsync, "d", 0});
  EXPECT_NE(said.find("the coordinator cannot be reached"), std::string::npos) << said;
  ASSERT_TRUE(stored);
  cluster.coordinator().onStored = nullptr;
  EXPECT_EQ(record(cluster).phase, VolumePhase::kRecovering);
  ASSERT_EQ(cluster.primary(), &cluster.node(0));
  cluster.coordinator().heal();
  cluster.until([&]() { return record(cluster).phase == VolumePhase::kActive; }, 10'000,
                "an active epoch");
  EXPECT_TRUE(record(cluster).current.async.empty());
  EXPECT_EQ(record(cluster).current.primary.node, "a");
  change(cluster, {Kind::kAddAsync, "d", 0});
  EXPECT_LT(load.longestMs, 250);
  expectUnharmed(cluster, load);
}

TEST(VolumeMembersTest, ThePrimaryEndsAnEpochThatANodeWithoutPeersTook) {
  SimCluster cluster(181, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, {0, 1}, 1);
  cluster.network().isolate("c", cluster.nodeIds());
  auto attempt = outcomeOf(cluster.node(2).volume().takeOver());
  cluster.loop().runFor(12 * kj::SECONDS);   // longer than the coordinator is polled
  EXPECT_EQ(cluster.coordinator().volumes["main"].phase, VolumePhase::kActive);
  EXPECT_EQ(cluster.coordinator().volumes["main"].current.primary.node, "a");
  EXPECT_EQ(cluster.node(0).volume().status().epoch, Epoch(3));
  EXPECT_LT(load.longestMs, 100);
  auto outcome = cluster.loop().wait(kj::mv(attempt));
  EXPECT_TRUE(outcome != nullptr);   // it was superseded
  cluster.network().heal();
  expectUnharmed(cluster, load);
}

TEST(VolumeMembersTest, ThePrimaryDiesAtEveryStepOfAChange) {
  for (uint64_t seed = 250; seed < 262; ++seed) {
    SimCluster cluster(seed, 4, keeping());
    cluster.begin(2, 3);
    watchJoiners(cluster);
    SimLoad load(cluster, {1, 2}, 1);
    cluster.loop().runFor(200 * kj::MILLISECONDS);
    auto watch = kj::mv(cluster.coordinator().onStored);
    uint64_t steps = seed % 4;   // of two takeovers, each stored twice
    cluster.coordinator().onStored = [&](const VolumeRecord& stored) {
      watch(stored);
      if (steps-- != 0) return;
      cluster.tasks().add(kj::evalLater([&cluster]() { cluster.node(0).losePower(); }));
    };
    auto changed = cluster.node(0).front(
        cluster.node(0).volume().changeConfiguration({Kind::kAddMember, "d", 0}));
    auto outcome = cluster.loop().wait(outcomeOf(kj::mv(changed)));
    (void)outcome;  // whether it was done is unknown
    cluster.loop().runFor(3 * kj::SECONDS);
    cluster.coordinator().onStored = [&](const VolumeRecord& stored) { watch(stored); };
    ASSERT_NE(cluster.primary(), nullptr) << seed << cluster.describe();
    cluster.startAll();
    if (!cluster.isMember(cluster.node(3))) change(cluster, {Kind::kAddMember, "d", 0});
    awaitCounted(cluster, "d");
    expectUnharmed(cluster, load);
  }
}

// ---- Pairs (rule 19) ---------------------------------------------------------------------------

void awaitBoth(SimCluster& cluster) {
  cluster.until([&]() {
    return record(cluster).phase == VolumePhase::kActive &&
           record(cluster).current.members.size() == 2 && record(cluster).current.writeQuorum == 2;
  }, 20'000, "both of the pair acknowledge");
}

TEST(VolumeMembersTest, EitherOfAPairIsLostAndNothingElseIs) {
  for (uint64_t seed = 300; seed < 303; ++seed) {
    SimCluster cluster(seed, 2, keeping());
    cluster.begin(2, 0, VolumeTraits{true, 100});
    watchJoiners(cluster);
    for (int round = 0; round < 6; ++round) {
      const size_t lost = (seed + round) % 2, other = 1 - lost;
      SimLoad load(cluster, {other, other}, 1);
      cluster.loop().runFor(300 * kj::MILLISECONDS);
      cluster.node(lost).losePower();
      cluster.loop().runFor(2 * kj::SECONDS);
      ASSERT_EQ(cluster.primary(), &cluster.node(other)) << cluster.describe();
      EXPECT_EQ(record(cluster).current.writeQuorum, 1u);
      const uint64_t before = load.done;
      cluster.loop().runFor(300 * kj::MILLISECONDS);
      EXPECT_GT(load.done, before + 30);
      cluster.startAll();
      awaitBoth(cluster);
      load.join();
      EXPECT_EQ(load.failed, 0u) << load.lastFailure;
      cluster.settle();
      cluster.verify();
    }
  }
}

TEST(VolumeMembersTest, ThePartnerOfALostSurvivorNeverLeads) {
  SimCluster cluster(320, 2, keeping());
  cluster.begin(2, 0, VolumeTraits{true, 100});
  cluster.node(1).losePower();
  cluster.until([&]() {
    return record(cluster).phase == VolumePhase::kActive && record(cluster).current.writeQuorum == 1;
  }, 5000, "the survivor goes on");
  cluster.put(0, "only", "here");
  cluster.node(0).losePower();
  cluster.loop().wait(cluster.node(1).start().promise());
  cluster.loop().runFor(30 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), nullptr);
  EXPECT_EQ(record(cluster).current.members.front().node, "a");
  cluster.startAll();
  awaitBoth(cluster);
  EXPECT_EQ(cluster.get(1, "only"), "here");
  cluster.settle();
  cluster.verify();
}

// Both reach the coordinator and not each other: one of them goes on, whichever.
TEST(VolumeMembersTest, APairThatIsDividedGoesOnWithOne) {
  for (uint64_t seed = 330; seed < 336; ++seed) {
    SimCluster cluster(seed, 2, keeping());
    cluster.begin(2, 0, VolumeTraits{true, 100});
    SimLoad load(cluster, {0, 1}, 1);
    for (int round = 0; round < 4; ++round) {
      cluster.loop().runFor(300 * kj::MILLISECONDS);
      if (round % 3 != 1) cluster.network().cut("a", "b");
      if (round % 3 != 2) cluster.network().cut("b", "a");
      const uint64_t before = load.done;
      cluster.loop().runFor(4 * kj::SECONDS);
      EXPECT_GT(load.done, before + 30) << cluster.describe();
      cluster.network().heal();
      awaitBoth(cluster);
    }
    load.join();
    EXPECT_EQ(load.staleReads, 0u);
    cluster.settle();
    cluster.verify();
  }
}

// A third would be counted beside the partner that comes back.
TEST(VolumeMembersTest, APairHasTwoMembersAlsoWhileOneIsAway) {
  SimCluster cluster(341, 3, keeping());
  cluster.begin(2, 2, VolumeTraits{true, 100});
  cluster.put(0, "k", "1");
  change(cluster, {Kind::kAddAsync, "c", 0});
  cluster.node(1).losePower();
  cluster.until([&]() { return record(cluster).current.writeQuorum == 1; }, 10'000, "a goes on alone");
  cluster.until([&]() { return cluster.primary() != nullptr; }, 10'000, "a leads");
  for (const Kind kind : {Kind::kPromote, Kind::kAddMember}) {
    const std::string said = refusal(cluster, {kind, "c", 0});
    EXPECT_NE(said.find("is a pair and has its two members"), std::string::npos) << said;
  }
  // In place of the partner it may.
  change(cluster, {Kind::kRemove, "b", 0});
  change(cluster, {Kind::kPromote, "c", 0});
  awaitCounted(cluster, "c");
  EXPECT_EQ(record(cluster).current.members.size(), 2u);
  EXPECT_EQ(record(cluster).current.writeQuorum, 2u);
  cluster.settle();
  cluster.verify();
}

// It was told to lead when the other was there, and the other dies before it has the new epoch.
TEST(VolumeMembersTest, OfAPairOneThatTakesOverByOrderGoesOnWhenTheOtherIsLost) {
  SimCluster cluster(340, 2, keeping());
  cluster.begin(2, 0, VolumeTraits{true, 100});
  cluster.put(0, "k", "1");
  cluster.settle();
  ASSERT_EQ(cluster.primary(), &cluster.node(0));
  bool lost = false;
  cluster.coordinator().onStored = [&](const VolumeRecord& stored) {
    if (lost || stored.current.primary.node != "b") return;
    lost = true;
    cluster.tasks().add(kj::evalLater([&]() {
      if (!cluster.node(0).idle()) cluster.node(0).losePower();
    }));
  };
  cluster.tasks().add(outcomeOf(cluster.node(1).volume().takeOver()).ignoreResult());
  cluster.until([&]() { return cluster.primary() == &cluster.node(1); }, 15'000, "b goes on alone");
  cluster.put(1, "k", "2");
  cluster.startAll();
  awaitBoth(cluster);
  EXPECT_EQ(cluster.get(0, "k"), "2");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeMembersTest, APairThatStartsTogetherStaysTogether) {
  SimCluster cluster(350, 2, keeping());
  cluster.begin(2, 0, VolumeTraits{true, 100});
  cluster.put(0, "k", "1");
  cluster.node(0).losePower();
  cluster.node(1).losePower();
  cluster.startAll();
  cluster.awaitPrimary();
  EXPECT_EQ(record(cluster).current.writeQuorum, 2u);
  EXPECT_EQ(cluster.get(1, "k"), "1");
  // And with one of them only.
  cluster.node(0).losePower();
  cluster.node(1).losePower();
  cluster.loop().wait(cluster.node(1).start().promise());
  cluster.until([&]() { return cluster.primary() == &cluster.node(1); }, 10'000, "b goes on alone");
  EXPECT_EQ(cluster.get(1, "k"), "1");
}

}  // namespace
}  // namespace packmoor::replicator
