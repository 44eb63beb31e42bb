#include "repair_health.h"

#include <string>

namespace packmoor::rpc {
namespace {

void add(control::NodeStatus& status, const char* code, bool error, std::string message) {
  control::Health& health = *status.add_health();
  health.set_code(code);
  health.set_severity(error ? "error" : "warning");
  health.set_message(std::move(message));
}

}  // namespace

void blockHealth(const control::ExtentStatus& extents, control::NodeStatus& status) {
  if (extents.blocks_bad() == 0) return;
  const std::string found = "Blocks of packs on this node's disk failed their checksum: " +
                            std::to_string(extents.blocks_bad()) + ". ";
  if (extents.blocks_standing() == 0) {
    add(status, "BAD_BLOCKS", false,
        found + "All are repaired from other members. Look after the disk: it may do so again.");
    return;
  }
  add(status, "BAD_BLOCKS", true,
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
    add(status, "VOLUME_DAMAGED", true, std::move(message));
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
  add(status, "VOLUME_REPAIRING", false, std::move(message) + ". This node does not lead until then.");
}

}  // namespace packmoor::rpc
