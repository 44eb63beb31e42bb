// Goal: what an operator reads of damage says what it is, of what, and whether it is mended; it is an
// error only while nothing mends it. Method: statuses as the replicator gives them, through fillVolume
// where there is one.
#include "repair_health.h"

#include "node_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace packmoor::rpc {
namespace {

using testing::HasSubstr;

control::Health onlyHealth(const control::NodeStatus& status) {
  EXPECT_EQ(status.health_size(), 1);
  return status.health_size() == 1 ? status.health(0) : control::Health();
}

control::Health blocks(uint64_t bad, uint64_t repaired, uint64_t standing) {
  control::ExtentStatus extents;
  extents.set_blocks_bad(bad);
  extents.set_blocks_repaired(repaired);
  extents.set_blocks_standing(standing);
  control::NodeStatus status;
  blockHealth(extents, status);
  return bad == 0 && status.health_size() == 0 ? control::Health() : onlyHealth(status);
}

TEST(RepairHealth, BadBlocksAreAnErrorWhileOneStands) {
  EXPECT_EQ(blocks(0, 0, 0).code(), "");
  auto standing = blocks(3, 1, 2);
  EXPECT_EQ(standing.code(), "BAD_BLOCKS");
  EXPECT_EQ(standing.severity(), "error");
  EXPECT_THAT(standing.message(), HasSubstr("Still damaged: 2."));
  EXPECT_THAT(standing.message(), HasSubstr("packmoorctl scrub start"));
  auto repaired = blocks(3, 3, 0);
  EXPECT_EQ(repaired.code(), "BAD_BLOCKS");
  EXPECT_EQ(repaired.severity(), "warning");
  EXPECT_THAT(repaired.message(), HasSubstr("checksum: 3. All are repaired"));
}

control::Health healthOf(const replicator::VolumeStatus& from) {
  control::VolumeStatus volume;
  fillVolume(from, volume);
  control::NodeStatus status;
  repairHealth(volume, status);
  return onlyHealth(status);
}

replicator::VolumeStatus repairing() {
  replicator::VolumeStatus volume;
  volume.name = "main";
  volume.repairing = true;
  volume.repair.damage = "the journal is damaged";
  volume.repair.step = "it takes records from n2";
  volume.repair.source = "n2";
  return volume;
}

TEST(RepairHealth, AVolumeInRepairSaysWhatFromWhomAndHowFar) {
  auto volume = repairing();
  volume.repair.reached = replicator::RecordIndex(7);
  volume.repair.target = replicator::RecordIndex(9);
  auto health = healthOf(volume);
  EXPECT_EQ(health.code(), "VOLUME_REPAIRING");
  EXPECT_EQ(health.severity(), "warning");
  EXPECT_EQ(health.message(),
            "Volume main is damaged on this node: the journal is damaged. It is being repaired: it "
            "takes records from n2 (up to record 7 of 9). This node does not lead until then.");
}

TEST(RepairHealth, AStateOnItsWaySaysHowMuchOfItIsHere) {
  auto volume = repairing();
  volume.repair.step = "it fetches the state from n2";
  volume.transfer.running = true;
  volume.transfer.phase = "fetching";
  volume.transfer.fileBytes = 100;
  volume.transfer.fileBytesDone = 20;
  EXPECT_THAT(healthOf(volume).message(), HasSubstr("(fetching, 20 of 100 bytes)"));
}

TEST(RepairHealth, ARepairThatDoesNotGetOnIsAnError) {
  auto volume = repairing();
  volume.repair.step = "it waits until another member leads";
  volume.repair.stuck = true;
  auto health = healthOf(volume);
  EXPECT_EQ(health.code(), "VOLUME_DAMAGED");
  EXPECT_EQ(health.severity(), "error");
  EXPECT_THAT(health.message(), HasSubstr("It is not being repaired: it waits until another member "
                                          "leads."));
  volume.repair.step.clear();
  EXPECT_THAT(healthOf(volume).message(), HasSubstr("add it again with an empty data directory"));
}

TEST(RepairHealth, AWholeVolumeSaysNothing) {
  control::VolumeStatus volume;
  fillVolume(replicator::VolumeStatus(), volume);
  control::NodeStatus status;
  repairHealth(volume, status);
  EXPECT_EQ(status.health_size(), 0);
}

}  // namespace
}  // namespace packmoor::rpc
