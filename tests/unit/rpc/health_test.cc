// Goal: each bad situation of a volume has its code, once, with a sentence that names the volume, and
// none when all is well. Method: the pure function, on statuses.
#include "health.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace packmoor::rpc {
namespace {

control::VolumeStatus threeMembers() {
  control::VolumeStatus volume;
  volume.set_name("v");
  volume.set_role("primary");
  volume.set_write_quorum(2);
  for (const char* node : {"n1", "n2", "n3"}) {
    auto& member = *volume.add_members();
    member.set_node(node);
    member.set_counted(true);
    member.set_connected(true);
  }
  volume.mutable_members(0)->set_self(true);
  return volume;
}

// "CODE subject", sorted.
std::vector<std::string> linesOf(const control::VolumeStatus& volume) {
  control::NodeStatus status;
  volumeHealth(volume, status);
  std::vector<std::string> lines;
  for (const auto& line : status.health()) {
    lines.push_back(line.code() + " " + line.subject());
    EXPECT_NE(line.message().find("Volume v"), std::string::npos) << line.message();
    EXPECT_TRUE(line.severity() == "error" || line.severity() == "warning");
    EXPECT_EQ(line.message().back(), '.') << line.message();
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

using Lines = std::vector<std::string>;

TEST(Health, NothingIsSaidWhileAllIsWell) {
  EXPECT_EQ(linesOf(threeMembers()), Lines{});
  auto standby = threeMembers();
  standby.set_role("standby");
  standby.mutable_members(2)->set_connected(false);   // the primary says so
  EXPECT_EQ(linesOf(standby), Lines{});
}

TEST(Health, AMemberThatIsNotThere) {
  auto volume = threeMembers();
  volume.mutable_members(2)->set_connected(false);
  EXPECT_EQ(linesOf(volume), Lines{"MEMBER_MISSING v/n3"});
  volume.mutable_members(1)->set_connected(false);
  EXPECT_EQ(linesOf(volume), (Lines{"MEMBER_MISSING v/n2", "MEMBER_MISSING v/n3", "NO_QUORUM v"}));
}

TEST(Health, AnAsyncStandbyThatIsAwayIsNotCounted) {
  auto volume = threeMembers();
  volume.mutable_members(2)->set_counted(false);
  volume.mutable_members(2)->set_connected(false);
  EXPECT_EQ(linesOf(volume), Lines{});
}

TEST(Health, ThePairThatIsOne) {
  auto volume = threeMembers();
  volume.mutable_members()->RemoveLast();
  volume.set_pair(true);
  EXPECT_EQ(linesOf(volume), Lines{});
  volume.mutable_members(1)->set_counted(false);
  volume.mutable_members(1)->set_joining(true);
  volume.set_write_quorum(1);
  EXPECT_EQ(linesOf(volume), Lines{"NO_REDUNDANCY v"});
}

TEST(Health, AMemberThatSlowsDownTheOthers) {
  auto volume = threeMembers();
  volume.mutable_brake()->set_member("n3");
  EXPECT_EQ(linesOf(volume), Lines{"MEMBER_LAGS v"});
}

TEST(Health, WhatIsWrongHereIsSaidWhateverTheRole) {
  for (const char* role : {"primary", "standby", "none"}) {
    auto volume = threeMembers();
    volume.set_role(role);
    volume.set_problem("the journal is damaged.");
    volume.mutable_transfer()->set_source("n1");
    EXPECT_EQ(linesOf(volume), (Lines{"STATE_TRANSFER v", "VOLUME_UNAVAILABLE v"}));
    volume.set_repairing(true);  // that says it all
    volume.mutable_repair()->set_step("it fetches a checkpoint");
    EXPECT_EQ(linesOf(volume), (Lines{"VOLUME_REPAIRING v"}));
  }
}

TEST(Health, DataThatGoes) {
  control::RemovalStatus removal;
  removal.set_name("v");
  removal.set_left_ms(90'000);
  control::NodeStatus status;
  status.set_node("n3");
  removalHealth(removal, status);
  ASSERT_EQ(status.health_size(), 1);
  EXPECT_EQ(status.health(0).code(), "REMOVED_DATA");
  EXPECT_EQ(status.health(0).severity(), "warning");
  EXPECT_NE(status.health(0).message().find("in 90 s"), std::string::npos);
  EXPECT_NE(status.health(0).message().find("volume add-member v n3"), std::string::npos);
  removal.set_problem("the disk does not answer");
  removalHealth(removal, status);
  ASSERT_EQ(status.health_size(), 2);
  EXPECT_EQ(status.health(1).severity(), "error");
  // A deleted volume's data goes at once, and nobody need do anything.
  removal.set_problem("");
  removal.set_deleted(true);
  removalHealth(removal, status);
  EXPECT_EQ(status.health_size(), 2);
}

TEST(Health, AFileSystemThatCanLess) {
  control::NodeStatus status;
  diskHealth(nullptr, status);
  EXPECT_EQ(status.health_size(), 0);
  diskHealth(kj::arr(kj::str("It cannot do this."), kj::str("Nor that.")), status);
  ASSERT_EQ(status.health_size(), 1);
  EXPECT_EQ(status.health(0).code(), "DISK_LIMITED");
  EXPECT_EQ(status.health(0).message().find("It cannot do this. Nor that. Put"), 0u)
      << status.health(0).message();
}

TEST(Health, ADiskThatIsShortOfRoom) {
  replicator::RoomStatus room;
  room.availableBytes = 12u << 20;
  room.reserveBytes = 256u << 20;
  control::NodeStatus status;
  status.set_data("/var/lib/packmoor");
  roomHealth(room, status);
  EXPECT_EQ(status.health_size(), 0);
  room.isShort = true;
  roomHealth(room, status);
  ASSERT_EQ(status.health_size(), 1);
  EXPECT_EQ(status.health(0).code(), "DISK_FULL");
  EXPECT_EQ(status.health(0).severity(), "error");
  EXPECT_NE(status.health(0).message().find("/var/lib/packmoor has 12 MiB left, and 256 MiB are to be kept free"),
            std::string::npos) << status.health(0).message();
  EXPECT_NE(status.health(0).message().find("Make room"), std::string::npos);
}

TEST(Health, MaintenanceThatFailsAgainAndAgain) {
  control::MaintenanceStatus maintenance;
  control::NodeStatus status;
  auto& lane = *maintenance.mutable_repacking();
  lane.set_failures(2);
  lane.set_last_error("The pack 7 is damaged at offset 12.");
  maintenanceHealth(maintenance, status);
  EXPECT_EQ(status.health_size(), 0) << "the lead may have moved";
  lane.set_failures(3);
  maintenanceHealth(maintenance, status);
  ASSERT_EQ(status.health_size(), 1);
  EXPECT_EQ(status.health(0).code(), "MAINTENANCE_FAILS");
  EXPECT_EQ(status.health(0).severity(), "warning");
  EXPECT_EQ(status.health(0).subject(), "repacking");
  EXPECT_NE(status.health(0).message().find("3 times in a row: The pack 7 is damaged at offset 12."),
            std::string::npos);
}

}  // namespace
}  // namespace packmoor::rpc
