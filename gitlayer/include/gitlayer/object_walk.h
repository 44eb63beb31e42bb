// ObjectWalk: which objects a client needs that wants some commits and has others.
//
// Commits: a walk from the wants and the haves by commit date, newest first, in which what the
// haves reach is uninteresting; it ends when nothing interesting is queued, with some slack for
// clocks that were wrong (as git rev-list does).
//
// Trees: a commit's tree is compared with the trees of its parents, and only what differs from
// all of them is taken. Parents are done before children, so that whatever a parent's tree
// holds is either taken already or the client's. A fetch of one new commit therefore reads only
// the folders that changed. Where histories are cut (CommitTable::cut), commits without parents are
// compared with what the client is known to have (compareWith). What lies beside them in trees of boundary commits (the client's
// parents of new commits) is noted as the client's: it need not be sent, and thin packs may
// use it as delta bases.
//
// The result holds every object that the client lacks. It may hold some that the client has:
// after a wrong clock, or when a file comes back or moves between folders.
//
// With a filter, an object that lies in several places is met in each where that matters.
//
// step() is called on one thread at a time, usually on a worker; a damaged or missing object
// rejects with a sentence. Memory: about 90 bytes per commit and 30 per other object visited,
// and a tree cache of kTreeCacheBytes.
#pragma once

#include "gitlayer/commit_table.h"
#include "gitlayer/object_source.h"
#include "gitlayer/oid_index.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

class ObjectFilter;
class TreeLruCache;

// What goes into a pack.
struct PackPlan {
  OidIndex objects;     // to send, in the order that suits readers; newest first
  OidIndex clientHas;   // some objects that the client surely has: bases for a thin pack
};

class ObjectWalk {
 public:
  static constexpr size_t kTreeCacheBytes = 32u << 20;
  static constexpr uint32_t kParentsCompared = 16;
  static constexpr size_t kPlacesMax = 16'000'000;   // of trees, where a filter looks at paths

  // Wants may be of any type and must exist; haves that do not exist are passed over.
  // `commits` may know commits already, and outlives the walk.
  ObjectWalk(CommitTable& commits, std::vector<ObjectId> wants, std::vector<ObjectId> haves);
  ~ObjectWalk() noexcept;
  KJ_DISALLOW_COPY(ObjectWalk);

  // ---- Before the first step ---------------------------------------------------------------
  // Commits dated before this, and what they reach, are left out as if the client had them.
  void leaveOutBefore(int64_t seconds) { since_ = seconds; }
  // Commits that the client has though no walk along parents leads to them, because histories are
  // cut. Their trees are what commits without parents are compared with (the first
  // kParentsCompared of `near`); all that is in the trees of `deepened` (again as many) is the
  // client's from the beginning.
  void compareWith(const std::vector<ObjectId>& near, const std::vector<ObjectId>& deepened);

  // For a partial clone: what the filter leaves out is neither sent nor read. The filter outlives
  // the walk. Wants are sent whatever it says.
  void leaveOut(const ObjectFilter& filter) { filter_ = &filter; }

  // Visits about `budget` objects. True: the walk is complete.
  bool step(uint32_t budget);
  uint64_t found() const;

  // After completion: adds the annotated tag, and the tags between it and `peeled`, when
  // `peeled` is sent (include-tag).
  void includeTag(const ObjectId& tag, const ObjectId& peeled);
  // Only as far as commits: whether every wanted commit is reached from the haves. May be asked
  // instead of going on to the trees, when step(..) has returned true for a `commitsOnly` walk.
  void commitsOnly() { commitsOnly_ = true; }
  bool nothingToSend() const;
  // After completion: the wanted commits that the client lacks, as numbers of the table.
  const std::vector<uint32_t>& commits() const { return listed_; }
  bool sends(const ObjectId& id) const;

  // After completion, once.
  PackPlan take();

 private:
  enum class Phase : uint8_t { kSeeds, kCommits, kOrder, kTrees, kDone };
  enum : uint8_t {
    kUninteresting = 1, kSeen = 2, kQueued = 4, kListed = 8, kOrdered = 16, kGiven = 32
  };
  enum : uint8_t { kHas = 1, kSend = 2, kMet = 4, kOpened = 8, kTree = 16 };
  struct Queued {
    int64_t date;
    uint32_t order, commit;
    bool operator<(const Queued& other) const {
      return date != other.date ? date < other.date : order > other.order;
    }
  };
  struct Base {
    ObjectId tree;
    bool clientHas;
  };
  // Where a tree's entries lie; for filters.
  struct Inside {
    uint32_t depth = 0;
    uint8_t inherited = 0;
    std::string path;    // with a slash at its end, or empty
  };
  struct TreeItem {
    ObjectId tree;
    uint32_t baseCount;  // on top of bases_
    Inside inside;
  };

  void seed(const ObjectId& id, bool interesting);
  void seedCommit(uint32_t commit, bool interesting);
  bool mark(const ObjectId& id, uint8_t flag);  // false: had a flag already
  uint8_t marked(const ObjectId& id) const;
  uint8_t& flags(uint32_t commit);
  void queue(uint32_t commit);
  void markUninteresting(uint32_t commit);
  void stepCommits(uint32_t& budget);
  bool mayStop();
  void stepOrder(uint32_t& budget);
  void stepTrees(uint32_t& budget);
  void markHadTree();
  std::vector<ObjectId> treesOf(const std::vector<ObjectId>& commits);
  void beginCommitTrees(uint32_t commit);
  bool sendsCommit(uint32_t commit) const;
  // Lists an object that the client lacks, where it is to be sent. True: a tree to be opened, with
  // its entries in `inside`.
  bool meet(const ObjectId& id, bool isTree, const Inside& around, std::string_view name,
            Inside& inside);
  bool opensAgain(const ObjectId& id, uint32_t number, const Inside& inside);
  void compareTree(TreeItem item, std::vector<Base> bases);

  CommitTable& commits_;
  std::vector<ObjectId> wants_, haves_;
  Phase phase_ = Phase::kSeeds;
  bool commitsOnly_ = false;
  size_t nextSeed_ = 0;

  std::vector<uint8_t> commitFlags_;
  std::vector<Queued> queue_;            // a heap
  uint32_t queueOrder_ = 0;
  size_t interestingQueued_ = 0;
  int64_t since_ = INT64_MIN;
  int64_t lastListedDate_ = INT64_MAX;
  int slack_;
  std::vector<uint32_t> listed_;         // newest first
  std::vector<uint32_t> ordered_;        // parents before children
  size_t orderLeft_ = 0, nextOrdered_ = 0;
  struct OrderFrame {
    uint32_t commit, nextParent;
  };
  std::vector<OrderFrame> orderStack_;

  OidIndex objects_;                     // trees, blobs and tags
  std::vector<uint8_t> objectFlags_;
  std::vector<uint32_t> tags_, others_;  // to send, in order of discovery
  std::vector<TreeItem> treeStack_;
  std::vector<Base> bases_;
  const ObjectFilter* filter_ = nullptr;
  std::vector<uint32_t> openedAt_;       // filters by depth: of trees, the least so far
  OidIndex openedPlaces_;                // filters by path: of trees at paths
  std::vector<ObjectId> nearTrees_;      // the client's, for commits without parents
  std::vector<ObjectId> hadTrees_;       // the client's, all that is in them still to be marked
  std::unique_ptr<TreeLruCache> trees_;
};

}  // namespace packmoor::gitlayer
