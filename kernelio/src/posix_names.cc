#include "posix_disk.h"

#include <kj/debug.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

namespace packmoor::kernelio {

kj::Exception systemError(int error, kj::StringPtr what, kj::StringPtr path) {
  const char* reason = strerrordesc_np(error);
  bool full = error == ENOSPC || error == EDQUOT;
  return kj::Exception(full ? kj::Exception::Type::OVERLOADED : kj::Exception::Type::FAILED,
                       __FILE__, __LINE__,
                       kj::str("Could not ", what, " ", path.size() > 0 ? path : "the data folder",
                               ": ", reason == nullptr ? "unknown error" : reason, "."));
}

namespace posix {

namespace {

constexpr mode_t kFileMode = 0640;
constexpr mode_t kFolderMode = 0750;

[[noreturn]] void fail(kj::StringPtr what, kj::StringPtr path) {
  kj::throwFatalException(systemError(errno, what, path));
}

const char* folderName(kj::StringPtr path) { return path.size() > 0 ? path.cStr() : "."; }

struct CloseDir {
  void operator()(DIR* dir) const noexcept { closedir(dir); }
};
using Directory = std::unique_ptr<DIR, CloseDir>;

// Null when there is no such folder.
Directory openFolder(int root, kj::StringPtr path) {
  int fd = openat(root, folderName(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return nullptr;
  if (fd < 0) fail("open the folder", path);
  kj::AutoCloseFd owned(fd);
  Directory directory(fdopendir(fd));
  if (directory == nullptr) fail("open the folder", path);
  owned.release();
  return directory;
}

std::vector<std::string> namesIn(DIR* directory, kj::StringPtr path) {
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    dirent* entry = readdir(directory);
    if (entry == nullptr) break;
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  if (errno != 0) fail("list the folder", path);
  return names;
}

}  // namespace

Opened openFile(int root, kj::StringPtr path, OpenOptions options) {
  int flags = O_CLOEXEC | (options.write ? O_RDWR : O_RDONLY);
  if (options.create) flags |= O_CREAT;
  if (options.exclusive) flags |= O_EXCL;
  Opened opened;
  int fd = -1;
  if (options.direct) {
    // A file system without direct I/O fails with EINVAL, some only after creating the file.
    fd = openat(root, path.cStr(), flags | O_DIRECT, kFileMode);
    if (fd < 0 && errno == EINVAL) {
      opened.directRefused = true;
      flags &= ~O_EXCL;
    }
  }
  if (fd < 0 && (!options.direct || opened.directRefused)) {
    fd = openat(root, path.cStr(), flags, kFileMode);
  }
  if (fd < 0) fail(options.exclusive ? "create" : "open", path);
  opened.fd = std::make_shared<const kj::AutoCloseFd>(fd);
  struct stat status;
  if (fstat(fd, &status) != 0) fail("open", path);
  if (!S_ISREG(status.st_mode)) kj::throwFatalException(systemError(EISDIR, "open", path));
  return opened;
}

bool exists(int root, kj::StringPtr path) {
  struct stat status;
  if (fstatat(root, folderName(path), &status, 0) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) fail("look for", path);
  return false;
}

kj::Array<kj::String> list(int root, kj::StringPtr folder) {
  Directory directory = openFolder(root, folder);
  if (directory == nullptr) return nullptr;
  std::vector<std::string> names = namesIn(directory.get(), folder);
  std::sort(names.begin(), names.end());
  return KJ_MAP(name, names) { return kj::heapString(name.c_str(), name.size()); };
}

void makeFolders(int root, kj::StringPtr path) {
  for (size_t end = 0; end < path.size(); ++end) {
    while (end < path.size() && path[end] != '/') ++end;
    auto part = kj::heapString(path.slice(0, end));
    if (mkdirat(root, part.cStr(), kFolderMode) == 0) continue;
    if (errno != EEXIST) fail("make the folder", part);
    struct stat status;
    if (fstatat(root, part.cStr(), &status, 0) != 0) fail("make the folder", part);
    if (!S_ISDIR(status.st_mode)) {
      kj::throwFatalException(systemError(ENOTDIR, "make the folder", part));
    }
  }
}

void remove(int root, kj::StringPtr path) {
  if (unlinkat(root, path.cStr(), 0) == 0 || errno == ENOENT || errno == ENOTDIR) return;
  if (errno == EISDIR && unlinkat(root, path.cStr(), AT_REMOVEDIR) == 0) return;
  fail("remove", path);
}

void removeTree(int root, kj::StringPtr path) {
  struct stat status;
  if (fstatat(root, path.cStr(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    fail("remove", path);
  }
  if (!S_ISDIR(status.st_mode)) return remove(root, path);
  // Depth first, with at most one open folder at a time: trees may be deep.
  std::vector<std::string> pending{path.cStr()};
  while (!pending.empty()) {
    std::string folder = pending.back();
    Directory directory = openFolder(root, folder.c_str());
    bool foldersLeft = false;
    if (directory != nullptr) {
      for (const std::string& name : namesIn(directory.get(), folder.c_str())) {
        if (unlinkat(dirfd(directory.get()), name.c_str(), 0) == 0 || errno == ENOENT) continue;
        if (errno != EISDIR && errno != EPERM) fail("remove", (folder + "/" + name).c_str());
        pending.push_back(folder + "/" + name);
        foldersLeft = true;
      }
    }
    if (foldersLeft) continue;
    pending.pop_back();
    if (unlinkat(root, folder.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
      fail("remove the folder", folder.c_str());
    }
  }
}

void rename(int root, kj::StringPtr from, kj::StringPtr to) {
  if (renameat(root, from.cStr(), root, to.cStr()) != 0) {
    int error = errno;
    kj::throwFatalException(systemError(error, kj::str("rename ", from, " to"), to));
  }
}

void link(int root, kj::StringPtr from, kj::StringPtr to) {
  if (linkat(root, from.cStr(), root, to.cStr(), 0) == 0) return;
  int error = errno;
  if (error == EEXIST) {
    struct stat one, other;
    if (fstatat(root, from.cStr(), &one, 0) == 0 && fstatat(root, to.cStr(), &other, 0) == 0 &&
        one.st_dev == other.st_dev && one.st_ino == other.st_ino) {
      return;
    }
  }
  kj::throwFatalException(systemError(error, kj::str("link ", from, " as"), to));
}

void syncDirectory(int root, kj::StringPtr folder) {
  int fd = openat(root, folderName(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail("sync the folder", folder);
  kj::AutoCloseFd owned(fd);
  if (fsync(fd) != 0) fail("sync the folder", folder);
}

DiskSpace space(int root) {
  struct statvfs status;
  if (fstatvfs(root, &status) != 0) fail("measure the space of", "");
  return DiskSpace{uint64_t{status.f_blocks} * status.f_frsize,
                   uint64_t{status.f_bavail} * status.f_frsize};
}

}  // namespace posix

}  // namespace packmoor::kernelio
