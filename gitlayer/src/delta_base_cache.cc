#include "delta_base_cache.h"

namespace packmoor::gitlayer {

std::shared_ptr<const Object> DeltaBaseCache::find(uint64_t pack, uint64_t offset) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = entries_.find(Key{pack, offset});
  if (found == entries_.end()) return nullptr;
  byUse_.splice(byUse_.begin(), byUse_, found->second);
  return found->second->object;
}

void DeltaBaseCache::add(uint64_t pack, uint64_t offset, std::shared_ptr<const Object> object) {
  const size_t cost = costOf(*object);
  if (cost > bytesMax_ / 8) return;
  std::lock_guard<std::mutex> lock(mutex_);
  const Key key{pack, offset};
  if (entries_.count(key) > 0) return;
  byUse_.push_front(Entry{key, std::move(object)});
  entries_[key] = byUse_.begin();
  bytes_ += cost;
  while (bytes_ > bytesMax_) {
    bytes_ -= costOf(*byUse_.back().object);
    entries_.erase(byUse_.back().key);
    byUse_.pop_back();
  }
}

size_t DeltaBaseCache::bytes() {
  std::lock_guard<std::mutex> lock(mutex_);
  return bytes_;
}

}  // namespace packmoor::gitlayer
