#include "gitlayer/pack_queue.h"

namespace packmoor::gitlayer {

kj::Promise<kj::Own<PackQueue::Turn>> PackQueue::turn(const std::string& key) {
  if (running_ < runningMax_) {
    ++running_;
    return kj::heap<Turn>(kj::addRef(*this));
  }
  auto pair = kj::newPromiseAndFulfiller<kj::Own<Turn>>();
  waiting_[key].push_back(kj::mv(pair.fulfiller));
  ++waitingCount_;
  return kj::mv(pair.promise);
}

kj::Maybe<kj::Own<PackQueue::Opened>> PackQueue::open() {
  if (open_ >= kOpenMax) return nullptr;
  return kj::heap<Opened>(kj::addRef(*this));
}

// Gives the turn to the next key after the last one served.
void PackQueue::ended() {
  while (!waiting_.empty()) {
    auto next = waiting_.upper_bound(lastKey_);
    if (next == waiting_.end()) next = waiting_.begin();
    lastKey_ = next->first;
    Waiter waiter = kj::mv(next->second.front());
    next->second.pop_front();
    --waitingCount_;
    if (next->second.empty()) waiting_.erase(next);
    if (!waiter->isWaiting()) continue;
    waiter->fulfill(kj::heap<Turn>(kj::addRef(*this)));
    return;
  }
  --running_;
}

}  // namespace packmoor::gitlayer
