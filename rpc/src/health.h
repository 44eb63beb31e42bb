// What is not well, as codes that stay and sentences that may change.
//
// Why: programs watch codes, people read sentences. A sentence says what happened, to what, and what to
// do where that is not plain. Each line has a subject, so that who follows the lines can tell two of a
// code apart (HealthLog). Pure: from one message to another.
#pragma once

#include <replicator/replicator.h>
#include <rpc/control.pb.h>

#include <string>

namespace packmoor::rpc {

void addHealth(control::NodeStatus& status, std::string code, std::string severity,
               std::string message, std::string subject = {});

// VOLUME_UNAVAILABLE, STATE_TRANSFER, MEMBER_LAGS, MEMBER_MISSING, NO_REDUNDANCY, NO_QUORUM, DATA_LOST,
// MEMBER_DIVERGED, NO_CONSENT, and repairHealth(): of a volume as this node sees it.
void volumeHealth(const control::VolumeStatus& volume, control::NodeStatus& status);
// DISK_LIMITED: the file system of the data directory lacks what is wanted of it.
void diskHealth(kj::ArrayPtr<const kj::String> warnings, control::NodeStatus& status);
// DISK_FULL: the disk of the data directory is short of room.
void roomHealth(const replicator::RoomStatus& room, control::NodeStatus& status);
// MAINTENANCE_FAILS: a repository cannot be settled, or its packs not be merged, again and again.
void maintenanceHealth(const control::MaintenanceStatus& maintenance, control::NodeStatus& status);
// REMOVED_DATA: data that goes unless somebody does something, or that cannot go.
void removalHealth(const control::RemovalStatus& removal, control::NodeStatus& status);

}  // namespace packmoor::rpc
