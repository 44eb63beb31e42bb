// Goal: the local coordinator compares and swaps like any other, and what it resolved true is
// there after a power cut; a damaged file is refused with a sentence. Method: scripts on a
// simulated disk, power cut at every write boundary.
#include "replicator/local_coordinator.h"

#include "kernelio/co.h"
#include "kernelio/sim_env.h"
#include "replicator/outcome.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

using kernelio::SimEnv;
using kernelio::SimStorage;
using kernelio::VirtualLoop;

struct Node {
  Node(VirtualLoop& loop, SimStorage& storage) : loop(loop), sim(loop, storage, 1) {}
  kj::Own<Coordinator> open() {
    return loop.wait(openLocalCoordinator(sim.env(), kj::str("coordinator")));
  }
  VirtualLoop& loop;
  SimEnv sim;
};

VolumeRecord volumeNamed(const char* name, uint8_t id) {
  VolumeRecord record;
  record.name = name;
  record.id.bytes.fill(id);
  record.current.writeQuorum = 1;
  MemberIdentity self;
  self.node = "alone";
  self.journal.bytes.fill(9);
  record.current.members = {self};
  return record;
}

class LocalCoordinatorTest : public testing::Test {
 protected:
  VirtualLoop loop_;
  SimStorage storage_{3};
};

TEST_F(LocalCoordinatorTest, SwapsOnlyTheRevisionThatItHas) {
  Node node(loop_, storage_);
  auto coordinator = node.open();
  VolumeRecord record = volumeNamed("main", 1);
  EXPECT_TRUE(loop_.wait(coordinator->compareAndSwap(record)));
  EXPECT_FALSE(loop_.wait(coordinator->compareAndSwap(record)));  // it exists
  auto stored = loop_.wait(coordinator->readVolume("main"));
  ASSERT_TRUE(stored.has_value());
  EXPECT_GT(stored->revision, 0);
  VolumeRecord next = *stored;
  next.current.epoch = Epoch(1);
  EXPECT_TRUE(loop_.wait(coordinator->compareAndSwap(next)));
  EXPECT_FALSE(loop_.wait(coordinator->compareAndSwap(next)));    // the revision has moved
  EXPECT_FALSE(loop_.wait(coordinator->readVolume("other")).has_value());
}

TEST_F(LocalCoordinatorTest, EverythingComesBack) {
  VolumeRecord record = volumeNamed("main", 1);
  record.phase = VolumePhase::kActive;
  record.current.epoch = Epoch(7);
  record.current.primary = record.current.members[0];
  record.current.nonce.bytes.fill(5);
  record.current.async = {record.current.members[0], record.current.members[0]};
  record.lastActive = record.current;
  record.lastActive->epoch = Epoch(6);
  record.current.joining = {record.current.members[0]};
  record.lastActive->joining = record.current.async;
  record.traits = VolumeTraits{true, 7, {"alone", "far"}, true, {record.id, VolumeId()}};
  record.losses = {{Epoch(7), {RecordIndex(9), Epoch(6), Hash128{~0ull, 1ull << 63}},
                    record.current.members, {}, 1, 1'700'000'000'000, "user id 0", "", true}};
  NodeRegistration registration;
  registration.node = "alone";
  registration.journal.bytes.fill(9);
  registration.rpcAddress = "127.0.0.1:1";
  {
    Node node(loop_, storage_);
    auto coordinator = node.open();
    EXPECT_TRUE(loop_.wait(coordinator->compareAndSwap(record)));
    EXPECT_TRUE(loop_.wait(coordinator->compareAndSwap(volumeNamed("other", 2))));
    loop_.wait(coordinator->registerNode(registration));
  }
  Node node(loop_, storage_);
  auto coordinator = node.open();
  auto stored = loop_.wait(coordinator->readVolume("main"));
  ASSERT_TRUE(stored.has_value());
  EXPECT_EQ(stored->id, record.id);
  EXPECT_EQ(stored->current, record.current);
  EXPECT_EQ(stored->lastActive, record.lastActive);
  EXPECT_EQ(stored->phase, VolumePhase::kActive);
  EXPECT_EQ(stored->traits, record.traits);
  EXPECT_EQ(stored->losses, record.losses);
  EXPECT_EQ(loop_.wait(coordinator->listVolumes()).size(), 2u);
  auto nodes = loop_.wait(coordinator->listNodes());
  ASSERT_EQ(nodes.size(), 1u);
  EXPECT_EQ(nodes[0].rpcAddress, "127.0.0.1:1");
  EXPECT_EQ(nodes[0].httpAddress, "");
}

