// The keys of git's users, for sshd's AuthorizedKeysCommand (sshd_config(5)).
//
// A file of lines `USER TYPE KEY [COMMENT]`, as in an OpenSSH public key file with the user's name in
// front; empty lines and those that begin with '#' are skipped. A line that is none of these is skipped
// and told of, so that one mistake does not lock everybody out. Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace packmoor::rpc {

struct SshKeyMatch {
  std::vector<std::string> users;      // that have the key, in the order of the file
  std::vector<std::string> problems;   // sentences, with the line's number
};
// `type` as "ssh-ed25519", `key` in base64.
SshKeyMatch findSshKey(std::string_view file, std::string_view type, std::string_view key);

// 1 to 64 of A-Z, a-z, 0-9, '.', '_', '@' and '-', not starting with '-'.
bool isSshUser(std::string_view name);

// A line for sshd: the key may run `program` for the user, and nothing else. `socket`: the git socket.
std::string authorizedKeyLine(std::string_view program, std::string_view socket, std::string_view user,
                              std::string_view type, std::string_view key);

}  // namespace packmoor::rpc
