// How packmoord ends, and the exception that carries it out of a start that cannot go on.
#pragma once

#include <stdexcept>
#include <string>

namespace packmoor::daemon {

enum ExitCode : int {
  kStopped = 0,          // asked to, and stopped cleanly
  kFailed = 1,           // something that it needs failed
  kBadConfiguration = 2, // usage, configuration or certificates
  kBadData = 3,          // the data directory: of another node, in use, or damaged
  kPortInUse = 4,        // an address or socket cannot be listened on
  kDiskFailed = 5,       // the journal could not be written
};

// `what()` is one or two sentences for the operator.
struct StartFailure : std::runtime_error {
  StartFailure(ExitCode code, const std::string& sentence)
      : std::runtime_error(sentence), code(code) {}
  ExitCode code;
};

}  // namespace packmoor::daemon
