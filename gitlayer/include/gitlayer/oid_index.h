// OidIndex: a set of object names that numbers them in the order in which they were added.
//
// Why: walks and pack building keep facts about hundreds of thousands of objects. Facts lie in
// plain arrays indexed by the number given here, which costs 20 bytes for the name and about 8
// for the table, and no allocation per object.
//
// Open addressing with linear probing, at most 5/8 full. The hash is keyed (object_id.h): clients may make
// up names as they like.
// Not for concurrent use. At most 2^32 - 2 names.
#pragma once

#include "gitlayer/object_id.h"

#include <vector>

namespace packmoor::gitlayer {

class OidIndex {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;

  uint32_t find(const ObjectId& id) const {
    if (slots_.empty()) return kAbsent;
    for (size_t at = hash(id) & mask();; at = (at + 1) & mask()) {
      uint32_t slot = slots_[at];
      if (slot == kAbsent || names_[slot] == id) return slot;
    }
  }
  bool contains(const ObjectId& id) const { return find(id) != kAbsent; }

  // The number of `id`, which is size() before the call when it was not there.
  uint32_t add(const ObjectId& id) {
    if ((names_.size() + 1) * 8 > slots_.size() * 5) grow();
    for (size_t at = hash(id) & mask();; at = (at + 1) & mask()) {
      uint32_t& slot = slots_[at];
      if (slot == kAbsent) {
        slot = static_cast<uint32_t>(names_.size());
        names_.push_back(id);
        return slot;
      }
      if (names_[slot] == id) return slot;
    }
  }
  // True when `id` was not there before.
  bool insert(const ObjectId& id) {
    size_t before = names_.size();
    add(id);
    return names_.size() != before;
  }

  const ObjectId& operator[](uint32_t number) const { return names_[number]; }
  size_t size() const { return names_.size(); }
  bool empty() const { return names_.empty(); }
  const std::vector<ObjectId>& names() const { return names_; }
  void clear() {
    names_ = {};
    slots_ = {};
  }

 private:
  static size_t hash(const ObjectId& id) { return std::hash<ObjectId>()(id); }
  size_t mask() const { return slots_.size() - 1; }
  void grow() {
    size_t size = slots_.empty() ? 64 : slots_.size() * 2;
    slots_.assign(size, kAbsent);
    for (uint32_t number = 0; number < names_.size(); ++number) {
      size_t at = hash(names_[number]) & mask();
      while (slots_[at] != kAbsent) at = (at + 1) & mask();
      slots_[at] = number;
    }
  }

  std::vector<ObjectId> names_;
  std::vector<uint32_t> slots_;
};

}  // namespace packmoor::gitlayer
