// DeltaBaseCache: inflated objects that deltas were applied to, shared by all packs of a node.
//
// Why: the objects of a delta chain are mostly read one after the other, and each needs the one
// before. Bounded by bytes; the least recently used go first. Thread-safe.
#pragma once

#include "gitlayer/object_source.h"

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace packmoor::gitlayer {

class DeltaBaseCache {
 public:
  static constexpr size_t kBytesDefault = 32u << 20;

  explicit DeltaBaseCache(size_t bytesMax = kBytesDefault) : bytesMax_(bytesMax) {}

  // `pack` is a number that no other pack of the cache has.
  std::shared_ptr<const Object> find(uint64_t pack, uint64_t offset);
  // Objects over an eighth of the cache are not kept.
  void add(uint64_t pack, uint64_t offset, std::shared_ptr<const Object> object);
  uint64_t nextPackNumber() { return nextPack_.fetch_add(1); }
  size_t bytes();

 private:
  struct Key {
    uint64_t pack, offset;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const noexcept {
      return (key.pack * 0x9e3779b97f4a7c15ull) ^ (key.offset * 0xc2b2ae3d27d4eb4full);
    }
  };
  struct Entry {
    Key key;
    std::shared_ptr<const Object> object;
  };
  static size_t costOf(const Object& object) { return object.data.size() + 128; }

  const size_t bytesMax_;
  std::atomic<uint64_t> nextPack_{1};
  std::mutex mutex_;
  std::list<Entry> byUse_;  // newest first
  std::unordered_map<Key, std::list<Entry>::iterator, Hash> entries_;
  size_t bytes_ = 0;
};

}  // namespace packmoor::gitlayer
