// GitSocketServer: git over ssh, as packmoor-shell brings it to the node's git socket.
//
// Why: sshd authenticates and runs packmoor-shell as the forced command; that connects here, says who
// wants what (schema/git_socket.proto), and carries git's bytes both ways. The socket is for root, the
// daemon's own user and, when configured, the members of one group (SO_PEERCRED): whoever may use it is
// believed about the user's name.
//
// Limits: connectionsMax, and connectionsPerUserMax of one user; a request within kGitSocketOpenMs; a client or an answer without progress
// for silentMs ends its connection. Loop: the node's. The front outlives the server.
#pragma once

#include <gitlayer/git_front.h>

#include <kj/async-io.h>
#include <kj/timer.h>

#include <string>

namespace packmoor::rpc {

constexpr int64_t kGitSocketOpenMs = 10'000;
constexpr uint32_t kGitSocketVersion = 1;

struct GitSocketOptions {
  std::string socket;                // a path
  std::string group;                 // whose members may use it; empty: root and the daemon's user
  uint64_t connectionsMax = 256;
  uint64_t connectionsPerUserMax = 128;
  uint64_t bodyRateMin = 100;        // bytes per second of waiting for a client; 0: none
  int64_t silentMs = 600'000;        // a client may take long to compress what it pushes
  uint64_t fetchBytesMax = 64ull << 20;   // of all that is asked on one connection
  uint64_t pushBytesMax = (16ull << 30) + (256ull << 20);
};

struct GitSocketStatistics {
  uint64_t connections = 0;          // open now
  uint64_t requests = 0, refused = 0;
};

class GitSocketServer {
 public:
  // Binds the socket. Rejects with a sentence as ControlServer::open() does.
  static kj::Own<GitSocketServer> open(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer,
                                       gitlayer::GitFront& front, GitSocketOptions options,
                                       kj::UnixEventPort* events = nullptr);
  virtual ~GitSocketServer() noexcept(false) {}   // removes the socket file
  // Serves until dropped.
  virtual kj::Promise<void> run() = 0;
  // Takes no more; resolves when no request is left.
  virtual kj::Promise<void> drain() = 0;
  virtual GitSocketStatistics statistics() = 0;
};

}  // namespace packmoor::rpc
