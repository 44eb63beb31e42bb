// The scrubber on the control socket: its requests, and what a node's status says of it.
#pragma once

#include "rpc/node_control.h"

#include <kernelio/co.h>
#include <rpc/control.pb.h>

namespace packmoor::rpc {

void fillScrub(const replicator::ScrubStatus& from, int64_t intervalMs, control::ScrubStatus& to);

// The reply is the status as it is then.
Co<void> scrubStatus(const NodeView& view, control::Response& response);
// Answers when what was ordered is durable.
Co<void> scrubChange(const NodeView& view, control::ScrubChangeRequest request,
                     control::Response& response);

}  // namespace packmoor::rpc
