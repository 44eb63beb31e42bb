// NodeControl: answers the control socket's requests from the parts of a node.
//
// Why: an operator asks most when a node is not well. So every part may be missing: the daemon
// fills NodeView in as it starts, and NodeControl answers with what is there. `status` reads only
// what is in memory and never waits for a quorum or the coordinator; asked for the cluster, it
// also asks the other nodes, each for at most kOtherNodeTimeoutMs.
//
// The same object answers other nodes' questions for this node's status (answerNode, the
// replicator's NodeQuery).
//
// Loop: the node's. The parts outlive it or are taken out before they go.
#pragma once

#include "rpc/config.h"
#include "rpc/control_server.h"
#include "rpc/etcd_coordinator.h"
#include "rpc/git_http.h"

#include <gitlayer/git_node.h>
#include <kernelio/env.h>
#include <replicator/replicator.h>
#include <replicator/scrubber.h>

#include <functional>
#include <map>

namespace packmoor::control {
class NodeStatus;
}

namespace packmoor::rpc {

constexpr int64_t kOtherNodeTimeoutMs = 500;
// The names of the questions to a node.
constexpr kj::StringPtr kStatusQuery = "node-status"_kj;
constexpr kj::StringPtr kCoordinatorQuery = "coordinator-knowledge"_kj;
constexpr kj::StringPtr kControlQuery = "control"_kj;

enum class NodePhase : uint8_t { kStarting, kServing, kStopping };

struct HealthNote {
  std::string severity;      // "warning" or "error"
  std::string message;
};

// Null where it does not exist (yet).
struct NodeView {
  const NodeConfig* config = nullptr;
  std::string version;
  int64_t startedAtMs = 0;
  NodePhase phase = NodePhase::kStarting;
  kernelio::Env* env = nullptr;
  std::function<uint64_t()> residentBytes;
  std::string httpAddress, rpcAddress;     // as bound
  replicator::Journal* journal = nullptr;
  replicator::ExtentStore* extents = nullptr;
  replicator::Coordinator* coordinator = nullptr;
  EtcdCoordinator* etcd = nullptr;         // the coordinator, where it is etcd
  replicator::Peers* peers = nullptr;
  replicator::Replicator* replicator = nullptr;
  replicator::Scrubber* scrubber = nullptr;
  gitlayer::GitNode* git = nullptr;
  gitlayer::GitFront* front = nullptr;
  GitHttpServer* http = nullptr;
  NoticeSink audit;                        // what operators order that cannot be undone
  std::map<std::string, HealthNote> health;  // by code: what the daemon itself found
};

// What is not well, as in the status.
struct HealthLine {
  std::string code, subject, severity, message;
};

class NodeControl : public ControlHandler {
 public:
  static kj::Own<NodeControl> create(const NodeView& view);

  // Reads memory only.
  virtual std::vector<HealthLine> health() = 0;

  // Answers another node: kStatusQuery with a serialized control::NodeStatus, kCoordinatorQuery
  // with a control::CoordinatorKnowledge, and kControlQuery, a control::Request that is for the primary
  // of a volume, with a control::Response.
  virtual kj::Promise<kj::Array<kj::byte>> answerNode(std::string name,
                                                      kj::Array<const kj::byte> question) = 0;
};

}  // namespace packmoor::rpc
