// EtcdCoordinator: replicator::Coordinator over etcd 3.4 and newer, through its JSON gateway.
//
// Why: etcd decides who may lead. Reads are linearizable ranges, a compare-and-swap is a
// transaction on mod_revision, and a watch tells of changes; a slow poll stands behind the watch.
// Keys and values: etcd_records.h.
//
// Endpoints are tried in turn, beginning with the one that answered last; all belong to one etcd
// cluster, and an endpoint that reports another cluster id is refused. A read is tried once at each
// endpoint. A compare-and-swap is first read (which finds an endpoint that works, and a revision
// that has moved) and then sent once: when that fails, the result is unknown and the promise
// rejects. Every rejection is a sentence that names the endpoint and the cause.
//
// Loop: the node's. What the options refer to outlives it.
#pragma once

#include "rpc/notice.h"

#include <replicator/coordinator.h>

#include <kj/async-io.h>
#include <kj/timer.h>

#include <string>
#include <vector>

namespace packmoor::rpc {

constexpr int64_t kEtcdPollMs = 10'000;            // behind the watch
constexpr int64_t kEtcdRetryMinMs = 100;           // of a watch that broke
constexpr int64_t kEtcdRetryMaxMs = 5'000;
constexpr size_t kEtcdAnswerBytesMax = 32u << 20;  // of one answer or one watch event

struct EtcdOptions {
  kj::Timer& timer;
  kj::Network& network;
  std::vector<std::string> endpoints;  // "http://host:port", at least one
  std::string cluster;                 // [a-z0-9][a-z0-9-]{0,62}
  std::string prefix = "/packmoor";
  int64_t requestTimeoutMs = 3'000;    // at one endpoint
  NoticeSink notices;
};

// What the answers said about etcd itself. Zero before the first answer.
struct EtcdIdentity {
  uint64_t clusterId = 0;
  int64_t revision = 0;                // the highest that was seen
};

class EtcdCoordinator : public replicator::Coordinator {
 public:
  // Throws a sentence when the options cannot be right; connects to nothing yet.
  static kj::Own<EtcdCoordinator> create(EtcdOptions options);

  virtual EtcdIdentity identity() = 0;
  virtual std::string endpoint() = 0;  // the one that answered last
  virtual std::string problem() = 0;   // empty, or why the last request failed
};

}  // namespace packmoor::rpc
