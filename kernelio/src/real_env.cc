#include "kernelio/real_env.h"

#include "kernelio/check.h"
#include "kernelio/thread_pool.h"

#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <thread>

namespace packmoor::kernelio {

namespace {

constexpr size_t kWorkersMin = 2;
constexpr size_t kWorkersMax = 16;

class SystemClock final : public WallClock {
 public:
  int64_t nowMs() override {
    timespec now;
    PACKMOOR_CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0, "reading the clock", errno);
    return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
  }
  uint64_t stopwatchUs() override {
    timespec now;
    PACKMOOR_CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0, "reading the clock", errno);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
  }
};

class SystemRandom final : public Random {
 public:
  void fill(kj::ArrayPtr<kj::byte> bytes) override {
    while (bytes.size() > 0) {
      ssize_t got = getrandom(bytes.begin(), bytes.size(), 0);
      PACKMOOR_CHECK(got > 0 || errno == EINTR, "reading random numbers", errno);
      if (got > 0) bytes = bytes.slice(got, bytes.size());
    }
  }
};

class NoFaults final : public FaultPoints {
 public:
  kj::Promise<void> hit(const char*) override { return kj::READY_NOW; }
};

size_t workerCount(size_t wanted) {
  if (wanted > 0) return wanted;
  return std::clamp<size_t>(std::thread::hardware_concurrency(), kWorkersMin, kWorkersMax);
}

class RealEnvImpl final : public RealEnv {
 public:
  RealEnvImpl(kj::AsyncIoContext& io, const RealEnvOptions& options)
      : made_(makeDisk(io.unixEventPort, options.backend, options.dataFolder)),
        workers_(makeThreadPool(io.unixEventPort, workerCount(options.workerThreads))),
        env_{*made_.disk, io.provider->getTimer(), clock_, random_, *workers_, faults_} {}

  Env& env() override { return env_; }
  kj::Maybe<Ring&> ring() override {
    if (made_.ring.get() == nullptr) return nullptr;
    return *made_.ring;
  }
  kj::StringPtr fallbackReason() override { return made_.fallbackReason; }

 private:
  MadeDisk made_;
  SystemClock clock_;
  SystemRandom random_;
  kj::Own<WorkerPool> workers_;
  NoFaults faults_;
  Env env_;
};

}  // namespace

kj::Own<RealEnv> makeRealEnv(kj::AsyncIoContext& io, const RealEnvOptions& options) {
  return kj::heap<RealEnvImpl>(io, options);
}

kj::Own<Random> makeSystemRandom() { return kj::heap<SystemRandom>(); }

}  // namespace packmoor::kernelio
