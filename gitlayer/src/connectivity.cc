#include "gitlayer/connectivity.h"

#include "object_links.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kBranchPrefix = "refs/heads/";

bool linkBefore(const ObjectLink& a, const ObjectLink& b) {
  return a.id != b.id ? a.id < b.id : a.type < b.type;
}
bool sameLink(const ObjectLink& a, const ObjectLink& b) {
  return a.id == b.id && a.type == b.type;
}

ObjectType typeAnywhere(const ObjectId& id, NewObjects& added, ObjectSource& source) {
  ObjectType type = added.typeOf(id);
  if (type != ObjectType::kNone) return type;
  KJ_IF_MAYBE(header, source.header(id)) { return header->type; }
  return ObjectType::kNone;
}

// The links of a commit or tag, new or old; empty when it cannot be read.
std::vector<ObjectLink> linksOf(const ObjectId& id, ObjectType type, NewObjects& added,
                                ObjectSource& source, int64_t* seconds = nullptr) {
  std::vector<ObjectLink> links;
  auto look = [&](kj::ArrayPtr<const kj::byte> data) {
    if (!scanLinks(type, data, links)) links.clear();
    if (seconds != nullptr) *seconds = committerSeconds(data);
  };
  if (added.typeOf(id) != ObjectType::kNone) {
    auto data = added.read(id);
    look(data);
  } else {
    KJ_IF_MAYBE(object, source.read(id)) { look(object->data); }
  }
  return links;
}

// Goes from a tip over the commits and tags of the push; what it meets of the repository is `outside`.
class AddedWalk {
 public:
  AddedWalk(NewObjects& added, ObjectSource& source) : added_(added), source_(source) {}

  // True once `wanted` is true of an object that is met.
  template <typename F>
  bool find(const ObjectId& tip, F wanted) {
    visit(tip);
    for (size_t looked = 0; !left_.empty() && looked < kAddedWalkMax; ++looked) {
      const ObjectId id = left_.back();
      left_.pop_back();
      if (wanted(id)) return true;
      for (const ObjectLink& link : linksOf(id, added_.typeOf(id), added_, source_)) {
        if (link.type == ObjectType::kCommit || link.type == ObjectType::kTag) visit(link.id);
      }
    }
    return std::any_of(outside.begin(), outside.end(), wanted);
  }

  std::vector<ObjectId> outside;

 private:
  void visit(const ObjectId& id) {
    if (!seen_.insert(id).second) return;
    (added_.typeOf(id) != ObjectType::kNone ? left_ : outside).push_back(id);
  }

  NewObjects& added_;
  ObjectSource& source_;
  std::unordered_set<ObjectId> seen_;
  std::vector<ObjectId> left_;
};

// Is a commit reached from others? Newest first, from both, until only what both reach is left: as git
// finds merge bases, so that the walk ends where the histories part.
class ForwardSearch {
 public:
  ForwardSearch(NewObjects& added, ObjectSource& source, const ObjectId& target, size_t readsMax)
      : added_(added), source_(source), target_(target), readsMax_(readsMax) {}

  bool reachedFrom(const std::vector<ObjectId>& tips) {
    paint(target_, kOld);
    for (const ObjectId& tip : tips) paint(tip, kNew);
    while (live_ > 0 && !found_ && nodes_.size() < readsMax_) {
      Node& node = nodes_.at(queue_.top().id);
      queue_.pop();
      node.queued = false;
      if ((node.flags & kStale) == 0) --live_;
      uint8_t flags = node.flags;
      if ((flags & (kOld | kNew)) == (kOld | kNew)) flags |= kStale;
      for (const ObjectId& parent : node.parents) paint(parent, flags);
    }
    return found_;
  }

 private:
  static constexpr uint8_t kOld = 1, kNew = 2, kStale = 4;  // stale: below what both reach
  struct Node {
    int64_t seconds = 0;
    std::vector<ObjectId> parents;
    uint8_t flags = 0;
    bool queued = false;
  };
  struct Dated {
    int64_t seconds;
    ObjectId id;
    bool operator<(const Dated& other) const { return seconds < other.seconds; }
  };

  Node& nodeOf(const ObjectId& id) {
    auto [at, isNew] = nodes_.try_emplace(id);
    if (isNew) {
      Node& node = at->second;
      for (const auto& link : linksOf(id, ObjectType::kCommit, added_, source_, &node.seconds)) {
        if (link.type == ObjectType::kCommit) node.parents.push_back(link.id);
      }
    }
    return at->second;
  }

