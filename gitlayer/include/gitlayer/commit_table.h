// CommitTable: the commits that one request has looked at, read once each.
//
// Why: negotiation, reachability and the object walk of one fetch visit the same commits. The
// table numbers them and keeps what they need: date, tree and parents, about 80 bytes each.
//
// Not for concurrent use; `source` outlives it. A commit that is missing or damaged is a
// kj exception with a sentence.
#pragma once

#include "gitlayer/object_source.h"
#include "gitlayer/oid_index.h"

#include <vector>

namespace packmoor::gitlayer {

class CommitTable {
 public:
  explicit CommitTable(ObjectSource& source) : source_(source) {}
  KJ_DISALLOW_COPY(CommitTable);

  struct Node {
    int64_t date = 0;            // committer's, seconds; 0 where it is not a number
    ObjectId tree;
    uint32_t parentsBegin = 0;   // in parent()
    uint32_t parentCount = 0;
    bool loaded = false;
  };

  // The commit's number; does not read it.
  uint32_t add(const ObjectId& id);
  uint32_t find(const ObjectId& id) const { return names_.find(id); }
  // Reads it at the first call. The reference is valid until the next add() or load().
  const Node& load(uint32_t commit);
  // For data already at hand, instead of reading it.
  const Node& loadFrom(uint32_t commit, kj::ArrayPtr<const kj::byte> data);
  // From now on the commit has no parents.
  void cut(uint32_t commit);
  // `which` below the loaded node's parentCount.
  uint32_t parent(const Node& node, uint32_t which) const {
    return parents_[node.parentsBegin + which];
  }
  const ObjectId& id(uint32_t commit) const { return names_[commit]; }
  size_t size() const { return names_.size(); }
  ObjectSource& source() { return source_; }
  // Frees the memory; all numbers become invalid.
  void clear();

 private:
  ObjectSource& source_;
  OidIndex names_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> parents_;
};

// Whether each of some commits reaches one of the commits that the other side has: git's test of
// whether a negotiation may end. Runs in slices; restart() after the other side's set has grown.
class ReachTest {
 public:
  explicit ReachTest(CommitTable& commits) : commits_(commits) {}
  KJ_DISALLOW_COPY(ReachTest);

  // Numbers of the table. `have` also counts the commit's parents as had.
  void addHave(uint32_t commit);
  bool hasHaves() const { return haves_ > 0; }
  // Forgets what was found unreachable; what was found reachable stays so.
  void restart();
  // Looks at about `budget` commits. True: decided, see reached().
  bool step(const std::vector<uint32_t>& wants, uint32_t budget);
  bool reached() const { return reached_; }

 private:
  enum : uint8_t { kHad = 1, kReaches = 2, kVisited = 4 };
  uint8_t& flags(uint32_t commit);
  bool stepStack(uint32_t& budget);

  CommitTable& commits_;
  std::vector<uint8_t> flags_;
  std::vector<uint32_t> visited_;
  struct Frame {
    uint32_t commit;
    uint32_t nextParent;
  };
  std::vector<Frame> stack_;
  size_t nextWant_ = 0;
  size_t haves_ = 0;
  int64_t oldestHave_ = INT64_MAX;
  bool reached_ = false;
};

}  // namespace packmoor::gitlayer
