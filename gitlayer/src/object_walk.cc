#include "gitlayer/object_walk.h"

#include "object_filter.h"
#include "object_scan.h"
#include "tree_cache.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

// How many uninteresting commits are looked at after the last interesting one, in case a clock
// was wrong; git's number.
constexpr int kSlack = 5;
// How many steps of a filter's patterns take as long as an object.
constexpr uint64_t kStepsOfPatterns = 1000;

}  // namespace

ObjectWalk::ObjectWalk(CommitTable& commits, std::vector<ObjectId> wants,
                       std::vector<ObjectId> haves)
    : commits_(commits),
      wants_(std::move(wants)),
      haves_(std::move(haves)),
      slack_(kSlack),
      trees_(std::make_unique<TreeLruCache>(commits.source(), kTreeCacheBytes)) {}

ObjectWalk::~ObjectWalk() noexcept = default;

bool ObjectWalk::step(uint32_t budget) {
  while (budget > 0 && phase_ != Phase::kDone) {
    switch (phase_) {
      case Phase::kSeeds:
        // Haves first, so that what the client has is known when a want leads to it.
        if (nextSeed_ < haves_.size()) {
          seed(haves_[nextSeed_++], false);
        } else if (nextSeed_ < haves_.size() + wants_.size()) {
          seed(wants_[nextSeed_++ - haves_.size()], true);
        } else {
          phase_ = Phase::kCommits;
        }
        --budget;
        break;
      case Phase::kCommits:
        stepCommits(budget);
        break;
      case Phase::kOrder:
        stepOrder(budget);
        break;
      case Phase::kTrees:
        stepTrees(budget);
        break;
      case Phase::kDone:
        break;
    }
  }
  return phase_ == Phase::kDone;
}

uint64_t ObjectWalk::found() const { return listed_.size() + tags_.size() + others_.size(); }

bool ObjectWalk::nothingToSend() const {
  return listed_.empty() && tags_.empty() && others_.empty();
}

// ---- where the walk begins

void ObjectWalk::seed(const ObjectId& start, bool interesting) {
  ObjectId id = start;
  for (;;) {
    if (uint32_t known = commits_.find(id); known != OidIndex::kAbsent) {
      return seedCommit(known, interesting);
    }
    ObjectType type = ObjectType::kNone;
    KJ_IF_MAYBE(header, commits_.source().header(id)) { type = header->type; }
    if (type == ObjectType::kNone) {
      KJ_REQUIRE(!interesting, "object is missing from the repository", id);
      return;
    }
    if (type == ObjectType::kCommit) return seedCommit(commits_.add(id), interesting);
    // What is asked for by name is sent whatever a filter says.
    bool isNew = mark(id, interesting ? kSend : kHas);
    if (type != ObjectType::kTag) {
      if (!isNew || !interesting) return;
      others_.push_back(objects_.find(id));
      if (type == ObjectType::kTree) treeStack_.push_back({id, 0, {}});
      return;
    }
    if (isNew && interesting) tags_.push_back(objects_.find(id));
    auto object = commits_.source().read(id);
    ObjectType targetType;
    auto& tag = KJ_REQUIRE_NONNULL(object, "tag is missing from the repository", id);
    ObjectId target;
    KJ_REQUIRE(scanTag(tag.data, target, targetType), "tag is damaged", id);
    id = target;
  }
}

void ObjectWalk::seedCommit(uint32_t commit, bool interesting) {
  if (!interesting) {
    commits_.load(commit);
    markUninteresting(commit);
  } else {
    flags(commit) |= kGiven;
  }
  queue(commit);
}

bool ObjectWalk::mark(const ObjectId& id, uint8_t flag) {
  uint32_t number = objects_.add(id);
  if (number == objectFlags_.size()) objectFlags_.push_back(0);
  bool isNew = objectFlags_[number] == 0;
  objectFlags_[number] |= flag;
  return isNew;
}

uint8_t ObjectWalk::marked(const ObjectId& id) const {
  uint32_t number = objects_.find(id);
  return number == OidIndex::kAbsent ? 0 : objectFlags_[number];
}

// ---- commits

uint8_t& ObjectWalk::flags(uint32_t commit) {
  if (commit >= commitFlags_.size()) {
    commitFlags_.resize(std::max<size_t>(commit + 1, commits_.size() * 2), 0);
  }
  return commitFlags_[commit];
}

