// GitHttpServer: git's smart HTTP protocol (gitprotocol-http(5)) over a GitFront.
//
//   GET  /REPO[.git]/info/refs?service=git-upload-pack|git-receive-pack
//   POST /REPO[.git]/git-upload-pack | /REPO[.git]/git-receive-pack
//   GET  /health    "ok" or why not, for load balancers
//
// Why its own accept loop and limits: KJ's server has no bound on connections, bodies or their
// time. Here a connection over the limits, of all and of one address, is answered 503 or 429 and closed; a
// body or an answer without progress ends its connection, and so does a body that is too slow; a compressed body is inflated as a stream up to a bound; what is
// not HTTP ends its own connection only. What is refused is answered with one sentence of plain
// text, which git shows to its user.
//
// Small writes of a connection are joined until the end of the loop's turn, so that an answer
// of a few hundred bytes is one packet.
//
// Loop: the node's. The front outlives the server. Dropping the server ends all connections.
#pragma once

#include <gitlayer/git_front.h>

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/timer.h>

namespace packmoor::rpc {

struct GitHttpOptions {
  uint64_t connectionsMax = 1024;
  uint64_t connectionsPerClientMax = 512;          // from one address
  int64_t headerTimeoutMs = 15'000;
  int64_t idleTimeoutMs = 75'000;
  int64_t stallTimeoutMs = 60'000;
  uint64_t bodyRateMin = 100;                      // bytes per second of waiting; 0: none
  uint64_t fetchBodyBytesMax = 64ull << 20;        // inflated
  uint64_t pushBodyBytesMax = (16ull << 30) + (256ull << 20);
};

struct GitHttpStatistics {
  uint64_t connections = 0;          // open now
  uint64_t connectionsRefused = 0;   // over the limit, since the start
  uint64_t requests = 0, failures = 0;
};

class GitHttpServer {
 public:
  // `events`: the loop's, for large answers that lie in files; without it they are copied.
  static kj::Own<GitHttpServer> create(kj::Timer& timer, gitlayer::GitFront& front,
                                       GitHttpOptions options, kj::UnixEventPort* events = nullptr);
  virtual ~GitHttpServer() noexcept(false) {}

  // Serves what arrives at the port until dropped; connections go on without it.
  virtual kj::Promise<void> serve(kj::Own<kj::ConnectionReceiver> port) = 0;
  // Lets requests end and takes no more; resolves when none is left.
  virtual kj::Promise<void> drain() = 0;
  // What /health answers: empty for "ok", else a sentence with status 503.
  virtual void setHealth(std::string problem) = 0;
  virtual GitHttpStatistics statistics() = 0;
};

}  // namespace packmoor::rpc
