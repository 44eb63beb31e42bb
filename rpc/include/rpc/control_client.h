// ControlClient: a program's end of the control socket. Blocking, for command-line tools.
//
// One connection; call() sends a request and waits for its answer. Failures of the connection
// are ControlFailure with a sentence, the cause and what to try; refusals of the daemon arrive
// as the error in the response.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace packmoor::control {
class Hello;
class Request;
class Response;
}  // namespace packmoor::control

namespace packmoor::rpc {

struct ControlFailure : std::runtime_error {
  ControlFailure(bool sent, std::string message, std::string cause, std::string advice)
      : std::runtime_error(message), sent(sent), cause(std::move(cause)),
        advice(std::move(advice)) {}
  bool sent;                 // a request was on its way: its outcome is unknown
  bool denied = false;       // the socket may not be used by this user
  std::string cause, advice;
};

class ControlClient {
 public:
  // Connects and exchanges hellos. `software` is for the daemon's log.
  ControlClient(const std::string& path, const std::string& software);
  ~ControlClient();
  ControlClient(ControlClient&&) noexcept;

  const control::Hello& daemon() const;
  // Waits for at most `timeoutMs` and a little more than the request's own deadline, which is
  // set to it.
  void call(control::Request& request, control::Response& response, uint32_t timeoutMs);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace packmoor::rpc
