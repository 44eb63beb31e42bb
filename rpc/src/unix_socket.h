// Unix sockets of this node: binding them safely and asking who calls.
#pragma once

#include <kj/io.h>
#include <kj/string.h>

#include <cstdint>
#include <string>
#include <vector>

namespace packmoor::rpc {

// Binds and listens at `path` with the given mode; `gid` owns it when not -1. A left-over socket
// file is replaced; a living one, or a file that is no socket, is refused with a sentence.
kj::AutoCloseFd listenUnix(const std::string& path, uint32_t mode, int64_t gid);

struct PeerCredentials {
  uint32_t uid = 0, gid = 0, pid = 0;
  std::vector<uint32_t> groups;  // supplementary ones
  bool isMember(uint32_t group) const;
};
PeerCredentials peerCredentials(int fd);
// Root, this process's own user, and members of the group, when it is not -1.
bool isTrusted(const PeerCredentials& who, int64_t gid);

// The id of a group; throws with a sentence when there is none.
uint32_t groupIdOf(const std::string& name);

}  // namespace packmoor::rpc
