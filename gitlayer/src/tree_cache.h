// A bounded cache of inflated trees, least recently used out first.
//
// Why: the tree of a commit is read once as a child and once for each child as a parent; in
// between lie few other trees.
#pragma once

#include "gitlayer/object_source.h"

#include <list>
#include <memory>
#include <unordered_map>

namespace packmoor::gitlayer {

using TreeData = std::shared_ptr<const kj::Array<kj::byte>>;

class TreeLruCache {
 public:
  TreeLruCache(ObjectSource& source, size_t bytesMax) : source_(source), bytesMax_(bytesMax) {}
  // Rejects when the tree is missing or the object is not a tree.
  TreeData read(const ObjectId& id);

 private:
  struct Entry {
    ObjectId id;
    TreeData data;
  };
  static size_t cost(const Entry& entry) { return entry.data->size() + 128; }

  ObjectSource& source_;
  size_t bytesMax_;
  size_t bytes_ = 0;
  std::list<Entry> recent_;  // front: most recent
  std::unordered_map<ObjectId, std::list<Entry>::iterator> entries_;
};

}  // namespace packmoor::gitlayer