void ObjectWalk::queue(uint32_t commit) {
  uint8_t& flag = flags(commit);
  if (flag & kSeen) return;
  flag |= kSeen | kQueued;
  if (!(flag & kUninteresting)) ++interestingQueued_;
  queue_.push_back({commits_.load(commit).date, queueOrder_++, commit});
  std::push_heap(queue_.begin(), queue_.end());
}

// The commit, and all its ancestors that were looked at already.
void ObjectWalk::markUninteresting(uint32_t commit) {
  std::vector<uint32_t> stack{commit};
  while (!stack.empty()) {
    uint32_t next = stack.back();
    stack.pop_back();
    uint8_t& flag = flags(next);
    if (flag & kUninteresting) continue;
    if (flag & kQueued) --interestingQueued_;
    flag |= kUninteresting;
    if (!(flag & kSeen) || (flag & kQueued)) continue;  // its parents follow from the queue
    auto& node = commits_.load(next);
    for (uint32_t i = 0; i < node.parentCount; ++i) stack.push_back(commits_.parent(node, i));
  }
}

void ObjectWalk::stepCommits(uint32_t& budget) {
  while (budget > 0) {
    if (queue_.empty()) break;
    --budget;
    std::pop_heap(queue_.begin(), queue_.end());
    uint32_t commit = queue_.back().commit;
    queue_.pop_back();
    uint8_t& flag = flags(commit);
    flag &= ~kQueued;
    bool interesting = !(flag & kUninteresting);
    if (interesting) --interestingQueued_;
    if (interesting && commits_.load(commit).date < since_) {
      markUninteresting(commit);
      interesting = false;
    }
    if (interesting) {
      flag |= kListed;
      listed_.push_back(commit);
      lastListedDate_ = commits_.load(commit).date;
    }
    uint32_t parentCount = commits_.load(commit).parentCount;
    for (uint32_t i = 0; i < parentCount; ++i) {
      uint32_t parent = commits_.parent(commits_.load(commit), i);
      if (!interesting) markUninteresting(parent);
      queue(parent);
    }
    if (!interesting && mayStop()) break;
  }
  if (budget == 0 && !queue_.empty() && slack_ > 0) return;
  auto& flagsOf = commitFlags_;
  std::erase_if(listed_, [&](uint32_t commit) { return (flagsOf[commit] & kUninteresting) != 0; });
  queue_ = {};
  orderLeft_ = listed_.size();
  phase_ = commitsOnly_ ? Phase::kDone : Phase::kOrder;
}

bool ObjectWalk::mayStop() {
  bool still = !queue_.empty() &&
               (lastListedDate_ <= queue_.front().date || interestingQueued_ > 0);
  slack_ = queue_.empty() ? 0 : still ? kSlack : slack_ - 1;
  return slack_ <= 0;
}

// Depth-first from the oldest, so that every listed parent comes before its children whatever
// the dates say.
void ObjectWalk::stepOrder(uint32_t& budget) {
  while (budget > 0) {
    if (orderStack_.empty()) {
      if (orderLeft_ == 0) {
        phase_ = Phase::kTrees;
        return;
      }
      uint32_t commit = listed_[--orderLeft_];
      if (flags(commit) & kOrdered) continue;
      flags(commit) |= kOrdered;
      orderStack_.push_back({commit, 0});
    }
    --budget;
    OrderFrame& top = orderStack_.back();
    auto& node = commits_.load(top.commit);
    if (top.nextParent == node.parentCount) {
      ordered_.push_back(top.commit);
      orderStack_.pop_back();
      continue;
    }
    uint32_t parent = commits_.parent(node, top.nextParent++);
    uint8_t& flag = flags(parent);
    if (!(flag & kListed) || (flag & (kUninteresting | kOrdered))) continue;
    flag |= kOrdered;
    orderStack_.push_back({parent, 0});
  }
}

// ---- trees

std::vector<ObjectId> ObjectWalk::treesOf(const std::vector<ObjectId>& commits) {
  std::vector<ObjectId> trees;
  for (const ObjectId& id : commits) {
    if (trees.size() == kParentsCompared) break;
    KJ_IF_MAYBE(header, commits_.source().header(id)) {
      if (header->type == ObjectType::kCommit) trees.push_back(commits_.load(commits_.add(id)).tree);
    }
  }
  return trees;
}

void ObjectWalk::compareWith(const std::vector<ObjectId>& near,
                             const std::vector<ObjectId>& deepened) {
  nearTrees_ = treesOf(near);
  for (const ObjectId& tree : treesOf(deepened)) {
    if (mark(tree, kHas | kTree)) hadTrees_.push_back(tree);
  }
}

