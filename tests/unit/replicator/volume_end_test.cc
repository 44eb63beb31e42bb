// Goal: a volume is deleted only when it is empty and without a push that lands in between; its members
// then remove what they have of it, also those that were away, and a removed member after a while; and
// nothing is ever removed because the coordinator is away or in doubt. Method: whole nodes in virtual
// time; proposals around the deletion, answers that are lost, power cuts while data is removed.
#include "sim_load.h"

#include "removal.h"
#include "replicator/outcome.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

using Kind = ConfigurationChange::Kind;

const VolumeRecord& record(SimCluster& cluster) { return cluster.coordinator().volumes.at("main"); }

std::string failureOf(SimCluster& cluster, kj::Promise<void> work) {
  auto failure = cluster.loop().wait(outcomeOf(kj::mv(work)));
  KJ_IF_MAYBE(exception, failure) { return exception->getDescription().cStr(); }
  return "";
}

std::string deletion(SimCluster& cluster) {
  return failureOf(cluster, cluster.awaitPrimary().volume().deleteForGood());
}

void change(SimCluster& cluster, ConfigurationChange what) {
  cluster.loop().wait(cluster.awaitPrimary().volume().changeConfiguration(kj::mv(what)));
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// Neither the volume nor anything in the journal, and nothing that waits to be removed.
bool isGone(SimCluster& cluster, size_t node, const VolumeId& id) {
  SimNode& n = cluster.node(node);
  return n.up() && !n.hasVolume() && n.journal().last(id).index.value == 0 &&
         n.replicator().removals().empty();
}

void awaitGone(SimCluster& cluster, size_t node, const VolumeId& id) {
  cluster.until([&]() { return isGone(cluster, node, id); }, 20'000, "the data is removed");
}

void startNode(SimCluster& cluster, size_t node) {
  cluster.loop().wait(cluster.node(node).start().promise());
}

TEST(VolumeEndTest, AVolumeThatHoldsSomethingIsNotDeleted) {
  SimCluster cluster(600, 3);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  EXPECT_TRUE(contains(deletion(cluster), "the volume holds 1 keys"));
  EXPECT_FALSE(record(cluster).traits.deleted);
  cluster.put(1, "k", "2");
  EXPECT_EQ(cluster.get(2, "k"), "2");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeEndTest, AnEmptyVolumeIsDeletedEverywhereAndItsNameUsedAgain) {
  SimCluster cluster(601, 3);
  cluster.begin(2);
  const VolumeId id = record(cluster).id;
  EXPECT_EQ(deletion(cluster), "");
  for (size_t n = 0; n < 3; ++n) awaitGone(cluster, n, id);
  EXPECT_TRUE(record(cluster).traits.deleted);
  // It is not opened again, whatever is remembered.
  cluster.node(1).losePower();
  startNode(cluster, 1);
  cluster.loop().runFor(10 * kj::SECONDS);
  EXPECT_TRUE(isGone(cluster, 1, id));
  EXPECT_EQ(cluster.node(1).recovered().volumes.count(id), 0u);

  cluster.loop().wait(cluster.node(2).replicator().createVolume("main", cluster.nodeIds(), 2, {}));
  EXPECT_NE(record(cluster).id, id);
  EXPECT_EQ(record(cluster).traits.former, std::vector<VolumeId>{id});
  cluster.awaitPrimary();
  cluster.put(1, "k", "1");
  EXPECT_EQ(cluster.get(2, "k"), "1");
}

TEST(VolumeEndTest, ANodeThatWasAwayRemovesItWhenItComesBack) {
  for (bool usedAgain : {false, true}) {
    SimCluster cluster(602, 3);
    cluster.begin(2);
    const VolumeId id = record(cluster).id;
    cluster.node(2).losePower();
    cluster.loop().runFor(1 * kj::SECONDS);
    EXPECT_EQ(deletion(cluster), "");
    awaitGone(cluster, 0, id);
    awaitGone(cluster, 1, id);
    if (usedAgain) {
      cluster.loop().wait(cluster.node(0).replicator().createVolume("main", {"a", "b"}, 2, {}));
    }
    startNode(cluster, 2);
    EXPECT_EQ(cluster.node(2).recovered().volumes.count(id), 1u);
    awaitGone(cluster, 2, id);
  }
}

// Rule 18. What it does not hear of, or must not believe, removes nothing.
TEST(VolumeEndTest, NothingIsRemovedWhileTheCoordinatorIsAwayOrInDoubt) {
  for (bool doubts : {false, true}) {
    SimCluster cluster(603, 3);
    cluster.begin(2);
    const VolumeId id = record(cluster).id;
    cluster.node(2).losePower();
    EXPECT_EQ(deletion(cluster), "");
    if (doubts) cluster.coordinator().doubting.insert("c");
    else cluster.coordinator().cutOff("c");
    startNode(cluster, 2);
    cluster.loop().runFor(30 * kj::SECONDS);
    ASSERT_TRUE(cluster.node(2).hasVolume());   // as it is remembered
    EXPECT_GT(cluster.node(2).journal().last(id).index.value, 0u);
    EXPECT_TRUE(cluster.node(2).replicator().removals().empty());
    cluster.coordinator().doubting.clear();
    cluster.coordinator().heal();
    awaitGone(cluster, 2, id);
  }
}

// A record that is not there any more says nothing.
TEST(VolumeEndTest, ARecordThatIsLostRemovesNothing) {
  SimCluster cluster(604, 3);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  const VolumeId id = record(cluster).id;
  cluster.coordinator().volumes.clear();
  cluster.loop().runFor(30 * kj::SECONDS);
  for (size_t n = 0; n < 3; ++n) EXPECT_GT(cluster.node(n).journal().last(id).index.value, 0u);
}

// Whatever the moment: either the volume stays, or nothing was ever acknowledged.
TEST(VolumeEndTest, NoPushLandsBetweenTheLookAndTheEnd) {
  size_t deleted = 0, kept = 0;
  for (uint64_t seed = 610; seed < 634; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.begin(2);
    size_t acknowledged = 0;
    bool ended = false, done = false;
    auto remove = [&]() {
      auto ending = cluster.awaitPrimary().volume().deleteForGood();
      cluster.tasks().add(outcomeOf(kj::mv(ending)).then([&](kj::Maybe<kj::Exception>&& failure) {
        ended = true;
        done = failure == nullptr;
      }));
    };
    const bool first = seed % 2 == 0;
    if (first) remove();
    if (first) cluster.loop().runFor((seed - 610) * 100 * kj::MICROSECONDS);
    for (size_t n = 0; n < 3; ++n) {
      cluster.tasks().add(cluster.propose(n, "put k" + std::to_string(n) + " v").promise().then(
          [&](ProposeOutcome&&) { ++acknowledged; }, [](kj::Exception&&) {}));
    }
    if (!first) {
      cluster.loop().runFor((seed - 610) * 100 * kj::MICROSECONDS);
      remove();
    }
    cluster.until([&]() { return ended; }, 20'000, "the deletion ends");
    cluster.loop().runFor(40 * kj::SECONDS);
    EXPECT_EQ(done, record(cluster).traits.deleted) << seed;
    EXPECT_EQ(acknowledged, done ? 0u : 3u) << seed;
    ++(done ? deleted : kept);
  }
  EXPECT_GT(deleted, 0u);
  EXPECT_GT(kept, 0u);
}

// The primary dies in the turn in which the end is stored: nobody takes the lead of what is gone.
TEST(VolumeEndTest, ThePrimaryDiesAsItDeletes) {
  for (uint64_t seed = 634; seed < 640; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.begin(2);
    const VolumeId id = record(cluster).id;
    const Epoch epoch = record(cluster).current.epoch;
    SimNode& first = *cluster.primary();
    cluster.coordinator().onStored = [&](const VolumeRecord& stored) {
      if (!stored.traits.deleted) return;
      cluster.tasks().add(kj::evalLater([&first]() { first.losePower(); }));
    };
    auto deleted = first.front(first.volume().deleteForGood());
    auto outcome = cluster.loop().wait(outcomeOf(kj::mv(deleted)));
    (void)outcome;   // whether it was done is unknown
    const size_t lost = cluster.indexOf(first);
    for (size_t n = 0; n < 3; ++n) {
      if (n != lost) awaitGone(cluster, n, id);
    }
    startNode(cluster, lost);
    awaitGone(cluster, lost, id);
    EXPECT_TRUE(record(cluster).traits.deleted);
    EXPECT_EQ(record(cluster).current.epoch, epoch);
  }
}

// The coordinator's answer is lost: nothing is ordered until it is known what became of it.
TEST(VolumeEndTest, ALostAnswerIsSettledBeforeAnythingIsOrdered) {
  size_t deleted = 0, kept = 0;
  for (uint64_t seed = 640; seed < 656; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.begin(2);
    const VolumeId id = record(cluster).id;
    cluster.coordinator().unknownPerMillion = 1'000'000;
    std::string said = deletion(cluster);
    EXPECT_TRUE(said.empty() || contains(said, "the coordinator's answer was lost")) << said;
    bool acknowledged = false;
    cluster.tasks().add(cluster.propose(1, "put k v").promise().then(
        [&](ProposeOutcome&&) { acknowledged = true; }, [](kj::Exception&&) {}));
    cluster.loop().runFor(2 * kj::SECONDS);
    EXPECT_FALSE(acknowledged && record(cluster).traits.deleted) << seed;
    cluster.coordinator().unknownPerMillion = 0;
    if (record(cluster).traits.deleted) {
      for (size_t n = 0; n < 3; ++n) awaitGone(cluster, n, id);
      EXPECT_FALSE(acknowledged);
      ++deleted;
    } else {
      cluster.until([&]() { return acknowledged; }, 20'000, "the volume goes on");
      cluster.loop().runFor(20 * kj::SECONDS);
      EXPECT_FALSE(record(cluster).traits.deleted);
      ++kept;
    }
  }
  EXPECT_GT(deleted, 0u);
  EXPECT_GT(kept, 0u);
}

// ---- Removed members ---------------------------------------------------------------------------

ReplicatorOptions keepingFor(int64_t ms) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.removedDataKeepMs = ms;
  return options;
}

TEST(VolumeEndTest, ARemovedMemberKeepsItsDataForAWhile) {
  SimCluster cluster(660, 3, keepingFor(20'000));
  cluster.begin(2);
  cluster.put(0, "k", "1");
  const VolumeId id = record(cluster).id;
  change(cluster, {Kind::kRemove, "c", 0});
  cluster.until([&]() { return cluster.node(2).replicator().removals().size() == 1; }, 10'000,
                "the node knows");
  const RemovalStatus status = cluster.node(2).replicator().removals()[0];
  EXPECT_EQ(status.name, "main");
  EXPECT_FALSE(status.deleted || status.discarding);
  EXPECT_GT(status.leftMs, 10'000);
  // The time goes on through a restart, and the data stays open.
  cluster.loop().runFor(5 * kj::SECONDS);
  cluster.node(2).losePower();
  startNode(cluster, 2);
  cluster.until([&]() { return cluster.node(2).hasVolume(); }, 10'000, "it is opened as it is");
  EXPECT_LT(cluster.node(2).replicator().removals().at(0).leftMs, 15'000);
  // Not while it cannot be known whether it was added again.
  cluster.coordinator().cutOff("c");
  cluster.loop().runFor(40 * kj::SECONDS);
  EXPECT_TRUE(cluster.node(2).hasVolume());
  cluster.coordinator().heal();
  awaitGone(cluster, 2, id);
  EXPECT_TRUE(cluster.node(2).disk.durable.values.empty());
  cluster.loop().runFor(20 * kj::SECONDS);
  EXPECT_TRUE(cluster.node(2).replicator().removals().empty());   // once

  change(cluster, {Kind::kAddMember, "c", 0});
  cluster.until([&]() { return record(cluster).current.hasMember("c"); }, 20'000, "it is counted");
  EXPECT_EQ(cluster.get(2, "k"), "1");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeEndTest, AMemberThatIsAddedAgainInTimeKeepsItsData) {
  SimCluster cluster(661, 3, keepingFor(20'000));
  cluster.begin(2);
  cluster.put(0, "k", "1");
  change(cluster, {Kind::kRemove, "c", 0});
  cluster.until([&]() { return cluster.node(2).replicator().removals().size() == 1; }, 10'000,
                "the node knows");
  change(cluster, {Kind::kAddMember, "c", 0});
  cluster.until([&]() { return record(cluster).current.hasMember("c"); }, 20'000, "it is counted");
  cluster.until([&]() { return cluster.node(2).replicator().removals().empty(); }, 10'000, "it is kept");
  cluster.loop().runFor(60 * kj::SECONDS);
  EXPECT_EQ(cluster.get(2, "k"), "1");
  cluster.settle();
  cluster.verify();
}

// The time is over while the node is down. What it is then, the coordinator says.
TEST(VolumeEndTest, ANodeThatComesBackTooLateAsksFirst) {
  for (bool addedAgain : {false, true}) {
    SimCluster cluster(664, 3, keepingFor(10'000));
    cluster.begin(2);
    cluster.put(0, "k", "1");
    const VolumeId id = record(cluster).id;
    change(cluster, {Kind::kRemove, "c", 0});
    cluster.until([&]() { return cluster.node(2).replicator().removals().size() == 1; }, 10'000,
                  "the node knows");
    cluster.loop().runFor(1 * kj::SECONDS);
    cluster.node(2).losePower();
    cluster.loop().runFor(20 * kj::SECONDS);
    if (addedAgain) change(cluster, {Kind::kAddMember, "c", 0});
    cluster.coordinator().cutOff("c");
    startNode(cluster, 2);
    cluster.loop().runFor(10 * kj::SECONDS);
    EXPECT_GT(cluster.node(2).journal().last(id).index.value, 0u);
    cluster.coordinator().heal();
    if (!addedAgain) {
      awaitGone(cluster, 2, id);
      continue;
    }
    cluster.until([&]() { return record(cluster).current.hasMember("c"); }, 20'000, "it is counted");
    EXPECT_EQ(cluster.get(2, "k"), "1");
    EXPECT_TRUE(cluster.node(2).replicator().removals().empty());
    cluster.settle();
    cluster.verify();
  }
}

// Rule 3: a node that forgets a volume keeps its promise, or a deposed primary could count it.
TEST(VolumeEndTest, APromiseOutlivesTheData) {
  SimCluster cluster(662, 3, keepingFor(0));
  cluster.begin(2);
  cluster.put(0, "k", "1");
  const VolumeId id = record(cluster).id;
  change(cluster, {Kind::kRemove, "c", 0});
  awaitGone(cluster, 2, id);
  cluster.node(2).losePower();
  startNode(cluster, 2);
  ASSERT_EQ(cluster.node(2).recovered().volumes.count(id), 1u);
  const RecoveredVolume& left = cluster.node(2).recovered().volumes.at(id);
  EXPECT_GE(left.promise.epoch.value, 1u);
  EXPECT_EQ(left.last, LogPosition());
}

// Power is cut at any moment while a member's data is removed, and it is added again at once.
TEST(VolumeEndTest, PowerIsCutWhileDataIsRemoved) {
  for (uint64_t seed = 670; seed < 690; ++seed) {
    SimCluster cluster(seed, 3, keepingFor(0));
    cluster.begin(2);
    for (int i = 0; i < 20; ++i) cluster.put(0, "k" + std::to_string(i), "1");
    change(cluster, {Kind::kRemove, "c", 0});
    cluster.loop().runFor(kj::Duration((seed - 670) * 700 * kj::MICROSECONDS));
    cluster.node(2).losePower();
    change(cluster, {Kind::kAddMember, "c", 0});
    startNode(cluster, 2);
    cluster.until([&]() { return record(cluster).current.hasMember("c"); }, 30'000, "it is counted");
    EXPECT_EQ(cluster.get(2, "k7"), "1") << seed;
    cluster.settle();
    cluster.verify();
  }
}

// Again and again, under load, with the power of the one that goes cut at any moment.
TEST(VolumeEndTest, AMemberComesAndGoesForGoodUnderLoad) {
  for (uint64_t seed = 700; seed < 704; ++seed) {
    SimCluster cluster(seed, 4, keepingFor(0));
    cluster.begin(2, 3);
    SimLoad load(cluster, {0, 1}, 1);
    for (int round = 0; round < 6; ++round) {
      const size_t comes = round % 2 == 0 ? 3 : 2, goes = 5 - comes;
      const NodeId name = cluster.node(comes).id();
      change(cluster, {Kind::kAddMember, name, 0});
      cluster.until([&]() {
        return record(cluster).phase == VolumePhase::kActive && record(cluster).current.hasMember(name);
      }, 30'000, "it is counted");
      change(cluster, {Kind::kRemove, cluster.node(goes).id(), 0});
      cluster.loop().runFor(cluster.random().below(8) * kj::MILLISECONDS);
      if (round % 3 != 2) {
        cluster.node(goes).losePower();
        startNode(cluster, goes);
      }
      awaitGone(cluster, goes, record(cluster).id);
    }
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    EXPECT_EQ(load.lost, 0u);
    cluster.settle();
    cluster.verify();
  }
}

// ---- The decision and the note -----------------------------------------------------------------

TEST(RemovalTest, OnlyACertainRecordTakesDataAway) {
  VolumeRecord record;
  record.id.bytes.fill(1);
  record.current.members = {{"a", {}}, {"b", {}}};
  record.current.async = {{"far", {}}};
  VolumeId other;
  other.bytes.fill(2);
  EXPECT_EQ(standingOf(record, record.id, "a"), Standing::kMember);
  EXPECT_EQ(standingOf(record, record.id, "far"), Standing::kMember);
  EXPECT_EQ(standingOf(record, record.id, "c"), Standing::kUnknown);   // not active yet
  EXPECT_EQ(standingOf(record, other, "a"), Standing::kUnknown);
  record.phase = VolumePhase::kActive;
  EXPECT_EQ(standingOf(record, record.id, "c"), Standing::kRemoved);
  record.traits.former = {other};
  EXPECT_EQ(standingOf(record, other, "c"), Standing::kDeleted);
  record.traits.deleted = true;
  EXPECT_EQ(standingOf(record, record.id, "a"), Standing::kDeleted);
}

TEST(RemovalTest, ANoteIsReadAsItWasWritten) {
  for (int which = 0; which < 4; ++which) {
    RemovalNote note{"main", 1234, (which & 1) != 0, (which & 2) != 0}, read;
    ASSERT_TRUE(parseRemovalNote(toText(note).c_str(), read));
    EXPECT_EQ(toText(read), toText(note));
  }
  RemovalNote read;
  for (const char* text : {"", "packmoor-removed 2 main 1 member kept", "packmoor-removed 1 main 1 member",
                           "packmoor-removed 1 ../x 1 member kept", "packmoor-removed 1 m 1 member kept x",
                           "packmoor-removed 1 m x member kept", "packmoor-removed 1 m 1 all kept"}) {
    EXPECT_FALSE(parseRemovalNote(text, read)) << text;
  }
}

}  // namespace
}  // namespace packmoor::replicator
