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

control::ScrubStatus scrubbed() {
  control::ScrubStatus scrub;
  scrub.set_interval_ms(1000);
  scrub.set_last_pass_ms(10'000);
  return scrub;
}

control::NodeStatus statusOf(const control::ScrubStatus& scrub, int64_t nowMs) {
  control::NodeStatus status;
  scrubHealth(scrub, nowMs, status);
  return status;
}

TEST(RepairHealth, WhatTheScrubberFoundIsAnErrorUntilItIsMended) {
  auto scrub = scrubbed();
  EXPECT_EQ(statusOf(scrub, 11'000).health_size(), 0);
  auto& finding = *scrub.add_findings();
  finding.set_what("Block 3 of extent e is damaged.");
  finding.set_problem("no other member gives the block");
  auto health = onlyHealth(statusOf(scrub, 11'000));
  EXPECT_EQ(health.code(), "SCRUB_ERRORS");
  EXPECT_EQ(health.severity(), "error");
  EXPECT_THAT(health.message(), HasSubstr("Block 3 of extent e is damaged. It is not mended yet: no "
                                          "other member gives the block."));
  EXPECT_THAT(health.message(), HasSubstr("packmoorctl scrub status"));
  finding.set_mended_ms(10'500);
  health = onlyHealth(statusOf(scrub, 11'000));
  EXPECT_EQ(health.code(), "SCRUB_REPAIRED");
  EXPECT_EQ(health.severity(), "warning");
  EXPECT_THAT(health.message(), HasSubstr("in 1 place: Block 3 of extent e is damaged."));
  EXPECT_THAT(health.message(), HasSubstr("packmoorctl scrub acknowledge"));
}

TEST(RepairHealth, AScrubThatDoesNotComeRoundIsOverdue) {
  auto scrub = scrubbed();
  EXPECT_EQ(statusOf(scrub, 12'000).health_size(), 0);
  auto health = onlyHealth(statusOf(scrub, 12'001));
  EXPECT_EQ(health.code(), "SCRUB_OVERDUE");
  EXPECT_EQ(health.severity(), "warning");
  EXPECT_THAT(health.message(), HasSubstr("scrub_rate"));
  scrub.set_paused(true);
  EXPECT_THAT(onlyHealth(statusOf(scrub, 12'001)).message(), HasSubstr("packmoorctl scrub resume"));
  // A node that was never scrubbed counts from its beginning.
  scrub.set_last_pass_ms(0);
  scrub.set_since_ms(11'000);
  EXPECT_EQ(statusOf(scrub, 12'001).health_size(), 0);
}

}  // namespace
}  // namespace packmoor::rpc
