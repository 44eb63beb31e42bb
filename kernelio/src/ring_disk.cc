#include "kernelio/ring_disk.h"

#include "kernelio/check.h"
#include "posix_disk.h"

#include <kj/debug.h>

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

namespace packmoor::kernelio {

namespace {

class RingPath final : public DataPath {
 public:
  explicit RingPath(Ring& ring) : ring_(ring) {}

  kj::Promise<int64_t> read(SharedFd fd, IoBuffer into, uint64_t offset) override {
    return widen(ring_.read(kj::mv(fd), kj::mv(into), offset));
  }
  kj::Promise<int64_t> write(SharedFd fd, IoBuffer data, uint64_t offset,
                             WriteMode mode) override {
    int flags = mode == WriteMode::kDurable ? RWF_DSYNC : 0;
    return widen(ring_.write(kj::mv(fd), kj::mv(data), offset, flags));
  }
  kj::Promise<int64_t> sync(SharedFd fd) override { return widen(ring_.fdatasync(kj::mv(fd))); }
  kj::Promise<int64_t> allocate(SharedFd fd, uint64_t bytes) override {
    return widen(ring_.allocate(kj::mv(fd), bytes));
  }
  kj::StringPtr name() override { return "io_uring"; }

 private:
  static kj::Promise<int64_t> widen(kj::Promise<int32_t> result) {
    return result.then([](int32_t value) { return int64_t{value}; });
  }

  Ring& ring_;
};

// What a system call returned, the way the ring tells it.
int64_t outcome(int64_t returned) { return returned < 0 ? -errno : returned; }

class ThreadPath final : public DataPath {
 public:
  ThreadPath(kj::UnixEventPort& port, size_t threads)
      : pool_(makeThreadPool(port, threads, "packmoor-disk")) {}

  kj::Promise<int64_t> read(SharedFd fd, IoBuffer into, uint64_t offset) override {
    return pool_->run([fd = kj::mv(fd), into = kj::mv(into), offset]() mutable {
      return outcome(::pread(*fd, into.begin(), into.size(), offset));
    });
  }
  kj::Promise<int64_t> write(SharedFd fd, IoBuffer data, uint64_t offset,
                             WriteMode mode) override {
    int flags = mode == WriteMode::kDurable ? RWF_DSYNC : 0;
    return pool_->run([fd = kj::mv(fd), data = kj::mv(data), offset, flags]() mutable {
      iovec part{data.begin(), data.size()};
      return outcome(::pwritev2(*fd, &part, 1, offset, flags));
    });
  }
  kj::Promise<int64_t> sync(SharedFd fd) override {
    return pool_->run([fd = kj::mv(fd)]() { return outcome(::fdatasync(*fd)); });
  }
  kj::Promise<int64_t> allocate(SharedFd fd, uint64_t bytes) override {
    return pool_->run(
        [fd = kj::mv(fd), bytes]() { return outcome(::fallocate(*fd, 0, 0, bytes)); });
  }
  kj::StringPtr name() override { return "threads"; }

 private:
  kj::Own<WorkerPool> pool_;
};

}  // namespace

kj::Own<Disk> makeRingDisk(kj::UnixEventPort& port, Ring& ring, kj::StringPtr root) {
  return makePosixDisk(port, root, kj::heap<RingPath>(ring));
}

kj::Own<Disk> makeThreadDisk(kj::UnixEventPort& port, kj::StringPtr root, size_t threads) {
  return makePosixDisk(port, root, kj::heap<ThreadPath>(port, threads));
}

MadeDisk makeDisk(kj::UnixEventPort& port, DiskBackend backend, kj::StringPtr root) {
  MadeDisk made;
  if (backend != DiskBackend::kThreads) {
    auto attempt = Ring::create(port);
    if (attempt.ring.get() != nullptr) {
      made.ring = kj::mv(attempt.ring);
      made.disk = makeRingDisk(port, *made.ring, root);
      return made;
    }
    if (backend == DiskBackend::kIoUring) {
      kj::throwFatalException(kj::Exception(
          kj::Exception::Type::FAILED, __FILE__, __LINE__,
          kj::str("io_uring is demanded by the configuration, but cannot be used. ",
                  attempt.reason, " Configure \"auto\" or \"threads\" to go on without.")));
    }
    made.fallbackReason = kj::mv(attempt.reason);
  }
  made.disk = makeThreadDisk(port, root);
  return made;
}

}  // namespace packmoor::kernelio
