// Turns what the parts of a node say about themselves into the control protocol's messages.
#pragma once

#include "rpc/node_control.h"

#include <kernelio/co.h>
#include <rpc/control.pb.h>

namespace packmoor::rpc {

// All of this node's status but the space on its disk. Reads memory only.
void fillNodeStatus(const NodeView& view, control::NodeStatus& status);
void fillVolume(const replicator::VolumeStatus& from, control::VolumeStatus& to);
void fillLoss(const replicator::AcceptedLoss& from, control::AcceptedLoss& to);
// What the coordinator has of a volume that is not open here.
void fillVolumeRecord(const replicator::VolumeRecord& from, control::VolumeStatus& to);
// What is left on the disk; the one part of a status that is waited for.
Co<void> fillSpace(const NodeView& view, control::NodeStatus& status);
kj::StringPtr phaseText(replicator::VolumePhase phase);

}  // namespace packmoor::rpc
