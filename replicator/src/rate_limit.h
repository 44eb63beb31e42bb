// RateLimit: spreads what many callers move over time, to so many bytes a second.
//
// Each caller waits its turn in the order of the calls; a pause in which nobody calls is not saved
// up beyond kBurstMs. Loop: the node's.
#pragma once

#include "wake_signal.h"

#include <algorithm>

namespace packmoor::replicator {

class RateLimit final {
 public:
  static constexpr int64_t kBurstMs = 50;

  // 0: no limit.
  RateLimit(kj::Timer& timer, uint64_t bytesPerSecond)
      : timer_(timer), bytesPerSecond_(bytesPerSecond), next_(timer.now()) {}

  // Resolves when `bytes` may be moved.
  kj::Promise<void> take(uint64_t bytes) {
    if (bytesPerSecond_ == 0) return kj::READY_NOW;
    const kj::TimePoint now = timer_.now();
    next_ = std::max(next_, now - kBurstMs * kj::MILLISECONDS);
    const kj::TimePoint turn = next_;
    next_ += static_cast<int64_t>(bytes * 1'000'000 / bytesPerSecond_) * kj::MICROSECONDS;
    if (turn <= now) return kj::READY_NOW;
    return timer_.atTime(turn);
  }

 private:
  kj::Timer& timer_;
  const uint64_t bytesPerSecond_;
  kj::TimePoint next_;
};

}  // namespace packmoor::replicator
