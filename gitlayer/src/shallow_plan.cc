#include "shallow_plan.h"

#include "object_names.h"

#include <algorithm>

namespace packmoor::gitlayer {

ShallowPlan::ShallowPlan(RepositoryView& view, CommitTable& commits, const ShallowRequest& request,
                         const std::vector<ObjectId>& wants,
                         const std::vector<uint32_t>& wantCommits)
    : view_(view), commits_(commits), request_(request), wants_(wants), wantCommits_(wantCommits) {
  problem_ = request.finish();
  if (!problem_) readShallows();
  if (problem_ || !request.deepens()) {
    finish();
  } else if (request.depth == 0) {
    beginRevisions();
  } else if (request.relative || request.depth == ShallowRequest::kWhole) {
    beginReachable();
  } else {
    beginDepth(wantCommits_, request.depth);
  }
}

bool ShallowPlan::step(uint32_t budget) {
  while (budget > 0 && phase_ != Phase::kDone) {
    switch (phase_) {
      case Phase::kReachable:
        if (!walk_->step(budget)) return false;
        endReachable();
        break;
      case Phase::kDepth:
        stepDepth(budget);
        break;
      case Phase::kRevisions:
        if (!walk_->step(budget)) return false;
        endRevisions();
        break;
      case Phase::kDone:
        break;
    }
  }
  return phase_ == Phase::kDone;
}

// A cut that is not here says nothing about what is.
void ShallowPlan::readShallows() {
  ObjectSource& source = commits_.source();
  for (const ObjectId& id : request_.shallows.names()) {
    KJ_IF_MAYBE(header, source.header(id)) {
      if (header->type != ObjectType::kCommit) {
        problem_ = "upload-pack: invalid shallow object " + std::string(id.hex().cStr());
        return;
      }
      shallows_.push_back(commits_.add(id));
    }
  }
}

// ---- cuts that move with the client's own

void ShallowPlan::beginReachable() {
  if (view_.refsReachAll() || shallows_.empty()) {
    reachable_ = shallows_;
    return endReachable();
  }
  OidIndex tips;
  view_.forEachRef("", [&](const Ref& ref) {
    tips.add(ref.id);
    return true;
  });
  std::vector<ObjectId> asked;
  for (uint32_t commit : shallows_) asked.push_back(commits_.id(commit));
  walk_ = std::make_unique<ObjectWalk>(commits_, std::move(asked), tips.names());
  walk_->commitsOnly();
}

void ShallowPlan::endReachable() {
  if (walk_ != nullptr) {
    for (uint32_t commit : shallows_) {
      if (!walk_->sends(commits_.id(commit))) reachable_.push_back(commit);
    }
    walk_ = nullptr;
  }
  if (request_.depth == ShallowRequest::kWhole) {
    for (uint32_t commit : reachable_) flags(commit) |= kInside;
    return finish();
  }
  beginDepth(reachable_, request_.depth + 1);
}

// ---- cuts at a depth

void ShallowPlan::beginDepth(const std::vector<uint32_t>& heads, uint32_t depth) {
  phase_ = Phase::kDepth;
  levelsLeft_ = depth - 1;
  for (uint32_t commit : heads) {
    if (flags(commit) & kSeen) continue;
    flags(commit) |= kSeen;
    level_.push_back(commit);
  }
}

void ShallowPlan::stepDepth(uint32_t& budget) {
  while (budget > 0) {
    if (levelsLeft_ == 0 || level_.empty()) {
      borders_ = std::move(level_);
      return finish();
    }
    if (levelDone_ == level_.size()) {
      level_ = std::move(nextLevel_);
      nextLevel_.clear();
      levelDone_ = 0;
      --levelsLeft_;
      continue;
    }
    --budget;
    uint32_t commit = level_[levelDone_++];
    flags(commit) |= kInside;
    uint32_t parentCount = commits_.load(commit).parentCount;
    for (uint32_t i = 0; i < parentCount; ++i) {
      uint32_t parent = commits_.parent(commits_.load(commit), i);
      if (flags(parent) & kSeen) continue;
      flags(parent) |= kSeen;
      nextLevel_.push_back(parent);
    }
  }
}

// ---- cuts by time and by refs

void ShallowPlan::beginRevisions() {
  phase_ = Phase::kRevisions;
  std::vector<ObjectId> leftOut;
  for (const std::string& name : request_.notRefs) {
    auto refs = refsOfShortName(view_, name);
    if (refs.size() == 1) {
      leftOut.push_back(refs[0].id);
      continue;
    }
    problem_ = "upload-pack: deepen-not is not the name of one ref: " + quotedLine(name);
    return finish();
  }
  walk_ = std::make_unique<ObjectWalk>(commits_, wants_, std::move(leftOut));
  walk_->commitsOnly();
  if (request_.since) walk_->leaveOutBefore(*request_.since);
}

void ShallowPlan::endRevisions() {
  const auto& chosen = walk_->commits();
  if (chosen.empty()) problem_ = "upload-pack: no commits selected for shallow requests";
  for (uint32_t commit : chosen) flags(commit) |= kSeen;
  for (uint32_t commit : chosen) {
    auto& node = commits_.load(commit);
    bool inside = true;
    for (uint32_t i = 0; i < node.parentCount; ++i) {
      inside = inside && (flags(commits_.parent(node, i)) & kSeen);
    }
    if (inside) {
      flags(commit) |= kInside;
    } else {
      borders_.push_back(commit);
    }
  }
  walk_ = nullptr;
  finish();
}

// ---- the result

void ShallowPlan::finish() {
  phase_ = Phase::kDone;
  if (problem_) return;
  cuts_ = shallows_;
  for (uint32_t commit : shallows_) {
    if (!(flags(commit) & kInside)) continue;
    unshallow_.push_back(commits_.id(commit));
    auto& node = commits_.load(commit);
    for (uint32_t i = 0; i < node.parentCount; ++i) {
      moreWants_.push_back(commits_.id(commits_.parent(node, i)));
    }
  }
  for (uint32_t commit : borders_) {
    if (request_.shallows.contains(commits_.id(commit))) continue;
    shallow_.push_back(commits_.id(commit));
    cuts_.push_back(commit);
  }
}

void ShallowPlan::cutHistory() {
  for (uint32_t commit : cuts_) commits_.cut(commit);
}

uint8_t& ShallowPlan::flags(uint32_t commit) {
  if (commit >= flags_.size()) flags_.resize(std::max<size_t>(commit + 1, commits_.size()), 0);
  return flags_[commit];
}

}  // namespace packmoor::gitlayer
