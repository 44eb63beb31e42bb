#include "extent_store_impl.h"

#include "replicator/outcome.h"

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
  if (!damaged_.empty()) tasks_.add(expireDamaged());
}

// What was found damaged at open, and nobody has asked for since: its pack was merged into another, or pruned.
Co<void> ExtentStoreImpl::expireDamaged() {
  while (!damaged_.empty()) {
    co_await env_.timer.afterDelay(expiryMs_ * kj::MILLISECONDS);
    const std::vector<ExtentId> ids(damaged_.begin(), damaged_.end());
    for (const ExtentId& id : ids) {
      if (held(id) || writing_.count(id) > 0 || damaged_.erase(id) == 0) continue;
      KJ_LOG(INFO, "the files of a damaged extent that nothing needs are removed", id);
      auto removing = removeAndWait(id);
      co_await kj::mv(removing);
    }
  }
}

// Whoever begins the extent meanwhile waits for it.
Co<void> ExtentStoreImpl::removeAndWait(ExtentId id) {
  auto removal = kj::Promise<void>(removeSealed(id)).fork();
  auto done = outcomeOf(removal.addBranch());
  removing_.erase(id);
  removing_.emplace(id, kj::mv(removal));
  auto failure = co_await kj::mv(done);
  removing_.erase(id);
  KJ_IF_MAYBE(exception, failure) { taskFailed(kj::mv(*exception)); }
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
    auto removing = removeAndWait(id);
    co_await kj::mv(removing);
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
