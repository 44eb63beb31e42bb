// One request of an ssh client, carried between standard input and output and the node's git socket.
#pragma once

#include <rpc/ssh_command.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace packmoor::shell {

struct Request {
  rpc::SshCommand command;
  uint32_t protocolVersion = 0;
  std::string user, client;
};

// A sentence for the client's user. `refused`: the node said it; else it was not reached.
struct RelayFailure : std::runtime_error {
  RelayFailure(bool refused, const std::string& what) : std::runtime_error(what), refused(refused) {}
  bool refused;
};

// Until the node has said all that it says. Throws RelayFailure.
void relay(const std::string& socketPath, const Request& request);

}  // namespace packmoor::shell
