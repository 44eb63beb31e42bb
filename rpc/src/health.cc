#include "health.h"

#include "repair_health.h"

#include <ctime>

namespace packmoor::rpc {
namespace {

std::string joined(const google::protobuf::RepeatedPtrField<std::string>& nodes) {
  std::string text;
  for (const std::string& node : nodes) text += (text.empty() ? "" : ", ") + node;
  return text;
}

std::string timeOf(int64_t milliseconds) {
  const time_t seconds = milliseconds / 1000;
  struct tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[40];
  strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

// Loss that cannot be repaired (DESIGN rule 19).
void lossHealth(const control::VolumeStatus& volume, control::NodeStatus& status) {
  for (const control::AcceptedLoss& loss : volume.losses()) {
    if (loss.acknowledged()) continue;
    addHealth(status, "DATA_LOST", "error",
              "Volume " + volume.name() + ": at " + timeOf(loss.at_ms()) + " " + loss.by() +
                  " accepted that it goes on from record " + std::to_string(loss.adopted()) +
                  " without what only " + joined(loss.ignored()) + " held. " + loss.what() +
                  " Once those concerned are told: `packmoorctl volume acknowledge-loss " +
                  volume.name() + "`.", volume.name() + "/" + std::to_string(loss.epoch()));
  }
  if (!volume.diverged().empty()) {
    addHealth(status, "MEMBER_DIVERGED", "error",
              "Volume " + volume.name() + ": " + volume.diverged() + ".", volume.name());
  }
  if (!volume.no_consent().empty()) {
    addHealth(status, "NO_CONSENT", "error",
              "Volume " + volume.name() + ": " + volume.no_consent() + ".", volume.name());
  }
}

constexpr uint32_t kMaintenanceFailuresShown = 3;   // one may be a change of the lead

}  // namespace

void addHealth(control::NodeStatus& status, std::string code, std::string severity,
               std::string message, std::string subject) {
  control::Health& health = *status.add_health();
  health.set_code(kj::mv(code));
  health.set_severity(kj::mv(severity));
  health.set_message(kj::mv(message));
  health.set_subject(kj::mv(subject));
}

void volumeHealth(const control::VolumeStatus& volume, control::NodeStatus& status) {
  repairHealth(volume, status);
  lossHealth(volume, status);
  if (!volume.problem().empty() && volume.problem() != volume.diverged() && !volume.repairing()) {
    addHealth(status, "VOLUME_UNAVAILABLE", "error",
              "Volume " + volume.name() + ": " + volume.problem(), volume.name());
  }
  if (volume.has_transfer() && !volume.repairing()) {
    addHealth(status, "STATE_TRANSFER", "warning",
              "Volume " + volume.name() + ": this node is too far behind for the log and fetches a "
              "checkpoint from " + volume.transfer().source() + "; it is not counted until it has it.",
              volume.name());
  }
  if (volume.has_brake()) {
    addHealth(status, "MEMBER_LAGS", "warning",
              "Volume " + volume.name() + ": pushes are slowed down until member " +
                  volume.brake().member() + " is nearer.", volume.name());
  }
  if (volume.role() != "primary") return;
  uint32_t reachable = 0, counted = 0;
  for (const control::MemberStatus& member : volume.members()) {
    if (!member.counted()) continue;
    ++counted;
    if (member.self() || member.connected()) {
      ++reachable;
    } else {
      addHealth(status, "MEMBER_MISSING", "warning",
                "Volume " + volume.name() + ": member " + member.node() + " is not connected.",
                volume.name() + "/" + member.node());
    }
  }
  if (volume.pair() && counted == 1) {
    addHealth(status, "NO_REDUNDANCY", "error",
              "Volume " + volume.name() + ": the other node of the pair is lost or behind, and what "
              "is pushed now is on this node only. Bring it back; it is counted again by itself.",
              volume.name());
  }
  if (reachable < volume.write_quorum()) {
    addHealth(status, "NO_QUORUM", "error",
              "Volume " + volume.name() + " commits nothing: " + std::to_string(reachable) +
                  " of " + std::to_string(counted) + " members are connected, and " +
                  std::to_string(volume.write_quorum()) + " are needed.", volume.name());
  }
}

void diskHealth(kj::ArrayPtr<const kj::String> warnings, control::NodeStatus& status) {
  if (warnings.size() == 0) return;
  std::string message = kj::strArray(warnings, " ").cStr();
  addHealth(status, "DISK_LIMITED", "warning",
            message + " Put the data directory on a local file system like ext4 or XFS.");
}

void roomHealth(const replicator::RoomStatus& room, control::NodeStatus& status) {
  if (!room.isShort) return;
  addHealth(status, "DISK_FULL", "error",
            "The disk of this node's data directory " + status.data() + " has " +
                std::to_string(room.availableBytes >> 20) + " MiB left, and " +
                std::to_string(room.reserveBytes >> 20) + " MiB are to be kept free "
                "(replication.disk_reserve). This node gives its leads to members that have room, and takes "
                "none while there are such; when nothing is left, what is pushed here fails. Make room, or "
                "move its data directory to a larger disk.");
}

void maintenanceHealth(const control::MaintenanceStatus& maintenance, control::NodeStatus& status) {
  const auto tell = [&](const control::MaintenanceStatus::Lane& lane, const char* what,
                        const char* subject) {
    if (lane.failures() < kMaintenanceFailuresShown) return;
    addHealth(status, "MAINTENANCE_FAILS", "warning",
              std::string("On this node ") + what + " failed " + std::to_string(lane.failures()) +
                  " times in a row: " + lane.last_error() +
                  " It is tried again by and by; pushes and fetches are served meanwhile.",
              subject);
  };
  tell(maintenance.settling(), "the settling of a repository's small objects into a pack",
       "settling");
  tell(maintenance.repacking(), "the merging of a repository's packs", "repacking");
  tell(maintenance.dropping(), "the dropping of a repository that was deleted", "dropping");
}

void removalHealth(const control::RemovalStatus& removal, control::NodeStatus& status) {
  const std::string volume = "Volume " + removal.name() + ": ";
  if (!removal.problem().empty()) {
    addHealth(status, "REMOVED_DATA", "error",
              volume + "what this node has of it is to be removed and cannot be: " + removal.problem() +
                  ". It is tried again.", removal.name());
  } else if (!removal.deleted()) {
    const std::string when =
        removal.discarding() ? "now."
                             : "in " + std::to_string(removal.left_ms() / 1000) + " s. To keep it, add the "
                               "node again: `packmoorctl volume add-member " + removal.name() + " " +
                                   status.node() + "`.";
    addHealth(status, "REMOVED_DATA", "warning",
              volume + "this node is no member any more, and removes its data " + when, removal.name());
  }
}

}  // namespace packmoor::rpc
