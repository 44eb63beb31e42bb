#include "reachable_set.h"

#include "object_scan.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

void ReachableSet::found(const ObjectId& id, ObjectType type) {
  if (!seen_.insert(id)) return;
  KJ_REQUIRE(seen_.size() <= kObjectsMax,
             "The repository has more objects than are looked at at once.", kObjectsMax);
  if (type != ObjectType::kBlob) stack_.push_back({id, type});
}

bool ReachableSet::step(uint32_t budget) {
  for (; budget > 0 && !stack_.empty(); --budget) {
    const Item item = stack_.back();
    stack_.pop_back();
    visit(item);
  }
  return stack_.empty();
}

void ReachableSet::visit(Item item) {
  if (item.type == ObjectType::kNone) {
    auto header = source_->header(item.id);
    item.type = KJ_REQUIRE_NONNULL(header, "An object is missing from the repository.", item.id)
                    .type;
    if (item.type == ObjectType::kBlob) return;
  }
  auto read = source_->read(item.id);
  Object& object = KJ_REQUIRE_NONNULL(read, "An object is missing from the repository.", item.id);
  bool good = object.type == item.type;
  if (good && item.type == ObjectType::kCommit) {
    CommitScan commit;
    good = commit.begin(object.data);
    if (good) found(commit.tree(), ObjectType::kTree);
    for (ObjectId parent; good && commit.nextParent(parent);) found(parent, ObjectType::kCommit);
  } else if (good && item.type == ObjectType::kTree) {
    TreeScan tree(object.data);
    while (tree.next()) {
      const auto& entry = tree.entry();
      if (entry.isSubmodule()) continue;
      found(entry.oid(), entry.isTree() ? ObjectType::kTree : ObjectType::kBlob);
    }
    good = !tree.bad();
  } else if (good) {
    ObjectId target;
    ObjectType type = ObjectType::kNone;
    good = scanTag(object.data, target, type);
    if (good) found(target, type);
  }
  KJ_REQUIRE(good, "An object of the repository is damaged, or of another type than it was named as.",
             item.id);
}

}  // namespace packmoor::gitlayer
