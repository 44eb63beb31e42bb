#include "unix_socket.h"

#include <kj/debug.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace packmoor::rpc {
namespace {

constexpr int kBacklog = 64;
constexpr size_t kGroupsMax = 1024;
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

[[noreturn]] void refuse(kj::StringPtr what, const std::string& path, kj::StringPtr why) {
  kj::throwFatalException(kj::Exception(
      kj::Exception::Type::FAILED, __FILE__, __LINE__,
      kj::str("The socket ", path.c_str(), " cannot be ", what, ": ", why, ".")));
}

kj::AutoCloseFd newSocket(const std::string& path) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) refuse("made", path, strerror(errno));
  return kj::AutoCloseFd(fd);
}

void removeLeftOver(const std::string& path, const sockaddr_un& address) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return;
  if (!S_ISSOCK(info.st_mode)) refuse("made", path, "there is another file of that name");
  auto probe = newSocket(path);
  if (connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno == EAGAIN) {
    refuse("made", path, "another process is listening on it. This node may be running already");
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) refuse("replaced", path, strerror(errno));
}

}  // namespace

kj::AutoCloseFd listenUnix(const std::string& path, uint32_t mode, int64_t gid) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    refuse("made", path, kj::str("the system allows paths of at most ",
                                 sizeof address.sun_path - 1,
                                 " bytes; give it a shorter one in the configuration"));
  }
  memcpy(address.sun_path, path.data(), path.size());
  removeLeftOver(path, address);
  auto fd = newSocket(path);
  // Nobody may connect between bind and chmod.
  mode_t before = umask(0177);
  int bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  int problem = errno;
  umask(before);
  if (bound != 0) refuse("made", path, strerror(problem));
  if (gid >= 0 && chown(path.c_str(), static_cast<uid_t>(-1), static_cast<gid_t>(gid)) != 0) {
    refuse("given to its group", path, strerror(errno));
  }
  if (chmod(path.c_str(), mode) != 0) refuse("given its mode", path, strerror(errno));
  if (listen(fd, kBacklog) != 0) refuse("listened on", path, strerror(errno));
  return fd;
}

bool PeerCredentials::isMember(uint32_t group) const {
  return gid == group || std::find(groups.begin(), groups.end(), group) != groups.end();
}

PeerCredentials peerCredentials(int fd) {
  ucred credentials{};
  socklen_t bytes = sizeof credentials;
  KJ_SYSCALL(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes));
  PeerCredentials result;
  result.uid = credentials.uid;
  result.gid = credentials.gid;
  result.pid = static_cast<uint32_t>(credentials.pid);
  result.groups.resize(kGroupsMax);
  bytes = static_cast<socklen_t>(kGroupsMax * sizeof(uint32_t));
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, result.groups.data(), &bytes) != 0) bytes = 0;
  result.groups.resize(bytes / sizeof(uint32_t));
  return result;
}

uint32_t groupIdOf(const std::string& name) {
  group entry{};
  group* found = nullptr;
  std::vector<char> buffer(1 << 16);
  getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    kj::throwFatalException(kj::Exception(
        kj::Exception::Type::FAILED, __FILE__, __LINE__,
        kj::str("There is no group \"", name.c_str(), "\" on this machine (control.group).")));
  }
  return found->gr_gid;
}

bool isTrusted(const PeerCredentials& who, int64_t gid) {
  return who.uid == 0 || who.uid == geteuid() ||
         (gid >= 0 && who.isMember(static_cast<uint32_t>(gid)));
}

}  // namespace packmoor::rpc
