// RealEnv: the Env of a daemon, built from the machine that it runs on.
//
// The timer is that of the loop, wall-clock time and random numbers come from the system calls
// clock_gettime and getrandom, CPU work goes to threads, and no fault point is ever armed.
//
// Made and destroyed on the loop's thread, after and before its AsyncIoContext.
#pragma once

#include "kernelio/env.h"
#include "kernelio/ring_disk.h"

#include <kj/async-io.h>

namespace packmoor::kernelio {

struct RealEnvOptions {
  kj::StringPtr dataFolder;  // must exist
  DiskBackend backend = DiskBackend::kAuto;
  size_t workerThreads = 0;  // 0: one per processor, at least 2 and at most 16
};

class RealEnv {
 public:
  virtual ~RealEnv() noexcept(false) {}

  virtual Env& env() = 0;
  // Null when the disk runs on threads.
  virtual kj::Maybe<Ring&> ring() = 0;
  // Why the disk runs on threads although io_uring was wanted; empty when it does not.
  virtual kj::StringPtr fallbackReason() = 0;
};

// Throws a sentence when the folder is missing or the backend cannot be had.
kj::Own<RealEnv> makeRealEnv(kj::AsyncIoContext& io, const RealEnvOptions& options);

// Random numbers of the operating system, fit for keys and identifiers. For programs that have
// no Env; everything else takes Env::random.
kj::Own<Random> makeSystemRandom();

}  // namespace packmoor::kernelio