void ObjectWalk::markHadTree() {
  TreeData data = trees_->read(hadTrees_.back());
  hadTrees_.pop_back();
  TreeScan all(*data);
  while (all.next()) {
    auto& entry = all.entry();
    if (entry.isSubmodule()) continue;
    if (mark(entry.oid(), entry.isTree() ? kHas | kTree : kHas) && entry.isTree()) {
      hadTrees_.push_back(entry.oid());
    }
  }
}

void ObjectWalk::stepTrees(uint32_t& budget) {
  while (budget > 0) {
    if (!hadTrees_.empty()) {
      --budget;
      markHadTree();
    } else if (!treeStack_.empty()) {
      TreeItem item = treeStack_.back();
      treeStack_.pop_back();
      std::vector<Base> bases(bases_.end() - item.baseCount, bases_.end());
      bases_.resize(bases_.size() - item.baseCount);
      const uint64_t before = filter_ == nullptr ? 0 : filter_->work();
      uint64_t spent = 1 + item.baseCount;
      compareTree(item, std::move(bases));
      if (filter_ != nullptr) spent += (filter_->work() - before) / kStepsOfPatterns;
      budget -= static_cast<uint32_t>(std::min<uint64_t>(budget, spent));
    } else if (nextOrdered_ < ordered_.size()) {
      --budget;
      beginCommitTrees(ordered_[nextOrdered_++]);
    } else {
      phase_ = Phase::kDone;
      return;
    }
  }
}

void ObjectWalk::beginCommitTrees(uint32_t commit) {
  std::vector<Base> bases;
  uint32_t parentCount = std::min(commits_.load(commit).parentCount, kParentsCompared);
  for (uint32_t i = 0; i < parentCount; ++i) {
    uint32_t parent = commits_.parent(commits_.load(commit), i);
    bool clientHas = (flags(parent) & kUninteresting) != 0;
    bases.push_back({commits_.load(parent).tree, clientHas});
    if (clientHas) mark(bases.back().tree, kHas | kTree);
  }
  if (parentCount == 0) {
    for (const ObjectId& near : nearTrees_) {
      bases.push_back({near, true});
      mark(near, kHas | kTree);
    }
  }
  const ObjectId& tree = commits_.load(commit).tree;
  Inside inside;
  if (!meet(tree, true, {}, {}, inside)) return;
  treeStack_.push_back({tree, static_cast<uint32_t>(bases.size()), std::move(inside)});
  bases_.insert(bases_.end(), bases.begin(), bases.end());
}

bool ObjectWalk::meet(const ObjectId& id, bool isTree, const Inside& around,
                      std::string_view name, Inside& inside) {
  if (filter_ == nullptr) {
    if (!mark(id, kSend)) return false;
    others_.push_back(objects_.find(id));
    return isTree;
  }
  if (!isTree && filter_->noBlobs()) return false;
  mark(id, kMet);
  uint32_t number = objects_.find(id);
  if (objectFlags_[number] & kHas) return false;
  const bool listed = (objectFlags_[number] & kSend) != 0;
  if (listed && !isTree) return false;
  ObjectFilter::Place place{around.depth, around.inherited, {}};
  if (filter_->byPath()) place.path = around.path + std::string(name);
  const bool sends = isTree ? filter_->sendsTree(place)
                            : filter_->sendsBlob(commits_.source(), id, place);
  if (sends && !listed) {
    objectFlags_[number] |= kSend;
    others_.push_back(number);
  }
  if (!isTree || !filter_->opensTree(place)) return false;
  inside.depth = around.depth + 1;
  inside.inherited = place.inherited;
  if (!place.path.empty()) inside.path = std::move(place.path) + "/";
  return opensAgain(id, number, inside);
}

// Whether a tree holds anything in this place that was not met in others.
bool ObjectWalk::opensAgain(const ObjectId& id, uint32_t number, const Inside& inside) {
  const bool isNew = !(objectFlags_[number] & kOpened);
  objectFlags_[number] |= kOpened;
  if (filter_->byPath()) {
    ObjectId place = id;
    size_t hash = std::hash<std::string>()(inside.path);
    for (size_t i = 0; i < sizeof hash; ++i) place.bytes[i] ^= static_cast<uint8_t>(hash >> 8 * i);
    KJ_REQUIRE(openedPlaces_.size() < kPlacesMax,
               "the trees lie in more places than a sparse filter looks at; clone without it");
    return openedPlaces_.insert(place);
  }
  if (!filter_->byDepth()) return isNew;
  if (number >= openedAt_.size()) openedAt_.resize(objectFlags_.size() * 2, UINT32_MAX);
  if (openedAt_[number] <= inside.depth) return false;
  openedAt_[number] = inside.depth;
  return true;
}

