// LoopMailbox: how threads hand finished work back to an event loop.
//
// Any thread posts a function; the loop's thread runs it in a later turn. One eventfd wakes the
// loop for any number of functions that were posted before it looked.
//
// Lifetime: made and destroyed on the loop's thread. Threads hold it by shared_ptr and may post
// at any time, even after close(): what is then posted is destroyed unrun by whoever is last.
// Functions are run and, while the mailbox is open, destroyed on the loop's thread.
#pragma once

#include <kj/async-unix.h>
#include <kj/async.h>
#include <kj/function.h>
#include <kj/io.h>

#include <memory>
#include <mutex>
#include <vector>

namespace packmoor::kernelio {

class LoopMailbox {
 public:
  using Letter = kj::Function<void()>;

  // The port is that of the calling thread's loop.
  static std::shared_ptr<LoopMailbox> create(kj::UnixEventPort& port);
  class Key {  // only create() makes one
    friend class LoopMailbox;
    Key() {}
  };
  LoopMailbox(Key, kj::AutoCloseFd wakeFd) noexcept;
  ~LoopMailbox() noexcept;
  KJ_DISALLOW_COPY(LoopMailbox);

  void post(Letter letter);  // any thread; the letter must not throw
  // On the loop's thread: nothing is run any more. Must come before the port goes.
  void close();

 private:
  struct Reader;

  kj::AutoCloseFd wakeFd_;
  std::mutex mutex_;
  std::vector<Letter> letters_;  // guarded by mutex_
  bool woken_ = false;           // guarded by mutex_: the eventfd is set and not yet read
  kj::Own<Reader> reader_;       // loop's thread only; null after close()
};

}  // namespace packmoor::kernelio
