// The real disks: io_uring, or threads where io_uring cannot be used.
//
// Both open files below one folder of the file system and behave the same; only the data path
// differs. Names (open, rename, ...) always go through a small pool of threads, since the kernel
// runs them on threads anyway.
//
// Durable writes are single writes with RWF_DSYNC, so that one open file can serve both modes.
// A file asked for as `direct` is opened with O_DIRECT; where the file system refuses that, it is
// opened without, which is slower but as durable, and warnings() says so.
//
// Loop and lifetime: that of the port given. Files must go before their disk, a disk before its
// ring and its port.
#pragma once

#include "kernelio/disk.h"
#include "kernelio/ring.h"

#include <kj/async-unix.h>

namespace packmoor::kernelio {

// The folder must exist. The ring must outlive the disk.
kj::Own<Disk> makeRingDisk(kj::UnixEventPort& port, Ring& ring, kj::StringPtr root);

constexpr size_t kDiskThreadsDefault = 8;  // data operations at a time without io_uring

kj::Own<Disk> makeThreadDisk(kj::UnixEventPort& port, kj::StringPtr root,
                             size_t threads = kDiskThreadsDefault);

enum class DiskBackend : uint8_t {
  kAuto,     // io_uring where it works, else threads
  kIoUring,  // refuse to start without
  kThreads,
};

struct MadeDisk {
  kj::Own<Ring> ring;  // null with threads
  kj::Own<Disk> disk;
  // With kAuto: why it is not io_uring, a sentence for a health warning; else empty.
  kj::String fallbackReason;
};

// Throws a sentence when the folder is missing, or io_uring is demanded and cannot be used.
MadeDisk makeDisk(kj::UnixEventPort& port, DiskBackend backend, kj::StringPtr root);

}  // namespace packmoor::kernelio
