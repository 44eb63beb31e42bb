// PackQueue: whose turn it is to use the processor for building packs.
//
// Why: many clones at once would starve pushes of workers and make each other slow. At most
// `runningMax` builds run at a time; the others wait for a turn. Turns go round by key (who asks
// for what), first come first served within a key, so that one client that opens a hundred
// fetches does not keep another waiting for all of them. A build gives its turn back while it
// waits for its client's network, so a slow client holds up nobody, and after each piece of its
// pack when others wait.
//
// One loop. Reference counted: sessions and turns keep the queue alive.
#pragma once

#include <kj/async.h>
#include <kj/refcount.h>

#include <deque>
#include <map>
#include <string>

namespace packmoor::gitlayer {

class PackQueue final : public kj::Refcounted {
 public:
  // Builds begun and not ended, running or waiting. Each holds about 40 bytes per object that it
  // copies one by one.
  static constexpr uint32_t kOpenMax = 128;

  explicit PackQueue(uint32_t runningMax) : runningMax_(runningMax < 1 ? 1 : runningMax) {}

  class Turn {
   public:
    explicit Turn(kj::Own<PackQueue> queue) : queue_(kj::mv(queue)) {}
    ~Turn() noexcept(false) { queue_->ended(); }
    KJ_DISALLOW_COPY(Turn);

   private:
    kj::Own<PackQueue> queue_;
  };
  // Resolves when it is the caller's turn, which lasts as long as the Turn. May be dropped.
  kj::Promise<kj::Own<Turn>> turn(const std::string& key);

  class Opened {
   public:
    explicit Opened(kj::Own<PackQueue> queue) : queue_(kj::mv(queue)) { ++queue_->open_; }
    ~Opened() noexcept(false) { --queue_->open_; }
    KJ_DISALLOW_COPY(Opened);

   private:
    kj::Own<PackQueue> queue_;
  };
  // Held from a build's beginning to its end; nullptr when kOpenMax are.
  kj::Maybe<kj::Own<Opened>> open();

  size_t waiting() const { return waitingCount_; }
  bool full() const { return running_ >= runningMax_; }

 private:
  using Waiter = kj::Own<kj::PromiseFulfiller<kj::Own<Turn>>>;
  void ended();

  uint32_t runningMax_;
  uint32_t running_ = 0, open_ = 0;
  size_t waitingCount_ = 0;
  std::map<std::string, std::deque<Waiter>> waiting_;
  std::string lastKey_;
};

}  // namespace packmoor::gitlayer
