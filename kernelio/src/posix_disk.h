// What the real disks share: names, and files up to their data operations. Private to kernelio.
#pragma once

#include "kernelio/disk.h"
#include "kernelio/ring.h"
#include "kernelio/thread_pool.h"

#include <kj/async-unix.h>

#include <memory>

namespace packmoor::kernelio {

// "Could not read index/a: Input/output error." ENOSPC and EDQUOT are of type OVERLOADED.
kj::Exception systemError(int error, kj::StringPtr what, kj::StringPtr path);

// The data operations of one backend, on an open file. Each resolves to what the system call
// returns, a negative error number on failure. Buffers and descriptors live until the operation
// is over, whatever becomes of the promise.
class DataPath {
 public:
  virtual ~DataPath() noexcept(false) {}

  virtual kj::Promise<int64_t> read(SharedFd fd, IoBuffer into, uint64_t offset) = 0;
  virtual kj::Promise<int64_t> write(SharedFd fd, IoBuffer data, uint64_t offset,
                                     WriteMode mode) = 0;
  virtual kj::Promise<int64_t> sync(SharedFd fd) = 0;
  virtual kj::Promise<int64_t> allocate(SharedFd fd, uint64_t bytes) = 0;
  virtual kj::StringPtr name() = 0;
};

kj::Own<Disk> makePosixDisk(kj::UnixEventPort& port, kj::StringPtr root,
                            kj::Own<DataPath> dataPath);

// The name operations as blocking calls below a folder; they throw systemError.
namespace posix {

struct Opened {
  SharedFd fd;
  bool directRefused = false;
};

Opened openFile(int root, kj::StringPtr path, OpenOptions options);
bool exists(int root, kj::StringPtr path);
kj::Array<kj::String> list(int root, kj::StringPtr folder);
void makeFolders(int root, kj::StringPtr path);
void remove(int root, kj::StringPtr path);
void removeTree(int root, kj::StringPtr path);
void rename(int root, kj::StringPtr from, kj::StringPtr to);
void link(int root, kj::StringPtr from, kj::StringPtr to);
void syncDirectory(int root, kj::StringPtr folder);
DiskSpace space(int root);

}  // namespace posix

}  // namespace packmoor::kernelio
