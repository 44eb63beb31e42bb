#include "extent_store_impl.h"

namespace packmoor::replicator {

int64_t ExtentStoreImpl::nowMs() const {
  return (env_.timer.now() - kj::origin<kj::TimePoint>()) / kj::MILLISECONDS;
}

bool ExtentStoreImpl::held(const ExtentId& id) const {
  auto found = holds_.find(id);
  return found != holds_.end() && (found->second.pins > 0 || found->second.linked);
}

void ExtentStoreImpl::pin(ExtentId id) {
  ++holds_[id].pins;
  heldChanged(id);
}

void ExtentStoreImpl::unpin(ExtentId id) {
  auto found = holds_.find(id);
  if (found == holds_.end() || found->second.pins == 0) return;
  --found->second.pins;
  heldChanged(id);
}

void ExtentStoreImpl::link(ExtentId id) {
  Hold& hold = holds_[id];
  hold.linked = true;
  hold.letGo = false;
  spoiled_.erase(id);
  heldChanged(id);
}

void ExtentStoreImpl::unlink(ExtentId id) {
  auto found = holds_.find(id);
  if (found == holds_.end()) return;
  found->second.letGo = found->second.letGo || found->second.linked;
  found->second.linked = false;
  heldChanged(id);
}

void ExtentStoreImpl::heldChanged(const ExtentId& id) {
  const bool isHeld = held(id);
  if (!isHeld) holds_.erase(id);
  auto found = sealed_.find(id);
  if (found == sealed_.end()) return;
  Sealed& extent = found->second;
  idle_.erase({extent.idleSinceMs, id});
  if (isHeld) return;
  extent.idleSinceMs = nowMs();
  idle_.insert({extent.idleSinceMs, id});
  scheduleExpiry();
}

void ExtentStoreImpl::startExpiry() {
  if (expiryStarted_) return;
  expiryStarted_ = true;
  // What was found at open has been idle for no longer than since now: its holders had to be
  // given the time to say so.
  idle_.clear();
  for (auto& [id, extent] : sealed_) {
    if (held(id)) continue;
    extent.idleSinceMs = nowMs();
    idle_.insert({extent.idleSinceMs, id});
  }
  scheduleExpiry();
}

void ExtentStoreImpl::scheduleExpiry() {
  if (!expiryStarted_ || expiring_ || idle_.empty()) return;
  expiring_ = true;
  tasks_.add(expire());
}

Co<void> ExtentStoreImpl::expire() {
  while (!idle_.empty()) {
    const auto [sinceMs, id] = *idle_.begin();
    const int64_t leftMs = sinceMs + expiryMs_ - nowMs();
    if (leftMs > 0) {
      co_await env_.timer.afterDelay(leftMs * kj::MILLISECONDS);
      continue;  // it may be held by now
    }
    idle_.erase(idle_.begin());
    auto found = sealed_.find(id);
    statistics_.sealedBytes -= found->second.info.bytes;
    --statistics_.sealed;
    ++statistics_.expired;
    sealed_.erase(found);
    open_.erase(id);
    spoiled_.erase(id);
    standing_.erase(standing_.lower_bound({id, 0}), standing_.upper_bound({id, UINT64_MAX}));
    auto removal = kj::Promise<void>(removeSealed(id)).fork();
    auto done = removal.addBranch();
    removing_.erase(id);
    removing_.emplace(id, kj::mv(removal));
    try {
      co_await kj::mv(done);
    } catch (kj::Exception& exception) {
      taskFailed(kj::mv(exception));
    }
    removing_.erase(id);
  }
  expiring_ = false;
}

Co<void> ExtentStoreImpl::removeSealed(ExtentId id) {
  // The data first: a sidecar alone is a leftover that open() removes.
  co_await env_.disk.remove(sealedPath(id, "data"));
  co_await env_.disk.remove(sealedPath(id, "sum"));
  co_await env_.disk.syncDirectory(sealedFolder(id));
}

}  // namespace packmoor::replicator
