// Goal: a member whose journal has rotted acknowledges nothing until it is whole again, becomes so
// from the primary, whatever happens on the way, and nothing acknowledged is lost. Method: bits are
// flipped in a stopped member's journal, on whole nodes in virtual time.
#include "sim_load.h"

#include "replicator/journal_format.h"
#include "replicator/outcome.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

namespace packmoor::replicator {
namespace {

// The journal of the primary holds what the member needs: else its state would have to be transferred.
ReplicatorOptions longLog() {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = options.logRepairBytes = 64u << 20;
  return options;
}

// Stops the node and flips bits in one of its last batches, `part` of `parts` into them. What is left
// behind it shows that it was there.
void stopAndRot(SimCluster& cluster, size_t node, uint64_t part, uint64_t parts) {
  constexpr size_t kLast = 60, kNewest = 5;
  cluster.damageExpected = true;
  cluster.node(node).stop();
  std::vector<std::string> paths;
  for (int number = 0; number < 64; ++number) {
    char path[40];
    std::snprintf(path, sizeof path, "journal/segment-%06d", number);
    if (cluster.node(node).storage().content(path) != nullptr) paths.push_back(path);
  }
  std::map<uint64_t, std::pair<std::string, uint64_t>> frames;  // by sequence
  for (const std::string& path : paths) {
    auto bytes = KJ_ASSERT_NONNULL(cluster.node(node).storage().content(path.c_str()));
    for (uint64_t at = 0; at + sizeof(format::FrameHeader) <= bytes.size();
         at += format::kFrameAlignment) {
      format::FrameHeader header;
      std::memcpy(&header, bytes.begin() + at, sizeof header);
      if (header.magic == format::kFrameMagic) frames[header.batchSequence] = {path, at};
    }
  }
  ASSERT_GT(frames.size(), kLast);
  auto place = std::prev(frames.end(), kLast);
  std::advance(place, (kLast - kNewest) * part / parts);
  cluster.node(node).storage().rot(place->second.first.c_str(), place->second.second,
                                   sizeof(format::FrameHeader));
}

bool isRepairing(SimCluster& cluster, size_t node) {
  return !cluster.node(node).hasVolume() || cluster.node(node).volume().status().repairing;
}

void startDamaged(SimCluster& cluster, size_t node) {
  cluster.startAll();
  ASSERT_TRUE(cluster.node(node).recovered().damage.size() > 0);
  ASSERT_TRUE(isRepairing(cluster, node));
}

void untilWhole(SimCluster& cluster, size_t node) {
  cluster.until([&]() { return !isRepairing(cluster, node); }, 20'000, "the member is whole");
}

// It counts again, also after a restart: with the other standby gone, W = 2 needs it.
void expectCounted(SimCluster& cluster, size_t node) {
  cluster.restart(node);
  EXPECT_FALSE(isRepairing(cluster, node));
  const size_t leads = cluster.indexOf(cluster.awaitPrimary());
  cluster.node(leads == 1 ? 0 : 1).stop();
  cluster.put(leads, "after", "1");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeRepairTest, ARottenStandbyBecomesWholeUnderLoad) {
  for (uint64_t part = 0; part < 5; ++part) {
    SimCluster cluster(300 + part, 3, longLog());
    cluster.begin(2);
    SimLoad load(cluster, {0, 0, 1, 1});
    cluster.loop().runFor(1500 * kj::MILLISECONDS);
    stopAndRot(cluster, 2, part, 5);
    cluster.loop().runFor(300 * kj::MILLISECONDS);
    startDamaged(cluster, 2);
    untilWhole(cluster, 2);
    EXPECT_EQ(cluster.node(2).volume().status().problem, "");
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    cluster.settle();
    cluster.verify();
    expectCounted(cluster, 2);
  }
}

TEST(VolumeRepairTest, WithoutTheCoordinatorItStaysUncounted) {
  ReplicatorOptions options = longLog();
  options.proposeTimeoutMs = 3000;
  SimCluster cluster(310, 3, options);
  cluster.begin(3);
  for (int i = 0; i < 200; ++i) cluster.put(0, "k" + std::to_string(i), "v");
  stopAndRot(cluster, 2, 1, 2);
  cluster.coordinator().cutOff("c");
  startDamaged(cluster, 2);
  auto outcome = cluster.loop().wait(outcomeOf(cluster.propose(0, "put a 2").promise()));
  EXPECT_FALSE(outcome.ok());  // all three must acknowledge
  EXPECT_TRUE(isRepairing(cluster, 2));
  EXPECT_NE(cluster.node(2).volume().status().role, VolumeRole::kPrimary);
  cluster.coordinator().heal();
  untilWhole(cluster, 2);
  cluster.put(0, "b", "1");
  cluster.settle();
  cluster.verify();
}

// Rule 19: there is no other copy. By order, what is left of it goes on; else nothing does.
TEST(VolumeRepairTest, TheOnlyCopyGoesOnAsItIsByOrderOnly) {
  for (uint64_t part = 0; part < 4; ++part) {
    SimCluster cluster(315 + part, 1, longLog());
    cluster.begin(1);
    for (int i = 0; i < 200; ++i) cluster.put(0, "k" + std::to_string(i), "v");
    stopAndRot(cluster, 0, part, 4);
    startDamaged(cluster, 0);
    cluster.loop().runFor(10 * kj::SECONDS);
    ASSERT_TRUE(isRepairing(cluster, 0));
    EXPECT_TRUE(cluster.node(0).volume().logKnowledge().damaged);
    EXPECT_NE(cluster.node(0).volume().status().noConsent.find("whose copy is damaged"),
              std::string::npos);
    const VolumeRecord& record = cluster.coordinator().volumes.at("main");
    LossOrder order;
    order.revision = record.revision;
    order.kept = record.current.members;
    auto refused = cluster.loop().wait(
        outcomeOf(cluster.node(0).front(cluster.node(0).volume().acceptLoss(order))));
    EXPECT_TRUE(refused != nullptr);
    EXPECT_TRUE(isRepairing(cluster, 0));
    order.asIs = true;
    order.revision = record.revision;
    cluster.loop().wait(cluster.node(0).front(cluster.node(0).volume().acceptLoss(order)));
    ASSERT_EQ(record.losses.size(), 1u);
    EXPECT_LT(record.losses.front().adopted.index.value, 202u);
    cluster.giveUp(record.losses.front().adopted.index);
    EXPECT_FALSE(isRepairing(cluster, 0));
    EXPECT_EQ(cluster.get(0, "k0"), "v");
    cluster.put(0, "after", "1");
    cluster.settle();
    cluster.verify();
    cluster.restart(0);
    EXPECT_FALSE(isRepairing(cluster, 0));
    cluster.awaitPrimary();
    EXPECT_EQ(cluster.get(0, "after"), "1");
    cluster.settle();
    cluster.verify();
  }
}

TEST(VolumeRepairTest, RestartsAndNewPrimariesBeginItAgain) {
  for (uint64_t seed = 320; seed < 326; ++seed) {
    SimCluster cluster(seed, 3, longLog());
    cluster.begin(2);
    SimLoad load(cluster, {0, 1, 0, 1});
    cluster.loop().runFor(1000 * kj::MILLISECONDS);
    stopAndRot(cluster, 2, cluster.random().below(4), 4);
    cluster.loop().runFor(200 * kj::MILLISECONDS);
    startDamaged(cluster, 2);
    for (int round = 0; round < 4; ++round) {
      cluster.loop().runFor(static_cast<int64_t>(cluster.random().below(20)) * kj::MILLISECONDS);
      if (round % 2 == 0) {
        const size_t leads = cluster.indexOf(cluster.awaitPrimary());
        const auto to = cluster.node(leads == 0 ? 1 : 0).id();
        auto moved = cluster.node(leads).volume().switchOver(to);
        cluster.tasks().add(outcomeOf(kj::mv(moved)).ignoreResult());
      } else {
        cluster.node(2).losePower();
        cluster.startAll();
      }
    }
    untilWhole(cluster, 2);
    load.join();
    cluster.settle();
    cluster.verify();
    EXPECT_GT(load.done, 100u);
  }
}

// Of the records that it needs, no log has any more.
TEST(VolumeRepairTest, AMemberThatRottedAndIsTooFarBehindFetchesACheckpoint) {
  for (uint64_t part = 0; part < 4; ++part) {
    ReplicatorOptions options = SimCluster::testOptions();
    options.logRetainBytes = 4096;
    SimCluster cluster(350 + part, 3, options);
    cluster.begin(2);
    SimLoad load(cluster, {0, 0, 1, 1});
    cluster.loop().runFor(1000 * kj::MILLISECONDS);
    const RecordIndex had = cluster.node(2).volume().status().last;
    stopAndRot(cluster, 2, part, 4);
    cluster.until([&]() { return cluster.awaitPrimary().volume().status().base > had; }, 60'000,
                  "the log is recycled");
    startDamaged(cluster, 2);
    cluster.until([&]() {
      return cluster.node(2).hasVolume() && cluster.node(2).volume().status().transfer.running;
    }, 20'000, "it fetches a checkpoint");
    untilWhole(cluster, 2);
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    cluster.settle();
    cluster.verify();
    // It counts again, also after a restart.
    cluster.restart(2);
    EXPECT_FALSE(isRepairing(cluster, 2));
    const size_t leads = cluster.indexOf(cluster.awaitPrimary());
    cluster.node(leads == 1 ? 0 : 1).stop();
    cluster.put(leads, "after", "1");
    cluster.settle();
    cluster.verify();
  }
}

// The coordinator's epoch is that of an attempt that was given up; the primary of the epoch before goes
// on, and could for ever.
TEST(VolumeRepairTest, AnAttemptThatWasGivenUpDoesNotKeepAMemberInRepair) {
  for (const bool own : {false, true}) {
    SimCluster cluster(360, 3, longLog());
    cluster.begin(2);
    SimLoad load(cluster, {0, 0, 0}, 5);
    cluster.loop().runFor(1500 * kj::MILLISECONDS);
    ASSERT_EQ(cluster.primary(), &cluster.node(0));
    const size_t candidate = own ? 2 : 1;
    bool taken = false;
    cluster.coordinator().onStored = [&](const VolumeRecord&) {
      if (taken) return;
      taken = true;
      cluster.tasks().add(kj::evalLater([&]() { cluster.node(candidate).stop(); }));
    };
    // Isolated, so that nobody hears of the attempt but the coordinator.
    cluster.network().isolate(cluster.node(candidate).id(), cluster.nodeIds());
    cluster.tasks().add(outcomeOf(cluster.node(candidate).volume().takeOver()).ignoreResult());
    cluster.until([&]() { return taken && cluster.node(candidate).idle(); }, 20'000, "it took an epoch");
    cluster.network().heal();
    stopAndRot(cluster, 2, 1, 2);
    startDamaged(cluster, 2);
    untilWhole(cluster, 2);
    load.join();
    cluster.settle();
    cluster.verify();
  }
}

// What lies behind a first batch that is lost can be read as long as there is no other segment, and not
// after that.
TEST(VolumeRepairTest, WhatWasRepairedStaysWholeOverRestarts) {
  SimCluster cluster(370, 3, longLog());
  cluster.begin(2);
  for (int i = 0; i < 30; ++i) cluster.put(0, "k" + std::to_string(i), "v");
  cluster.settle();
  cluster.damageExpected = true;
  cluster.node(2).stop();
  cluster.node(2).storage().rot("journal/segment-000001", 0, sizeof(format::FrameHeader));
  startDamaged(cluster, 2);
  untilWhole(cluster, 2);
  for (int i = 0; i < 3; ++i) {
    cluster.put(0, "after", std::to_string(i));
    cluster.settle();
    const RecordIndex had = cluster.node(2).volume().status().durable;
    cluster.node(2).losePower();
    cluster.startAll();
    const VolumeStatus status = cluster.node(2).volume().status();
    EXPECT_FALSE(status.repairing) << status.problem;
    EXPECT_GE(status.durable, had);
  }
  cluster.settle();
  cluster.verify();
}

TEST(VolumeRepairTest, ARottenPrimaryIsReplacedAndRepaired) {
  SimCluster cluster(330, 3, longLog());
  cluster.begin(2);
  SimLoad load(cluster, {1, 2, 1, 2});
  cluster.loop().runFor(1000 * kj::MILLISECONDS);
  const size_t leads = cluster.indexOf(cluster.awaitPrimary());
  stopAndRot(cluster, leads, 1, 3);
  startDamaged(cluster, leads);
  untilWhole(cluster, leads);
  EXPECT_NE(cluster.indexOf(cluster.awaitPrimary()), leads);
  load.join();
  cluster.settle();
  cluster.verify();
}

// What the primary has released does not come as records any more.
TEST(VolumeRepairTest, AMemberWhoseRecordsAreGoneGetsACheckpoint) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 100u << 10;
  options.logRepairBytes = 0;
  for (uint64_t part = 0; part < 3; ++part) {
    SimCluster cluster(350 + part, 3, options);
    cluster.begin(2);
    SimLoad load(cluster, {0, 0, 1, 1});
    cluster.loop().runFor(1500 * kj::MILLISECONDS);
    stopAndRot(cluster, 2, part, 3);
    const RecordIndex had = cluster.node(2).disk.durable.applied.index;
    cluster.until([&]() {
      SimNode* primary = cluster.primary();
      return primary != nullptr && primary->volume().status().base.value > had.value + 2000;
    }, 120'000, "the primary has released what it needs");
    startDamaged(cluster, 2);
    untilWhole(cluster, 2);
    EXPECT_EQ(cluster.node(2).volume().status().transfer.installed, 1u);
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    cluster.settle();
    cluster.verify();
    expectCounted(cluster, 2);
  }
}

TEST(VolumeRepairTest, TheOnlyCopySaysThatItCannotBeRepaired) {
  SimCluster cluster(340, 1);
  cluster.begin(1);
  for (int i = 0; i < 100; ++i) cluster.put(0, "k" + std::to_string(i), "v");
  stopAndRot(cluster, 0, 1, 2);
  startDamaged(cluster, 0);
  cluster.loop().runFor(5 * kj::SECONDS);
  const VolumeStatus status = cluster.node(0).volume().status();
  EXPECT_TRUE(status.repairing);
  EXPECT_NE(status.role, VolumeRole::kPrimary);
  EXPECT_NE(status.problem.find("this one copy only"), std::string::npos) << status.problem;
}

}  // namespace
}  // namespace packmoor::replicator
