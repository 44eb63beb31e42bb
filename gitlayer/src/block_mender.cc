#include "block_mender.h"

#include <replicator/outcome.h>

#include <kj/debug.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace packmoor::gitlayer {

struct BlockMender::Request {
  replicator::ExtentId id;
  uint64_t block = 0;
  bool done = false, good = false;
};

struct BlockMender::Shared {
  const std::thread::id loop = std::this_thread::get_id();
  std::mutex mutex;
  std::condition_variable changed;                 // a request is done, or all is over
  std::vector<std::shared_ptr<Request>> waiting;   // guarded by mutex, as is all below
  std::vector<std::shared_ptr<Request>> underWay;
  bool closed = false;

  std::shared_ptr<Request> find(const replicator::ExtentId& id, uint64_t block) {
    for (auto* list : {&waiting, &underWay}) {
      for (auto& request : *list) {
        if (request->id == id && request->block == block) return request;
      }
    }
    return nullptr;
  }

  bool mend(const replicator::ExtentId& id, uint64_t block) {
    std::unique_lock<std::mutex> lock(mutex);
    if (closed) return false;
    auto request = find(id, block);
    if (request == nullptr) {
      if (waiting.size() + underWay.size() >= kWaitingMax) return false;
      request = std::make_shared<Request>(Request{id, block});
      waiting.push_back(request);
    }
    if (std::this_thread::get_id() == loop) return false;
    changed.wait_for(lock, std::chrono::milliseconds(kMendMs),
                     [&]() { return closed || request->done; });
    return request->good;
  }
};

BlockMender::BlockMender(kernelio::Env& env, replicator::ExtentStore& extents)
    : env_(env), extents_(extents), shared_(std::make_shared<Shared>()), tasks_(*this) {
  tasks_.add(look());
}

BlockMender::~BlockMender() noexcept(false) {
  std::lock_guard<std::mutex> lock(shared_->mutex);
  shared_->closed = true;
  shared_->changed.notify_all();
}

BlockMender::Mend BlockMender::of(const replicator::ExtentId& id) {
  return [shared = shared_, id](uint64_t block) { return shared->mend(id, block); };
}

Co<void> BlockMender::look() {
  for (;;) {
    co_await env_.timer.afterDelay(kLookMs * kj::MILLISECONDS);
    std::vector<std::shared_ptr<Request>> taken;
    {
      std::lock_guard<std::mutex> lock(shared_->mutex);
      std::swap(taken, shared_->waiting);
      shared_->underWay.insert(shared_->underWay.end(), taken.begin(), taken.end());
    }
    for (auto& request : taken) tasks_.add(mend(request));
  }
}

// Reading it through the store is what repairs it.
Co<void> BlockMender::mend(std::shared_ptr<Request> request) {
  auto reading = extents_.readBlock(request->id, request->block);
  auto read = co_await replicator::outcomeOf(kj::mv(reading));
  KJ_IF_MAYBE(exception, read.exception) {
    KJ_LOG(ERROR, "a block of a pack is bad and stays so", exception->getDescription());
  }
  std::lock_guard<std::mutex> lock(shared_->mutex);
  request->done = true;
  request->good = read.ok();
  std::erase(shared_->underWay, request);
  shared_->changed.notify_all();
}

void BlockMender::taskFailed(kj::Exception&& exception) {
  KJ_LOG(ERROR, "blocks of packs are not mended any more", exception);
}

}  // namespace packmoor::gitlayer
