// VirtualLoop: an event loop whose time stands still while there is work and jumps to the next
// timer when there is none.
//
// Why: tests and the simulator run minutes of timeouts in milliseconds, and the same way every
// time. Nothing outside the thread can wake this loop; all its events come from promises and
// from its timer.
//
// Waiting with neither work nor a timer can never end: the wait throws, naming the state as a
// deadlock. So does running past the time limit, which catches loops that live on timers alone.
//
// The loop is the current one of its thread from construction to destruction. Make it the first
// local of a test: everything with promises must be gone before it.
#pragma once

#include <kj/async.h>
#include <kj/timer.h>

namespace packmoor::kernelio {

class VirtualLoop final : private kj::EventPort {
 public:
  static constexpr kj::Duration kDefaultTimeLimit = 30 * kj::DAYS;

  explicit VirtualLoop(kj::Duration timeLimit = kDefaultTimeLimit);
  ~VirtualLoop() noexcept;
  KJ_DISALLOW_COPY(VirtualLoop);

  kj::Timer& timer() { return timer_; }
  kj::WaitScope& waitScope() { return waitScope_; }

  // Virtual time since construction.
  kj::Duration elapsed() const { return timer_.now() - kj::origin<kj::TimePoint>(); }

  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(waitScope_);
  }

  // Runs all that happens within `duration`; afterwards elapsed() has grown by exactly that.
  void runFor(kj::Duration duration);
  // Runs until nothing can go on without time passing. Time stands still.
  void settle() { waitScope_.poll(); }

 private:
  bool wait() override;
  bool poll() override { return false; }

  kj::TimerImpl timer_;
  kj::TimePoint limit_;
  kj::EventLoop loop_;
  kj::WaitScope waitScope_;
};

}  // namespace packmoor::kernelio
