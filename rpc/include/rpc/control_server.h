// ControlServer: the daemon's end of the control socket.
//
// Why: a node must be administered when it has no quorum, no coordinator and no network, by the
// people of its own machine. Two unix sockets carry the protocol of schema/control.proto: the
// admin socket takes every request from root, the daemon's own user and, when configured, the
// members of one group; the status socket takes read-only requests from everybody. Who is at the
// other end is asked from the kernel (SO_PEERCRED), not from the client.
//
// The server knows the wire, the rights and the deadlines; a ControlHandler answers. Requests of
// one connection are answered one after the other, connections side by side.
// Limits: kControlRequestBytesMax, kControlConnectionsMax; a client that sends nothing for
// kControlIdleMs is closed. Loop: the node's.
#pragma once

#include <kj/async-io.h>
#include <kj/memory.h>
#include <kj/timer.h>

#include <string>

namespace packmoor::control {
class Request;
class Response;
}  // namespace packmoor::control

namespace packmoor::rpc {

constexpr size_t kControlRequestBytesMax = 1u << 20;
constexpr size_t kControlReplyBytesMax = 64u << 20;
constexpr size_t kControlConnectionsMax = 64;
constexpr int64_t kControlIdleMs = 300'000;
constexpr uint32_t kControlDeadlineMsDefault = 60'000;
constexpr uint32_t kControlVersion = 1;

struct ControlCaller {
  bool readOnly = true;      // the status socket
  uint32_t uid = 0, pid = 0;
};

class ControlHandler {
 public:
  virtual ~ControlHandler() noexcept(false) {}
  // Answers a request. What it returns has a body or an error; the id is set by the server. A
  // rejected promise becomes an error with the exception's description. `request` lives until
  // the promise resolves; dropping it (deadline, client gone) abandons the waiting, and what was
  // ordered may still happen.
  virtual kj::Promise<void> handle(const control::Request& request, const ControlCaller& caller,
                                   control::Response& response) = 0;
};

struct ControlOptions {
  std::string node, cluster, software;   // for the hello
  std::string adminSocket, statusSocket;
  std::string group;                     // empty: none
};

class ControlServer {
 public:
  // Binds both sockets. Rejects with a sentence when a path is too long, in use by a living
  // process, or may not be created. A socket file that nobody listens on is replaced.
  static kj::Own<ControlServer> open(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer,
                                     ControlHandler& handler, ControlOptions options);
  virtual ~ControlServer() noexcept(false) {}  // removes the socket files
  // Serves until dropped.
  virtual kj::Promise<void> run() = 0;
};

}  // namespace packmoor::rpc
