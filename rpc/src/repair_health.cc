#include "repair_health.h"

#include "health.h"

#include <string>

namespace packmoor::rpc {

void blockHealth(const control::ExtentStatus& extents, control::NodeStatus& status) {
  if (extents.blocks_bad() == 0) return;
  const std::string found = "Blocks of packs on this node's disk failed their checksum: " +
                            std::to_string(extents.blocks_bad()) + ". ";
  if (extents.blocks_standing() == 0) {
    addHealth(status, "BAD_BLOCKS", "warning",
        found + "All are repaired from other members. Look after the disk: it may do so again.");
    return;
  }
  addHealth(status, "BAD_BLOCKS", "error",
      found + "Repaired from other members: " + std::to_string(extents.blocks_repaired()) +
          ". Still damaged: " + std::to_string(extents.blocks_standing()) +
          ". They are repaired when they are read and a member that has them is connected; "
          "`packmoorctl scrub start` reads them.");
}

void repairHealth(const control::VolumeStatus& volume, control::NodeStatus& status) {
  if (!volume.repairing()) return;
  const control::RepairStatus& repair = volume.repair();
  std::string message = "Volume " + volume.name() + " is damaged on this node: " + repair.damage() +
                        ". ";
  if (repair.stuck()) {
    message += repair.step().empty()
                   ? "Nothing mends it by itself: remove this node from the volume and add it again "
                     "with an empty data directory."
                   : "It is not being repaired: " + repair.step() + ".";
    addHealth(status, "VOLUME_DAMAGED", "error", std::move(message), volume.name());
    return;
  }
  message += "It is being repaired: " + repair.step();
  if (repair.target() > 0) {
    message += " (up to record " + std::to_string(repair.reached()) + " of " +
               std::to_string(repair.target()) + ")";
  }
  if (volume.has_transfer()) {
    const control::TransferStatus& transfer = volume.transfer();
    message += " (" + transfer.phase() + ", " +
               std::to_string(transfer.file_bytes_done() + transfer.extent_bytes_done()) + " of " +
               std::to_string(transfer.file_bytes() + transfer.extent_bytes()) + " bytes)";
  }
  addHealth(status, "VOLUME_REPAIRING", "warning", std::move(message) + ". This node does not lead until then.",
            volume.name());
}

void scrubHealth(const control::ScrubStatus& scrub, int64_t nowMs, control::NodeStatus& status) {
  uint64_t standing = 0, mended = 0;
  std::string stands, was;
  for (const control::ScrubFinding& finding : scrub.findings()) {
    if (finding.mended_ms() > 0) {
      if (mended++ == 0) was = finding.what();
    } else if (standing++ == 0) {
      stands = finding.what();
      if (!finding.problem().empty()) stands += " It is not mended yet: " + finding.problem() + ".";
    }
  }
  if (standing > 0) {
    addHealth(status, "SCRUB_ERRORS", "error",
        "The scrubber found damage on this node's disk that is not mended, in " +
            std::to_string(standing) + (standing == 1 ? " place. " : " places; the first: ") + stands +
            " It is tried again by itself. See `packmoorctl scrub status`, bring back members that "
            "are away, and replace the disk.");
  }
  if (mended > 0) {
    addHealth(status, "SCRUB_REPAIRED", "warning",
        "The scrubber found damage on this node's disk and mended it, in " +
            std::to_string(mended) + (mended == 1 ? " place: " : " places; the first: ") + was +
            " Look after the disk; `packmoorctl scrub acknowledge` ends this note.");
  }
  const int64_t interval = static_cast<int64_t>(scrub.interval_ms());
  const int64_t since = scrub.last_pass_ms() > 0 ? scrub.last_pass_ms() : scrub.since_ms();
  if (interval > 0 && nowMs - since > 2 * interval) {
    addHealth(status, "SCRUB_OVERDUE", "warning",
        std::string("Nothing has read all of this node's disk for more than twice the interval set "
                    "for that. ") +
            (scrub.paused() ? "The scrubber is paused: `packmoorctl scrub resume`."
             : !scrub.waits().empty()
                 ? "The scrubber does not get on: " + scrub.waits() + "."
                 : "Let replication.scrub_rate be higher, or the interval longer."));
  }
}

}  // namespace packmoor::rpc
