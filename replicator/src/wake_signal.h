// Signal: wakes whoever waits for "something may have changed".
//
// Why: the replicator's loops wait for conditions over several variables (applied, promised,
// connected). Each waits for a signal and looks again; nothing is carried by the wake itself.
// A waiter checks its condition and calls wait() in the same turn of the loop, so no wake is lost.
//
// Loop: one. Dropping a wait is allowed; its place is freed by a later wait() or notify().
#pragma once

#include <kj/async.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include <cstdint>

namespace packmoor::replicator {

class Signal {
 public:
  kj::Promise<void> wait() {
    if (waiters_.size() >= pruneAt_) prune();
    auto paf = kj::newPromiseAndFulfiller<void>();
    waiters_.add(kj::mv(paf.fulfiller));
    return kj::mv(paf.promise);
  }

  // Resolves at the next notify() or after the time, whichever is first.
  kj::Promise<void> waitFor(kj::Timer& timer, int64_t milliseconds) {
    return wait().exclusiveJoin(timer.afterDelay(milliseconds * kj::MILLISECONDS));
  }

  void notify() {
    if (waiters_.empty()) return;
    auto woken = kj::mv(waiters_);
    waiters_ = {};
    for (auto& waiter : woken) waiter->fulfill();
  }

 private:
  void prune() {
    kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> kept;
    for (auto& waiter : waiters_) {
      if (waiter->isWaiting()) kept.add(kj::mv(waiter));
    }
    waiters_ = kj::mv(kept);
    pruneAt_ = waiters_.size() * 2 + 16;
  }

  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> waiters_;
  size_t pruneAt_ = 16;
};

inline int64_t monotonicMs(kj::Timer& timer) {
  return (timer.now() - kj::origin<kj::TimePoint>()) / kj::MILLISECONDS;
}

}  // namespace packmoor::replicator
