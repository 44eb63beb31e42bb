#include "gitlayer/commit_table.h"

#include "object_scan.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

uint32_t CommitTable::add(const ObjectId& id) {
  uint32_t number = names_.add(id);
  if (number == nodes_.size()) nodes_.emplace_back();
  return number;
}

const CommitTable::Node& CommitTable::load(uint32_t commit) {
  if (nodes_[commit].loaded) return nodes_[commit];
  KJ_IF_MAYBE(object, source_.read(id(commit))) {
    KJ_REQUIRE(object->type == ObjectType::kCommit, "object is not a commit as it should be",
               id(commit), objectTypeName(object->type).data());
    return loadFrom(commit, object->data);
  }
  KJ_FAIL_REQUIRE("commit is missing from the repository", id(commit));
}

const CommitTable::Node& CommitTable::loadFrom(uint32_t commit,
                                               kj::ArrayPtr<const kj::byte> data) {
  if (nodes_[commit].loaded) return nodes_[commit];
  CommitScan scan;
  KJ_REQUIRE(scan.begin(data), "commit is damaged", id(commit));
  Node node;
  node.tree = scan.tree();
  node.parentsBegin = static_cast<uint32_t>(parents_.size());
  ObjectId parentId;
  while (scan.nextParent(parentId)) {
    parents_.push_back(add(parentId));
    ++node.parentCount;
  }
  node.date = scan.committerDate();
  node.loaded = true;
  nodes_[commit] = node;
  return nodes_[commit];
}

void CommitTable::cut(uint32_t commit) {
  load(commit);
  nodes_[commit].parentCount = 0;
}

void CommitTable::clear() {
  names_.clear();
  nodes_ = {};
  parents_ = {};
}

uint8_t& ReachTest::flags(uint32_t commit) {
  if (commit >= flags_.size()) flags_.resize(std::max<size_t>(commit + 1, commits_.size()), 0);
  return flags_[commit];
}

void ReachTest::addHave(uint32_t commit) {
  auto& node = commits_.load(commit);
  if (node.date < oldestHave_) oldestHave_ = node.date;
  flags(commit) |= kHad;
  for (uint32_t i = 0; i < node.parentCount; ++i) flags(commits_.parent(node, i)) |= kHad;
  ++haves_;
}

void ReachTest::restart() {
  for (uint32_t commit : visited_) flags_[commit] &= ~kVisited;
  visited_.clear();
  stack_.clear();
  nextWant_ = 0;
}

bool ReachTest::step(const std::vector<uint32_t>& wants, uint32_t budget) {
  reached_ = false;
  if (haves_ == 0) return true;
  while (budget > 0) {
    if (stack_.empty()) {
      if (nextWant_ == wants.size()) {
        reached_ = true;
        return true;
      }
      uint32_t want = wants[nextWant_];
      if (flags(want) & (kHad | kReaches)) {
        ++nextWant_;
        --budget;
        continue;
      }
      if (flags(want) & kVisited) return true;  // searched in vain already
      flags(want) |= kVisited;
      visited_.push_back(want);
      stack_.push_back({want, 0});
    }
    if (!stepStack(budget)) return true;
  }
  return false;
}

// Goes on with the depth-first search of one want until it is decided or the budget is used up.
// False: the want reaches nothing that is had.
bool ReachTest::stepStack(uint32_t& budget) {
  while (!stack_.empty()) {
    if (budget == 0) return true;
    --budget;
    Frame& top = stack_.back();
    auto& node = commits_.load(top.commit);
    // What is older than the oldest have cannot have one among its ancestors.
    if (node.date < oldestHave_ || top.nextParent == node.parentCount) {
      stack_.pop_back();
      if (stack_.empty()) return false;
      continue;
    }
    uint32_t parent = commits_.parent(node, top.nextParent++);
    if (flags(parent) & (kHad | kReaches)) {
      for (const Frame& frame : stack_) flags(frame.commit) |= kReaches;
      stack_.clear();
      ++nextWant_;
      return true;
    }
    if (flags(parent) & kVisited) continue;
    flags(parent) |= kVisited;
    visited_.push_back(parent);
    stack_.push_back({parent, 0});
  }
  return true;
}

}  // namespace packmoor::gitlayer
