#include "gitlayer/connectivity.h"

#include <algorithm>
#include <queue>
#include <unordered_set>

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kBranchPrefix = "refs/heads/";
constexpr int64_t kClockSkewSeconds = 86400;  // commits whose clocks differed by less are in order

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
    if (checkObject(type, data, links) != nullptr) links.clear();
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

// Is `target` reached from `tip` over parents?
class ForwardSearch {
 public:
  ForwardSearch(NewObjects& added, ObjectSource& source, const ObjectId& target)
      : added_(added), source_(source), target_(target) {}

  bool reaches(const ObjectId& tip) {
    if (added_.typeOf(target_) == ObjectType::kNone) {
      ObjectType type = typeAnywhere(target_, added_, source_);
      if (type != ObjectType::kCommit) return false;
    }
    visit(tip);
    return found_ || throughAdded() || throughRepository();
  }

 private:
  struct Dated {
    int64_t seconds;
    ObjectId id;
    bool operator<(const Dated& other) const { return seconds < other.seconds; }
  };

  void visit(const ObjectId& id) {
    if (id == target_) found_ = true;
    if (!seen_.insert(id).second) return;
    (added_.typeOf(id) != ObjectType::kNone ? addedLeft_ : outside_).push_back(id);
  }

  bool throughAdded() {
    for (size_t looked = 0; !addedLeft_.empty() && looked < kForwardAddedMax; ++looked) {
      ObjectId id = addedLeft_.back();
      addedLeft_.pop_back();
      for (const ObjectLink& link : linksOf(id, ObjectType::kCommit, added_, source_)) {
        if (link.type == ObjectType::kCommit) visit(link.id);
      }
      if (found_) return true;
    }
    return false;
  }

  // Newest first, and not past the target's own date.
  bool throughRepository() {
    int64_t oldest = 0;
    linksOf(target_, ObjectType::kCommit, added_, source_, &oldest);
    oldest -= kClockSkewSeconds;
    std::priority_queue<Dated> queue;
    std::unordered_set<ObjectId> queued;
    for (const ObjectId& id : outside_) {
      if (queued.insert(id).second) queue.push({INT64_MAX, id});
    }
    for (size_t reads = 0; !queue.empty() && reads < kForwardReadsMax; ++reads) {
      Dated next = queue.top();
      queue.pop();
      int64_t seconds = 0;
      auto links = linksOf(next.id, ObjectType::kCommit, added_, source_, &seconds);
      if (seconds < oldest) continue;
      for (const ObjectLink& link : links) {
        if (link.type != ObjectType::kCommit) continue;
        if (link.id == target_) return true;
        if (queued.insert(link.id).second) queue.push({seconds, link.id});
      }
    }
    return false;
  }

  NewObjects& added_;
  ObjectSource& source_;
  const ObjectId& target_;
  bool found_ = false;
  std::unordered_set<ObjectId> seen_;
  std::vector<ObjectId> addedLeft_, outside_;
};

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
  return {"failed to update ref", kj::str("the tag ", update.newId, " leads through more than ",
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

TipProblem completeUpdate(RefUpdate& update, NewObjects& added, ObjectSource& source) {
  update.peeled = {};
  update.forward = false;
  if (update.newId.isZero()) return {};
  ObjectType type = typeAnywhere(update.newId, added, source);
  if (type == ObjectType::kNone) return {kMissingObjects, {}};
  if (type != ObjectType::kCommit && update.name.substr(0, kBranchPrefix.size()) == kBranchPrefix) {
    return {"failed to update ref",
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
    update.forward = ForwardSearch(added, source, update.oldId).reaches(update.newId);
  }
  return {};
}

}  // namespace packmoor::gitlayer