// As versions wrote it that knew neither pairs nor joiners, drained nodes nor deleted volumes.
TEST_F(LocalCoordinatorTest, AFileOfAnEarlierVersionIsReadAsItWasMeant) {
  const std::string id(32, '1'), journal(32, '9'), nonce(32, '5');
  const std::string configuration = " 3 alone@" + journal + " " + nonce + " 1 alone@" + journal + " -";
  const std::string body = "packmoor-coordinator 1\nvolume main " + id + " 4 active" + configuration +
                           configuration + "\ntraits main 7\nnode alone " + journal + " - - -\n";
  const std::string text =
      body + "checksum " + hashBytes(kj::StringPtr(body.c_str(), body.size()).asBytes()).text().cStr() +
      "\n";
  Node node(loop_, storage_);
  loop_.wait(kernelio::replaceFile(node.sim.env().disk, "coordinator",
                                   kj::StringPtr(text.c_str(), text.size()).asBytes()));
  auto coordinator = node.open();
  auto stored = loop_.wait(coordinator->readVolume("main"));
  ASSERT_TRUE(stored.has_value());
  EXPECT_EQ(stored->current.epoch, Epoch(3));
  EXPECT_TRUE(stored->current.joining.empty());
  EXPECT_EQ(stored->traits, (VolumeTraits{false, 7}));
}

TEST_F(LocalCoordinatorTest, ChangesWakeWhoWaits) {
  Node node(loop_, storage_);
  auto coordinator = node.open();
  auto changed = coordinator->changed();
  EXPECT_FALSE(changed.poll(loop_.waitScope()));
  loop_.wait(coordinator->compareAndSwap(volumeNamed("main", 1)));
  EXPECT_TRUE(changed.poll(loop_.waitScope()));
}

TEST_F(LocalCoordinatorTest, SwapsAtTheSameTimeDoNotMix) {
  Node node(loop_, storage_);
  auto coordinator = node.open();
  auto first = coordinator->compareAndSwap(volumeNamed("main", 1));
  auto second = coordinator->compareAndSwap(volumeNamed("main", 2));
  EXPECT_TRUE(loop_.wait(kj::mv(first)));
  EXPECT_FALSE(loop_.wait(kj::mv(second)));
}

TEST_F(LocalCoordinatorTest, ADamagedFileIsRefused) {
  {
    Node node(loop_, storage_);
    auto coordinator = node.open();
    loop_.wait(coordinator->compareAndSwap(volumeNamed("main", 1)));
  }
  storage_.poke("coordinator", 30, kj::StringPtr("X").asBytes());
  Node node(loop_, storage_);
  auto outcome = loop_.wait(
      outcomeOf(openLocalCoordinator(node.sim.env(), kj::str("coordinator"))));
  ASSERT_FALSE(outcome.ok());
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(outcome.exception).getDescription().cStr())
                .find("damaged"), std::string::npos);
}

// Swaps epochs 1, 2, 3... and tells the last one that resolved.
Co<void> swapAll(Coordinator& coordinator, uint64_t& resolved) {
  for (uint64_t epoch = 1; epoch <= 5; ++epoch) {
    auto stored = co_await coordinator.readVolume("main");
    VolumeRecord record = stored.has_value() ? *stored : volumeNamed("main", 1);
    record.current.epoch = Epoch(epoch);
    auto swapped = co_await coordinator.compareAndSwap(record);
    KJ_REQUIRE(swapped);
    resolved = epoch;
  }
}

TEST(LocalCoordinatorPowerTest, WhatResolvedSurvivesAPowerCut) {
  uint64_t boundaries = 0;
  for (uint64_t cut = 1; cut == 1 || cut <= boundaries; ++cut) {
    for (auto when : {kernelio::PowerCut::kDuring, kernelio::PowerCut::kAfter}) {
      VirtualLoop loop;
      SimStorage storage(cut);
      uint64_t resolved = 0;
      if (cut == 1) {  // how many there are
        SimStorage whole(1);
        Node node(loop, whole);
        auto coordinator = node.open();
        loop.wait(swapAll(*coordinator, resolved).promise());
        boundaries = whole.writeBoundaries();
        resolved = 0;
      }
      storage.cutPowerAt(cut, when);
      {
        Node node(loop, storage);
        kj::Own<Coordinator> coordinator;
        auto work = openLocalCoordinator(node.sim.env(), kj::str("coordinator"))
                        .then([&](kj::Own<Coordinator>&& opened) {
                          coordinator = kj::mv(opened);
                          return swapAll(*coordinator, resolved).promise();
                        });
        loop.wait(outcomeOf(work.exclusiveJoin(storage.whenPowerLost())).ignoreResult());
        work = nullptr;
      }
      storage.crash();
      Node node(loop, storage);
      auto coordinator = node.open();
      auto stored = loop.wait(coordinator->readVolume("main"));
      const uint64_t found = stored.has_value() ? stored->current.epoch.value : 0;
      EXPECT_GE(found, resolved) << "cut at " << cut;
      EXPECT_LE(found, resolved + 1) << "cut at " << cut;
    }
  }
  EXPECT_GT(boundaries, 10u);
}

}  // namespace
}  // namespace packmoor::replicator
