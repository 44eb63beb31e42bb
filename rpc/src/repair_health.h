// Health codes of damage on this node's disk, and of its repair.
//
// Each says what was found, in what, what is done about it, and what is to be done by hand. Error:
// something is damaged and nothing mends it; warning: it is mended, or has been.
#pragma once

#include <rpc/control.pb.h>

namespace packmoor::rpc {

// BAD_BLOCKS
void blockHealth(const control::ExtentStatus& extents, control::NodeStatus& status);
// VOLUME_REPAIRING, VOLUME_DAMAGED
void repairHealth(const control::VolumeStatus& volume, control::NodeStatus& status);
// SCRUB_ERRORS: what the scrubber found and nothing has mended. SCRUB_REPAIRED: what was, until it is
// acknowledged or a day has passed. SCRUB_OVERDUE: no pass was completed for twice the interval.
void scrubHealth(const control::ScrubStatus& scrub, int64_t nowMs, control::NodeStatus& status);

}  // namespace packmoor::rpc
