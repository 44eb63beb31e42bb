#include "commands.h"

#include <rpc/config.h>
#include <rpc/control.pb.h>
#include <rpc/control_client.h>

#include <cstdio>

#include <unistd.h>

namespace packmoor::ctl {
namespace {

constexpr const char* kConfigDefault = "/etc/packmoor/packmoord.toml";

std::string absolute(const std::string& path) {
  if (path.empty() || path[0] == '/') return path;
  std::string folder(4096, '\0');
  if (getcwd(folder.data(), folder.size()) == nullptr) return path;
  folder.resize(folder.find('\0'));
  return folder + "/" + path;
}

int exitCodeOf(control::ErrorCode code) {
  switch (code) {
    case control::ERROR_NONE: return kDone;
    case control::ERROR_BAD_REQUEST: return kUsage;
    case control::ERROR_UNREACHABLE: return kUnreachable;
    case control::ERROR_DENIED: return kDenied;
    case control::ERROR_NO_QUORUM: return kNoQuorum;
    case control::ERROR_UNKNOWN_OUTCOME: return kUnknownOutcome;
    default: return kRefused;
  }
}

}  // namespace

std::vector<std::string> Session::sockets(bool reads) const {
  if (!socket.empty()) return {absolute(socket)};
  rpc::NodeConfig paths;
  if (!data.empty()) {
    paths.node.data = absolute(data);
  } else {
    std::string file = config.empty() ? kConfigDefault : config;
    auto result = rpc::readConfig(file);
    if (!result.problems.empty()) {
      throw rpc::ControlFailure(
          false, "The daemon's control socket is not known.",
          rpc::describeProblems(file, {result.problems.front()}).substr(0, 500),
          "Give its path with --socket, its data directory with --data, or its configuration with "
          "--config.");
    }
    paths = result.config;
  }
  if (reads) return {paths.controlSocket(), paths.statusSocket()};
  return {paths.controlSocket()};
}

int Session::ask(control::Request& request, bool reads, control::Response& response) const {
  try {
    auto paths = sockets(reads);
    for (size_t i = 0; i < paths.size(); ++i) {
      try {
        rpc::ControlClient client(paths[i], "packmoorctl " PACKMOOR_VERSION);
        client.call(request, response, timeoutSeconds * 1000);
        break;
      } catch (const rpc::ControlFailure& failure) {
        if (!failure.denied || i + 1 == paths.size()) throw;
      }
    }
  } catch (const rpc::ControlFailure& failure) {
    bool unknown = failure.sent && !reads;
    printError(failure.what(), failure.cause,
               unknown ? "Look at the present state before trying again: the change may have been "
                         "made."
                       : failure.advice);
    return failure.denied ? kDenied : unknown ? kUnknownOutcome : kUnreachable;
  }
  if (!response.has_error()) return kDone;
  const control::Error& error = response.error();
  printError(error.message(), error.cause(), error.advice());
  return exitCodeOf(error.code());
}

}  // namespace packmoor::ctl
