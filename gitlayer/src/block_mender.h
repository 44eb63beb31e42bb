// BlockMender: a block of a sealed extent that a thread finds bad is mended by the loop.
//
// Why: packs are read from mappings by worker threads, far from the extent store, which can fetch
// a block from another member (ExtentStore::readBlock). The thread leaves word here and waits. The
// loop looks every kLookMs: a bad block is rare, and nothing is needed to wake the loop for it.
//
// Made and destroyed on the loop's thread; what of() gives may be called on any thread, also later,
// when it just says no. Never waits on the loop's own thread: there the block is mended for whoever
// reads it next.
#pragma once

#include <kernelio/co.h>
#include <kernelio/env.h>
#include <replicator/extent_store.h>

#include <functional>
#include <memory>

namespace packmoor::gitlayer {

class BlockMender final : private kj::TaskSet::ErrorHandler {
 public:
  static constexpr size_t kWaitingMax = 256;  // blocks; beyond them mending is refused
  static constexpr int64_t kLookMs = 50;
  static constexpr int64_t kMendMs = 30'000;  // so long a thread waits at most

  BlockMender(kernelio::Env& env, replicator::ExtentStore& extents);
  ~BlockMender() noexcept(false);  // whoever waits is sent away

  // Called with the number of a block that was read and is bad. True: it was good, or made good, in
  // the meantime; it is to be read again.
  using Mend = std::function<bool(uint64_t block)>;
  Mend of(const replicator::ExtentId& id);

 private:
  struct Request;
  struct Shared;

  Co<void> look();
  Co<void> mend(std::shared_ptr<Request> request);
  void taskFailed(kj::Exception&& exception) override;

  kernelio::Env& env_;
  replicator::ExtentStore& extents_;
  std::shared_ptr<Shared> shared_;
  kj::TaskSet tasks_;
};

}  // namespace packmoor::gitlayer