  void paint(const ObjectId& id, uint8_t flags) {
    Node& node = nodeOf(id);
    if ((node.flags & flags) == flags) return;
    const bool wasLive = node.queued && (node.flags & kStale) == 0;
    node.flags |= flags;
    if (id == target_ && (flags & kNew) != 0) found_ = true;
    if (!node.queued) queue_.push({node.seconds, id});
    node.queued = true;
    const bool isLive = (node.flags & kStale) == 0;
    live_ += isLive;
    live_ -= wasLive;
  }

  NewObjects& added_;
  ObjectSource& source_;
  const ObjectId& target_;
  size_t readsMax_;
  std::unordered_map<ObjectId, Node> nodes_;
  std::priority_queue<Dated> queue_;
  size_t live_ = 0;      // in the queue, and not stale
  bool found_ = false;
};

bool isForward(const RefUpdate& update, NewObjects& added, ObjectSource& source, size_t readsMax) {
  const ObjectId& old = update.oldId;
  if (typeAnywhere(old, added, source) != ObjectType::kCommit) return false;
  AddedWalk walk(added, source);
  if (walk.find(update.newId, [&](const ObjectId& id) { return id == old; })) return true;
  return ForwardSearch(added, source, old, readsMax).reachedFrom(walk.outside);
}

TipProblem peel(RefUpdate& update, NewObjects& added, ObjectSource& source) {
  ObjectId id = update.newId;
  for (size_t depth = 0; depth < kTagDepthMax; ++depth) {
    auto links = linksOf(id, ObjectType::kTag, added, source);
    if (links.empty()) return {kMissingObjects, {}};
    id = links[0].id;
    if (links[0].type != ObjectType::kTag) {
      update.peeled = id;
      return {};
    }
  }
  return {kUpdateProblem, kj::str("the tag ", update.newId, " leads through more than ",
                                          kTagDepthMax, " tags").cStr()};
}

}  // namespace

std::vector<ObjectLink> brokenOutside(ObjectSource& source, std::vector<ObjectLink> links) {
  std::sort(links.begin(), links.end(), linkBefore);
  links.erase(std::unique(links.begin(), links.end(), sameLink), links.end());
  std::vector<ObjectLink> broken;
  for (const ObjectLink& link : links) {
    bool good = false;
    if (link.type == ObjectType::kBlob) {
      good = source.exists(link.id);
    } else {
      KJ_IF_MAYBE(header, source.header(link.id)) { good = header->type == link.type; }
    }
    if (!good) broken.push_back(link);
  }
  return broken;
}

std::vector<ObjectLink> brokenLinks(NewObjects& added, ObjectSource& source,
                                    kj::ArrayPtr<const ObjectLink> links) {
  std::vector<ObjectLink> outside, broken;
  for (const ObjectLink& link : links) {
    ObjectType type = added.typeOf(link.id);
    if (type == ObjectType::kNone) {
      outside.push_back(link);
    } else if (type != link.type) {
      broken.push_back(link);
    }
  }
  auto more = brokenOutside(source, std::move(outside));
  broken.insert(broken.end(), more.begin(), more.end());
  return broken;
}

bool reachesAdded(const ObjectId& tip, NewObjects& added, ObjectSource& source,
                  const std::unordered_set<ObjectId>& targets) {
  return AddedWalk(added, source).find(tip, [&](const ObjectId& id) { return targets.count(id) > 0; });
}

TipProblem completeUpdate(RefUpdate& update, NewObjects& added, ObjectSource& source, bool exact) {
  update.peeled = {};
  update.forward = false;
  if (update.newId.isZero()) return {};
  ObjectType type = typeAnywhere(update.newId, added, source);
  if (type == ObjectType::kNone) return {kMissingObjects, {}};
  if (type != ObjectType::kCommit && update.name.substr(0, kBranchPrefix.size()) == kBranchPrefix) {
    return {kUpdateProblem,
            kj::str("cannot update ref '", update.name.c_str(),
                    "': trying to write non-commit object ", update.newId, " to branch '",
                    update.name.c_str(), "'").cStr()};
  }
  if (type == ObjectType::kTag) {
    TipProblem problem = peel(update, added, source);
    if (!problem.reason.empty()) return problem;
  }
  if (update.oldId.isZero() || update.oldId == update.newId) {
    update.forward = true;
  } else if (type == ObjectType::kCommit) {
    update.forward = isForward(update, added, source, exact ? kForwardReadsExactMax : kForwardReadsMax);
  }
  return {};
}

}  // namespace packmoor::gitlayer
