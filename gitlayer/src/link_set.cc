#include "link_set.h"

namespace packmoor::gitlayer {

namespace {

constexpr size_t kFirstSlots = 64;

size_t hashOf(const ObjectId& id) { return std::hash<ObjectId>()(id); }

}  // namespace

void LinkSet::add(const ObjectLink& link) {
  Shard& shard = shards_[link.id.bytes[0] % kShards];
  std::lock_guard<std::mutex> lock(shard.mutex);
  shard.insert(link.id, static_cast<uint8_t>(1u << static_cast<unsigned>(link.type) |
                                             link.special << kSpecialShift));
}

size_t LinkSet::size() const {
  size_t total = 0;
  for (const Shard& shard : shards_) total += shard.used;
  return total;
}

void LinkSet::Shard::insert(const ObjectId& id, uint8_t types) {
  if ((used + 1) * 8 > slots.size() * 5) grow();
  for (size_t at = hashOf(id) & (slots.size() - 1);; at = (at + 1) & (slots.size() - 1)) {
    Slot& slot = slots[at];
    if (slot.types == 0) {
      slot.id = id;
      slot.types = types;
      ++used;
      return;
    }
    if (slot.id == id) {
      slot.types |= types;
      return;
    }
  }
}

void LinkSet::Shard::grow() {
  std::vector<Slot> old(slots.empty() ? kFirstSlots : slots.size() * 2);
  old.swap(slots);
  used = 0;
  for (const Slot& slot : old) {
    if (slot.types != 0) insert(slot.id, slot.types);
  }
}

}  // namespace packmoor::gitlayer
