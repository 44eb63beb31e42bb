// ChangeSignal: "something may have changed since you last asked", for any number of waiters.
//
// changed() resolves at once when raise() was called since the last changed() that resolved, and
// otherwise at the next raise(). Loop: one.
#pragma once

#include <kj/async.h>

#include <cstdint>

namespace packmoor::rpc {

class ChangeSignal {
 public:
  void raise() {
    ++raised_;
    KJ_IF_MAYBE(fulfiller, fulfiller_) {
      auto waiting = kj::mv(*fulfiller);
      fulfiller_ = nullptr;
      promise_ = nullptr;
      seen_ = raised_;
      waiting->fulfill();
    }
  }

  kj::Promise<void> changed() {
    if (raised_ != seen_) {
      seen_ = raised_;
      return kj::READY_NOW;
    }
    KJ_IF_MAYBE(promise, promise_) { return promise->addBranch(); }
    auto paf = kj::newPromiseAndFulfiller<void>();
    fulfiller_ = kj::mv(paf.fulfiller);
    return promise_.emplace(paf.promise.fork()).addBranch();
  }

 private:
  uint64_t raised_ = 0, seen_ = 0;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> fulfiller_;
  kj::Maybe<kj::ForkedPromise<void>> promise_;
};

}  // namespace packmoor::rpc
