// Env: everything that Packmoor takes from its surroundings, passed in from outside.
//
// Why: one seed must give one run. Code below main never reads a clock, a random number, the
// environment or the file system by itself; it uses what it finds here. A daemon builds an Env
// from the real machine (real_env.h), the simulator from a virtual clock, a seeded generator
// and a SimDisk (sim_env.h).
//
// One Env belongs to one node and one event loop. Its members outlive all that use it. Only
// WorkerPool::run may be given work that runs on another thread.
#pragma once

#include "kernelio/disk.h"
#include "kernelio/worker_pool.h"

#include <kj/timer.h>

namespace packmoor::kernelio {

// Wall-clock time, for what people see and certificates need, and a stopwatch for statistics; no
// protocol decision rests on either.
class WallClock {
 public:
  virtual ~WallClock() noexcept(false) {}
  virtual int64_t nowMs() = 0;        // milliseconds since 1970-01-01 UTC
  // Monotonic microseconds. Unlike the timer, whose now() is that of the loop's turn, this is read
  // at the call.
  virtual uint64_t stopwatchUs() = 0;
};

class Random {
 public:
  virtual ~Random() noexcept(false) {}
  virtual void fill(kj::ArrayPtr<kj::byte> bytes) = 0;
  uint64_t next();                    // uniform over all 64-bit values
  uint64_t below(uint64_t bound);     // uniform in [0, bound), bound > 0
};

// Named places where tests make something happen. In production no point is ever armed and a
// hit costs one branch.
class FaultPoints {
 public:
  virtual ~FaultPoints() noexcept(false) {}
  // Resolves at once when `name` is not armed. A test may delay it, reject it, or never
  // resolve it. `name` is a literal such as "journal.before-write".
  virtual kj::Promise<void> hit(const char* name) = 0;
};

struct Env {
  Disk& disk;
  kj::Timer& timer;    // monotonic; virtual in the simulator
  WallClock& clock;
  Random& random;
  WorkerPool& workers;
  FaultPoints& faults;
};

}  // namespace packmoor::kernelio
