// Ring: one io_uring of one event loop.
//
// Why: durable writes and extent traffic go to the kernel in batches, without a thread per
// operation and without blocking the loop. The kernel signals an eventfd, which KJ watches.
//
// Submission: operations are submitted together, when the loop has run out of ready events or
// kBatchMax have gathered. Only the first one of a turn that finds the kernel with nothing of
// ours to do is submitted at once, so that the disk works while the loop goes on. At most
// kInFlightMax are with the kernel; the rest wait here, up to kQueueMax, beyond which operations
// reject with type OVERLOADED.
//
// Buffers and file descriptors belong to the ring from the call until the completion. Dropping
// a promise drops the result only.
//
// The kernel side is set up with SINGLE_ISSUER and DEFER_TASKRUN where it has them (Linux 6.1):
// completions are then processed only when this thread enters the kernel for them, which it does
// on each wake and with each submission. The ring is created disabled and restricted
// (IORING_REGISTER_RESTRICTIONS, Linux 5.10) to read, write, fsync and fallocate, so that nothing
// else can ever be done through it.
//
// Lifetime: made, used and destroyed on one thread, and destroyed before that thread's port. The
// destructor waits for what the kernel has begun. Spec: io_uring_setup(2), io_uring_enter(2),
// io_uring_register(2).
#pragma once

#include "kernelio/io_buffer.h"

#include <kj/async-unix.h>
#include <kj/async.h>
#include <kj/io.h>
#include <kj/string.h>

#include <memory>

namespace packmoor::kernelio {

// A file descriptor that is open as long as somebody holds it.
using SharedFd = std::shared_ptr<const kj::AutoCloseFd>;

struct RingStats {
  uint64_t operations = 0;   // asked for since the ring was made
  uint64_t completions = 0;
  uint64_t submits = 0;      // entries into the kernel that handed over operations
  uint64_t batchMax = 0;     // operations in one of them, at most
  uint64_t wakes = 0;        // by the eventfd
  uint64_t inFlight = 0;     // with the kernel now
  uint64_t inFlightMax = 0;
  uint64_t queued = 0;       // waiting here now
};

class Ring {
 public:
  static constexpr uint32_t kBatchMax = 64;      // submission queue entries; a power of two
  static constexpr uint32_t kInFlightMax = 256;  // also the completion queue's entries
  static constexpr size_t kQueueMax = 65536;

  // Null `ring` when io_uring cannot be used here; `reason` is then a sentence for the operator.
  struct Attempt {
    kj::Own<Ring> ring;
    kj::String reason;
  };
  // The port is that of the calling thread's loop. `deferTaskrun` false leaves the kernel side
  // plain even where more is to be had.
  static Attempt create(kj::UnixEventPort& port, bool deferTaskrun = true);

  class Impl;
  explicit Ring(kj::Own<Impl> impl) noexcept;  // for create()
  ~Ring() noexcept;
  KJ_DISALLOW_COPY(Ring);

  // Each resolves to what the system call of the same name returns, a negative error number on
  // failure, so 0 or a short count are the caller's to handle. Rejected only when the ring's own
  // queue is full or the ring goes away.
  kj::Promise<int32_t> read(SharedFd fd, IoBuffer into, uint64_t offset);
  kj::Promise<int32_t> write(SharedFd fd, IoBuffer data, uint64_t offset, int rwfFlags);
  kj::Promise<int32_t> fdatasync(SharedFd fd);
  kj::Promise<int32_t> allocate(SharedFd fd, uint64_t bytes);  // fallocate(fd, 0, 0, bytes)

  RingStats stats() const;
  // How the kernel side is set up, for status: "defer-taskrun, restricted" and the like.
  kj::StringPtr setup() const;

 private:
  kj::Own<Impl> impl_;
};

}  // namespace packmoor::kernelio
