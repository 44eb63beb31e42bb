#include "object_search.h"

#include "object_scan.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

ObjectSearch::ObjectSearch(CommitTable& commits, const std::vector<ObjectId>& sought,
                           std::vector<ObjectId> tips)
    : commits_(commits), tips_(std::move(tips)) {
  for (const ObjectId& id : sought) sought_.add(id);
  left_ = sought_.size();
  found_.resize(left_, false);
}

bool ObjectSearch::step(uint32_t budget) {
  for (; budget > 0 && left_ > 0; --budget) {
    if (!tips_.empty()) {
      ObjectId tip = tips_.back();
      tips_.pop_back();
      begin(tip);
    } else if (!treeStack_.empty()) {
      ObjectId tree = treeStack_.back();
      treeStack_.pop_back();
      openTree(tree);
    } else if (!queue_.empty()) {
      openCommit();
    } else {
      return true;
    }
  }
  return left_ == 0;
}

const ObjectId* ObjectSearch::notReached() const {
  for (uint32_t i = 0; i < found_.size(); ++i) {
    if (!found_[i]) return &sought_[i];
  }
  return nullptr;
}

void ObjectSearch::meet(const ObjectId& id) {
  uint32_t number = sought_.find(id);
  if (number == OidIndex::kAbsent || found_[number]) return;
  found_[number] = true;
  --left_;
}

void ObjectSearch::begin(const ObjectId& tip) {
  ObjectId id = tip;
  for (;;) {
    meet(id);
    auto header = commits_.source().header(id);
    auto& found = KJ_REQUIRE_NONNULL(header, "object is missing from the repository", id);
    if (found.type == ObjectType::kCommit) queue(commits_.add(id));
    if (found.type == ObjectType::kTree && trees_.insert(id)) treeStack_.push_back(id);
    if (found.type != ObjectType::kTag) return;
    auto tag = commits_.source().read(id);
    ObjectType targetType;
    KJ_REQUIRE(scanTag(KJ_REQUIRE_NONNULL(tag, "tag is missing", id).data, id, targetType),
               "tag is damaged", tip);
  }
}

void ObjectSearch::queue(uint32_t commit) {
  if (commit >= queued_.size()) queued_.resize(std::max<size_t>(commit + 1, commits_.size()), false);
  if (queued_[commit]) return;
  queued_[commit] = true;
  queue_.push_back({commits_.load(commit).date, commit});
  std::push_heap(queue_.begin(), queue_.end());
}

void ObjectSearch::openCommit() {
  std::pop_heap(queue_.begin(), queue_.end());
  uint32_t commit = queue_.back().commit;
  queue_.pop_back();
  const ObjectId tree = commits_.load(commit).tree;
  const uint32_t parentCount = commits_.load(commit).parentCount;
  for (uint32_t i = 0; i < parentCount; ++i) queue(commits_.parent(commits_.load(commit), i));
  meet(tree);
  if (trees_.insert(tree)) treeStack_.push_back(tree);
}

void ObjectSearch::openTree(const ObjectId& id) {
  auto object = commits_.source().read(id);
  auto& tree = KJ_REQUIRE_NONNULL(object, "tree is missing from the repository", id);
  TreeScan entries(tree.data);
  while (entries.next()) {
    auto& entry = entries.entry();
    if (entry.isSubmodule()) continue;
    meet(entry.oid());
    if (entry.isTree() && trees_.insert(entry.oid())) treeStack_.push_back(entry.oid());
  }
  KJ_REQUIRE(!entries.bad(), "tree is damaged", id);
}

}  // namespace packmoor::gitlayer
