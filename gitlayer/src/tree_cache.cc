#include "tree_cache.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

TreeData TreeLruCache::read(const ObjectId& id) {
  auto found = entries_.find(id);
  if (found != entries_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    return found->second->data;
  }
  auto object = source_.read(id);
  KJ_IF_MAYBE(tree, object) {
    KJ_REQUIRE(tree->type == ObjectType::kTree, "object is not a tree as it should be", id,
               objectTypeName(tree->type).data());
    auto data = std::make_shared<const kj::Array<kj::byte>>(kj::mv(tree->data));
    recent_.push_front({id, data});
    entries_[id] = recent_.begin();
    bytes_ += cost(recent_.front());
    while (bytes_ > bytesMax_ && recent_.size() > 1) {
      bytes_ -= cost(recent_.back());
      entries_.erase(recent_.back().id);
      recent_.pop_back();
    }
    return data;
  }
  KJ_FAIL_REQUIRE("tree is missing from the repository", id);
}

}  // namespace packmoor::gitlayer
