// SimEnv: an Env in which everything follows from one seed.
//
// One SimEnv is one running node: its SimDisk on a SimStorage that outlives it, its clock, its
// random numbers, a worker pool that runs on the loop, and fault points that tests arm by name.
// Many of them may live on one VirtualLoop. To kill a node, drop everything that uses the Env and
// then the SimEnv; sim_disk.h tells what becomes of the storage.
#pragma once

#include "kernelio/env.h"
#include "kernelio/seeded_random.h"
#include "kernelio/sim_disk.h"
#include "kernelio/virtual_loop.h"

#include <map>
#include <string>

namespace packmoor::kernelio {

// Wall-clock time that follows the virtual timer, with an offset that tests may change.
class SimClock final : public WallClock {
 public:
  static constexpr int64_t kStartMs = 1'700'000'000'000;  // when virtual time is 0

  explicit SimClock(kj::Timer& timer) : timer_(timer) {}

  int64_t nowMs() override;
  uint64_t stopwatchUs() override {
    return (timer_.now() - kj::origin<kj::TimePoint>()) / kj::MICROSECONDS;
  }
  void setSkewMs(int64_t skewMs) { skewMs_ = skewMs; }

 private:
  kj::Timer& timer_;
  int64_t skewMs_ = 0;
};

// Runs each job on the loop, in a turn of its own, in the order of submission.
class LoopWorkerPool final : public WorkerPool {
 public:
  size_t threadCount() override { return 0; }

 protected:
  kj::Promise<void> runJob(kj::Function<void()> job) override;
};

// Fault points that are armed by name. Arming a name again replaces what it had.
class SimFaultPoints final : public FaultPoints {
 public:
  static constexpr uint64_t kForever = UINT64_MAX;

  explicit SimFaultPoints(kj::Timer& timer) : timer_(timer) {}

  // After `skip` more hits, the next `count` hits are delayed, rejected, or never resolve.
  void delay(kj::StringPtr name, kj::Duration delay, uint64_t skip = 0, uint64_t count = kForever);
  void reject(kj::StringPtr name, kj::Exception reason, uint64_t skip = 0,
              uint64_t count = kForever);
  void hang(kj::StringPtr name, uint64_t skip = 0, uint64_t count = kForever);
  void disarm(kj::StringPtr name);
  // Lets hits that hang go on, and disarms the name.
  void release(kj::StringPtr name);

  // Resolves when the name is hit the next time, armed or not.
  kj::Promise<void> whenHit(kj::StringPtr name);
  uint64_t hits(kj::StringPtr name) const;  // since construction

  kj::Promise<void> hit(const char* name) override;

 private:
  enum class Action : uint8_t { kNone, kDelay, kReject, kHang };
  struct Point {
    Action action = Action::kNone;
    uint64_t skip = 0, count = 0, hits = 0;
    kj::Duration delay = 0 * kj::NANOSECONDS;
    kj::Maybe<kj::Exception> reason;
    kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> hanging, watchers;
  };

  Point& arm(kj::StringPtr name, Action action, uint64_t skip, uint64_t count);

  kj::Timer& timer_;
  std::map<std::string, Point> points_;
};

class SimEnv {
 public:
  // Both must outlive the SimEnv. The storage must have power.
  SimEnv(VirtualLoop& loop, SimStorage& storage, uint64_t seed);
  ~SimEnv() noexcept {}
  KJ_DISALLOW_COPY(SimEnv);

  Env& env() { return env_; }
  SimDisk& disk() { return disk_; }
  SimClock& clock() { return clock_; }
  SeededRandom& random() { return random_; }
  SimFaultPoints& faults() { return faults_; }

 private:
  SimDisk disk_;
  SimClock clock_;
  SeededRandom random_;
  LoopWorkerPool workers_;
  SimFaultPoints faults_;
  Env env_;
};

}  // namespace packmoor::kernelio
