// EtcdCoordinator: replicator::Coordinator over etcd 3.4 and newer, through its JSON gateway.
//
// Why: etcd decides who may lead. Reads are linearizable ranges, a compare-and-swap is a
// transaction on mod_revision, and a watch tells of changes; a slow poll stands behind the watch.
// Keys and values: etcd_records.h.
//
// Endpoints are tried in turn, beginning with the one that answered last, each with a deadline; all
// belong to one etcd cluster, and an endpoint that reports another cluster id is refused. A read is
// tried once at each endpoint. A compare-and-swap is first read (which finds an endpoint that works,
// and a revision that has moved) and then sent once: when that fails, the result is unknown and the
// promise rejects. Every rejection is a sentence that names the endpoint and the cause. A watch
// carries no revision to begin at: whenever one begins, everything is read again, so that
// compaction is never in its way.
//
// With https the server is verified by the authority in `tls`, under the name in the URL, or
// `serverName` where the URL holds an address. With a user, a token is got with the password and
// renewed when etcd does not know it any more. Neither is ever part of a sentence.
//
// Rule 18: what is known of etcd is kept in a file (etcd_memory.h). While doubt() says that etcd
// has a different past, everything but survey() and accept() rejects with that sentence, except
// remembered() and rememberedNodes(), which also serve while etcd is away.
//
// Loop: the node's. What the options refer to outlives it.
#pragma once

#include "rpc/etcd_memory.h"
#include "rpc/notice.h"

#include <replicator/coordinator.h>

#include <kernelio/disk.h>

#include <kj/async-io.h>
#include <kj/timer.h>

#include <functional>
#include <string>
#include <vector>

namespace packmoor::rpc {

class TlsMaterial;

constexpr int64_t kEtcdPollMs = 10'000;            // behind the watch
constexpr int64_t kEtcdAwayPollMs = 1'000;         // while etcd is away or in doubt
constexpr int64_t kEtcdRetryMinMs = 100;           // of a watch that broke
constexpr int64_t kEtcdRetryMaxMs = 5'000;
constexpr size_t kEtcdAnswerBytesMax = 32u << 20;  // of one answer or one watch event

struct EtcdOptions {
  kj::Timer& timer;
  kj::Network& network;
  std::vector<std::string> endpoints;  // "http://host:port" or "https://host:port", at least one
  std::string cluster;                 // [a-z0-9][a-z0-9-]{0,62}
  std::string prefix = "/packmoor";
  int64_t requestTimeoutMs = 3'000;    // at one endpoint
  NoticeSink notices;
  std::string node = {};               // this node's id
  kernelio::Disk* disk = nullptr;      // where what is known is kept; null: nowhere
  std::string file = "coordinator-known";
  TlsMaterial* tls = nullptr;          // for https
  std::string serverName = {};         // in etcd's certificates; empty: the host of the URL
  std::string user = {};               // empty: no authentication
  std::function<std::string()> password = {};   // asked at each authentication; may throw a sentence
};

// What the answers said about etcd itself. Zero before the first answer.
struct EtcdIdentity {
  uint64_t clusterId = 0;
  int64_t revision = 0;                // the highest that was seen
};

// Etcd as it answers now, trusted or not.
struct EtcdSurvey {
  EtcdIdentity now;
  std::vector<replicator::VolumeRecord> volumes;
};

struct EtcdAcceptance {
  EtcdSurvey survey;                               // etcd must still be so
  std::vector<replicator::VolumeRecord> volumes;   // to be written; revisions as the survey has them
  EtcdPastMarker marker;
};

class EtcdCoordinator : public replicator::Coordinator {
 public:
  // Throws a sentence when the options cannot be right, or when the file is damaged; connects to
  // nothing yet.
  static kj::Promise<kj::Own<EtcdCoordinator>> open(EtcdOptions options);

  virtual EtcdIdentity identity() = 0;
  virtual std::string endpoint() = 0;  // the one that answered last
  virtual std::string problem() = 0;   // empty, or why the last request failed

  virtual const EtcdMemory& memory() = 0;
  virtual EtcdIdentity seen() = 0;     // of the last answer in doubt
  // Those that registered, as last read; for connections while etcd is away.
  virtual std::vector<replicator::NodeRegistration> rememberedNodes() = 0;

  virtual kj::Promise<EtcdSurvey> survey() = 0;
  // Writes the volumes and the marker, and then takes this etcd for the known one. Resolves when
  // that is durable here; nothing that was asked before is believed or doubted any more.
  virtual kj::Promise<void> accept(EtcdAcceptance acceptance) = 0;
};

}  // namespace packmoor::rpc
