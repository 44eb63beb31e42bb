// ReachableSet: everything that some objects reach, themselves included.
//
// Why: a prune must know of every object whether something that stays names it. ObjectWalk answers
// what a client lacks, in an order for packs, and once; this set grows when more starts are added, and
// is told nothing but names.
//
// An object that is missing or damaged rejects with a sentence: who cannot say what is reachable must
// not drop anything. Blobs are not read, and whether they are there is not asked.
// Memory: about 30 bytes an object, at most kObjectsMax of them. One thread at a time; `source`
// outlives it.
#pragma once

#include "gitlayer/object_source.h"
#include "gitlayer/oid_index.h"

#include <vector>

namespace packmoor::gitlayer {

class ReachableSet {
 public:
  static constexpr size_t kObjectsMax = 50'000'000;

  explicit ReachableSet(ObjectSource& source) : source_(&source) {}
  KJ_DISALLOW_COPY(ReachableSet);

  // Goes on with another state of the repository. What was found stays, whether it is there or not.
  void setSource(ObjectSource& source) { source_ = &source; }
  // Of any type. It must exist.
  void add(const ObjectId& start) { found(start, ObjectType::kNone); }
  // Reads about `budget` objects. True: complete, until more is added.
  bool step(uint32_t budget);
  bool contains(const ObjectId& id) const { return seen_.contains(id); }
  size_t size() const { return seen_.size(); }

 private:
  struct Item {
    ObjectId id;
    ObjectType type;   // kNone: not known yet
  };
  void found(const ObjectId& id, ObjectType type);
  void visit(Item item);

  ObjectSource* source_;
  OidIndex seen_;
  std::vector<Item> stack_;   // found, and to be read
};

}  // namespace packmoor::gitlayer
