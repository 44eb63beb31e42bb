// WorkerPool: CPU work and blocking libraries, off the event loop.
//
// Why: the loop must answer heartbeats within milliseconds. Work over about 100 us, RocksDB
// reads that may miss, libgit2 and subprocess waits run on a few threads.
//
// A job must own what it touches or borrow only what is immutable and outlives it: dropping the
// promise does not stop a job that has begun, it only discards its result (a job that has not
// begun is dropped). The pool's destructor waits for running jobs. Queue length is bounded by
// kQueueMax; beyond it run() rejects with type OVERLOADED.
// The simulator's pool runs jobs on the loop, one per turn, in the order of submission.
#pragma once

#include <kj/async.h>
#include <kj/function.h>

#include <memory>
#include <type_traits>

namespace packmoor::kernelio {

class WorkerPool {
 public:
  static constexpr size_t kQueueMax = 65536;

  virtual ~WorkerPool() noexcept(false) {}

  // Runs `job` on a worker; the promise carries its value or exception back to the calling
  // loop. F must be movable; it is destroyed on the worker.
  template <typename F>
  kj::Promise<std::invoke_result_t<F&>> run(F job);

  // Threads, or 0 for a pool that runs on the loop.
  virtual size_t threadCount() = 0;

 protected:
  virtual kj::Promise<void> runJob(kj::Function<void()> job) = 0;
};

template <typename F>
kj::Promise<std::invoke_result_t<F&>> WorkerPool::run(F job) {
  using R = std::invoke_result_t<F&>;
  if constexpr (std::is_void_v<R>) {
    return runJob(kj::mv(job));
  } else {
    // The slot is shared: the job may outlive a dropped promise.
    auto slot = std::make_shared<kj::Maybe<R>>();
    auto done = runJob([slot, job = kj::mv(job)]() mutable { *slot = job(); });
    return done.then([slot]() -> R { return kj::mv(*kj::_::readMaybe(*slot)); });
  }
}

}  // namespace packmoor::kernelio
