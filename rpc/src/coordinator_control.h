// `packmoorctl coordinator`: what this node knows of etcd, and the acceptance of an etcd with another
// past (DESIGN rule 18). See coordinator_reseed.h for what is then written.
#pragma once

#include <rpc/node_control.h>

#include <kernelio/co.h>

namespace packmoor::control {
class CoordinatorAcceptRequest;
}

namespace packmoor::rpc {

constexpr int64_t kKnowledgeTimeoutMs = 5'000;   // of one other node

Co<void> coordinatorStatus(const NodeView& view, control::Response& response);
// Answers when the acceptance is durable on this node; the others follow by the marker in etcd.
Co<void> coordinatorAccept(const NodeView& view, const control::CoordinatorAcceptRequest& request,
                           ControlCaller caller, control::Response& response);
// The answer to kCoordinatorQuery: a serialized control::CoordinatorKnowledge.
std::string coordinatorKnowledge(const NodeView& view);

}  // namespace packmoor::rpc