void ObjectWalk::compareTree(TreeItem item, std::vector<Base> bases) {
  TreeData data = trees_->read(item.tree);
  std::vector<TreeData> baseData;
  std::vector<TreeScan> scans;
  for (const Base& base : bases) {
    baseData.push_back(trees_->read(base.tree));
    if (base.clientHas) {
      TreeScan all(*baseData.back());
      while (all.next()) {
        auto& entry = all.entry();
        if (!entry.isSubmodule()) mark(entry.oid(), entry.isTree() ? kHas | kTree : kHas);
      }
    }
    scans.emplace_back(*baseData.back());
  }
  std::vector<bool> open;
  for (TreeScan& scan : scans) open.push_back(scan.next());

  TreeScan entries(*data);
  std::vector<Base> below;
  while (entries.next()) {
    auto& entry = entries.entry();
    bool unchanged = false;
    below.clear();
    for (size_t i = 0; i < scans.size(); ++i) {
      int order = 1;
      while (open[i] && (order = TreeScan::compare(scans[i].entry(), entry)) < 0) {
        open[i] = scans[i].next();
      }
      if (!open[i] || order != 0) continue;
      auto& old = scans[i].entry();
      if (memcmp(old.id, entry.id, kOidBytes) == 0) {
        unchanged = true;
      } else if (old.isTree() && entry.isTree()) {
        below.push_back({old.oid(), bases[i].clientHas});
      }
    }
    if (unchanged || entry.isSubmodule()) continue;
    ObjectId id = entry.oid();
    Inside inside;
    if (!meet(id, entry.isTree(), item.inside, entry.name, inside)) continue;
    treeStack_.push_back({id, static_cast<uint32_t>(below.size()), std::move(inside)});
    bases_.insert(bases_.end(), below.begin(), below.end());
  }
  KJ_REQUIRE(!entries.bad(), "tree is damaged", item.tree);
}

// ---- the result

bool ObjectWalk::sendsCommit(uint32_t commit) const {
  return filter_ == nullptr || filter_->sendsCommits() || (commitFlags_[commit] & kGiven) != 0;
}

bool ObjectWalk::sends(const ObjectId& id) const {
  uint32_t commit = commits_.find(id);
  if (commit == OidIndex::kAbsent) return (marked(id) & kSend) != 0;
  return commit < commitFlags_.size() && sendsCommit(commit) &&
         (commitFlags_[commit] & (kListed | kUninteresting)) == kListed;
}

void ObjectWalk::includeTag(const ObjectId& tag, const ObjectId& peeled) {
  if (!sends(peeled)) return;
  ObjectId id = tag;
  while (id != peeled) {
    if (mark(id, kSend)) tags_.push_back(objects_.find(id));
    auto object = commits_.source().read(id);
    auto& data = KJ_REQUIRE_NONNULL(object, "tag is missing from the repository", id);
    ObjectType targetType = ObjectType::kNone;
    ObjectId target;
    if (data.type != ObjectType::kTag || !scanTag(data.data, target, targetType)) return;
    id = target;
  }
}

PackPlan ObjectWalk::take() {
  PackPlan plan;
  for (uint32_t commit : listed_) {
    if (sendsCommit(commit)) plan.objects.add(commits_.id(commit));
  }
  for (uint32_t tag : tags_) plan.objects.add(objects_[tag]);
  for (auto at = others_.rbegin(); at != others_.rend(); ++at) plan.objects.add(objects_[*at]);
  // Of a partial client only trees, if at all: others may only be promised to it.
  const uint8_t had = filter_ == nullptr ? kHas : kHas | kTree;
  const bool anyHad = filter_ == nullptr || !filter_->omitsTrees();
  for (uint32_t number = 0; anyHad && number < objectFlags_.size(); ++number) {
    if ((objectFlags_[number] & had) == had && !plan.objects.contains(objects_[number])) {
      plan.clientHas.add(objects_[number]);
    }
  }
  listed_ = {};
  ordered_ = {};
  objects_.clear();
  objectFlags_ = {};
  others_ = {};
  tags_ = {};
  return plan;
}

}  // namespace packmoor::gitlayer
