// LinkSet: every object that the objects of a push name, once.
//
// Why: a history names the same trees and blobs over and over, and whether a name is answered
// within the pack is known only at the pack's end. One slot of 24 bytes is kept per name, with the
// types under which it was named.
//
// add() may be called on several threads. A LinkFilter in front of it belongs to one thread and
// holds back most of the repetitions.
#pragma once

#include "gitlayer/object_check.h"

#include <mutex>
#include <vector>

namespace packmoor::gitlayer {

class LinkSet {
 public:
  void add(const ObjectLink& link);
  size_t size() const;   // names; not while others add

  // Calls back with each name and each type it was given; not while others add.
  template <typename F>
  void forEach(F&& each) const {
    for (const Shard& shard : shards_) {
      for (const Slot& slot : shard.slots) {
        for (unsigned type = 1; type <= 4; ++type) {
          if (slot.types & (1u << type)) {
            each(ObjectLink{slot.id, static_cast<ObjectType>(type),
                            static_cast<uint8_t>(slot.types >> kSpecialShift)});
          }
        }
      }
    }
  }

 private:
  struct Slot {
    ObjectId id;
    uint8_t types = 0;    // bit by ObjectType, special files above them; 0: free
  };
  struct Shard {
    std::mutex mutex;
    std::vector<Slot> slots;   // a power of two; linear probing, at most 5/8 full
    size_t used = 0;
    void insert(const ObjectId& id, uint8_t types);
    void grow();
  };
  static constexpr size_t kShards = 16;
  static constexpr unsigned kSpecialShift = 5;

  Shard shards_[kShards];
};

class LinkFilter {
 public:
  explicit LinkFilter(LinkSet& set) : set_(set), recent_(kRecent) {}

  void add(const ObjectLink& link) {
    size_t at = std::hash<ObjectId>()(link.id) % kRecent;
    ObjectLink& recent = recent_[at];
    if (recent.id == link.id && recent.type == link.type && recent.special == link.special) {
      return;
    }
    recent = link;
    set_.add(link);
  }

 private:
  static constexpr size_t kRecent = 8192;

  LinkSet& set_;
  std::vector<ObjectLink> recent_;
};

}  // namespace packmoor::gitlayer
