// ObjectSearch: whether refs reach some trees, blobs and tags.
//
// Why: a partial clone asks for single objects that it was promised, and may have those that refs
// reach. There is no index from an object to what holds it, so the search goes through trees, from the
// newest commit on, and ends when all are found: mostly within the first. What is not reached is known
// when everything else was looked at.
//
// step() is called on one thread at a time; a damaged or missing object rejects with a sentence.
// Memory: about 30 bytes per commit and tree.
#pragma once

#include "gitlayer/commit_table.h"

#include <vector>

namespace packmoor::gitlayer {

class ObjectSearch {
 public:
  ObjectSearch(CommitTable& commits, const std::vector<ObjectId>& sought,
               std::vector<ObjectId> tips);
  KJ_DISALLOW_COPY(ObjectSearch);

  // Looks at about `budget` commits and trees. True: all are found, or some are not reached.
  bool step(uint32_t budget);
  // After that: the first that is not reached, if there is one.
  const ObjectId* notReached() const;

 private:
  struct Queued {
    int64_t date;
    uint32_t commit;
    bool operator<(const Queued& other) const { return date < other.date; }
  };
  void begin(const ObjectId& tip);
  void meet(const ObjectId& id);
  void queue(uint32_t commit);
  void openTree(const ObjectId& id);
  void openCommit();

  CommitTable& commits_;
  OidIndex sought_;
  std::vector<bool> found_;
  size_t left_;
  std::vector<ObjectId> tips_;
  std::vector<bool> queued_;
  std::vector<Queued> queue_;   // a heap
  OidIndex trees_;
  std::vector<ObjectId> treeStack_;
};

}  // namespace packmoor::gitlayer
