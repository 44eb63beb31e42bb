#include "support/small_disk.h"

#include <cstdio>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

namespace packmoor::testing {

SmallDisk::SmallDisk(uint64_t bytes) {
  const int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
  if (context < 0) return;
  if (fsconfig(context, FSCONFIG_SET_STRING, "size", std::to_string(bytes).c_str(), 0) == 0 &&
      fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0) {
    root_ = fsmount(context, FSMOUNT_CLOEXEC, 0);
  }
  close(context);
}

SmallDisk::~SmallDisk() noexcept {
  if (root_ >= 0) close(root_);
}

std::string SmallDisk::path() const { return "/proc/self/fd/" + std::to_string(root_); }

void SmallDisk::fill() {
  const int file = open(filler().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  std::vector<char> bytes(1u << 20);
  for (size_t step = bytes.size(); step > 0;) {
    if (write(file, bytes.data(), step) <= 0) step /= 2;
  }
  close(file);
}

void SmallDisk::makeRoom() { std::remove(filler().c_str()); }

}  // namespace packmoor::testing
