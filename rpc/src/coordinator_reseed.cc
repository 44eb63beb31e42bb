#include "coordinator_reseed.h"

#include <algorithm>

#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using replicator::Epoch;
using replicator::MemberIdentity;
using replicator::VolumePhase;
using replicator::VolumeRecord;

struct Candidate {
  const NodeKnowledge* node;
  const VolumeRecord* record;
};

bool follows(const VolumeRecord& a, const VolumeRecord& b) {
  return std::find(a.traits.former.begin(), a.traits.former.end(), b.id) != a.traits.former.end();
}

bool newer(const VolumeRecord& a, const VolumeRecord& b) {
  // A volume that uses the name of one that was deleted begins its epochs anew.
  if (follows(a, b) || follows(b, a)) return follows(a, b);
  if (a.current.epoch != b.current.epoch) return a.current.epoch > b.current.epoch;
  // Nothing comes after the end of a volume.
  if (a.traits.deleted != b.traits.deleted) return a.traits.deleted;
  const bool activeA = a.phase == VolumePhase::kActive, activeB = b.phase == VolumePhase::kActive;
  if (activeA != activeB) return activeA;
  return a.revision > b.revision;
}

std::vector<MemberIdentity> countedMembers(const VolumeRecord& record) {
  std::vector<MemberIdentity> members = record.current.members;
  if (record.lastActive) {
    for (const auto& member : record.lastActive->members) {
      if (std::find(members.begin(), members.end(), member) == members.end()) {
        members.push_back(member);
      }
    }
  }
  return members;
}

const NodeKnowledge* find(const std::vector<NodeKnowledge>& asked, const std::string& node) {
  for (const auto& knowledge : asked) {
    if (knowledge.node == node) return &knowledge;
  }
  return nullptr;
}

// Whether the node is out of the old etcd for good: it refuses the one that is being accepted, or
// follows the same cluster already and has seen nothing newer there.
std::string stillElsewhere(const NodeKnowledge& knowledge, const EtcdSurvey& survey) {
  if (knowledge.doubts && knowledge.seenCluster == survey.now.clusterId) return {};
  if (!knowledge.doubts && knowledge.memory.clusterId == survey.now.clusterId &&
      knowledge.memory.revision <= survey.now.revision) {
    return {};
  }
  return "Node " + knowledge.node + " has not seen this etcd yet: it may still use another one. Wait "
         "a few seconds, and look at its `packmoorctl coordinator status`.";
}

class VolumePlanner {
 public:
  VolumePlanner(const std::string& name, const std::vector<NodeKnowledge>& asked,
                const EtcdSurvey& survey, const std::set<std::string>& without, ReseedPlan& plan)
      : name_(name), asked_(asked), without_(without), plan_(plan) {
    for (const auto& knowledge : asked) {
      for (const auto& record : knowledge.memory.volumes) {
        if (record.name == name) candidates_.push_back({&knowledge, &record});
      }
    }
    for (const auto& record : survey.volumes) {
      if (record.name == name) stored_ = &record;
    }
  }

  void plan(const std::function<replicator::Uuid()>& newUuid) {
    const Candidate best = *std::max_element(
        candidates_.begin(), candidates_.end(),
        [](const Candidate& a, const Candidate& b) { return newer(*b.record, *a.record); });
    checkForks(best);
    const Epoch promised = checkMembers(*best.record);
    VolumeRecord record = *best.record;
    // What etcd has under the name may be another volume that was deleted before this one.
    const bool sameStored = stored_ != nullptr && stored_->id == record.id;
    Epoch above = std::max(promised, sameStored ? stored_->current.epoch : Epoch());
    std::string done = "written as " + best.node->node + " knows it: epoch " +
                       std::to_string(record.current.epoch.value);
    if (record.traits.deleted) {
      done += ", deleted";
    } else if (above > record.current.epoch) {
      if (record.lastActive) {
        record.current.members = record.lastActive->members;
        record.current.async = record.lastActive->async;
        record.current.writeQuorum = record.lastActive->writeQuorum;
      }
      record.current.epoch = above;
      record.current.nonce = newUuid();
      record.phase = VolumePhase::kRecovering;
      done += ", and epoch " + std::to_string(above.value) +
              ", which was promised or handed out, as an attempt that failed";
    }
    record.revision = revisionOf(nextGeneration(), 0);
    plan_.volumes.push_back(record);
    plan_.done.push_back(done + ".");
  }

 private:
  void checkForks(const Candidate& best) {
    for (const Candidate& other : candidates_) {
      if (follows(*best.record, *other.record)) continue;
      if (other.record->id != best.record->id) {
        plan_.problems.push_back("Nodes " + best.node->node + " and " + other.node->node +
                                 " know different volumes by the name of " + name_ + ".");
        return;
      }
      if (other.record->current.epoch != best.record->current.epoch ||
          other.record->current.nonce == best.record->current.nonce) {
        continue;
      }
      plan_.problems.push_back("Nodes " + best.node->node + " and " + other.node->node +
                               " know different owners of epoch " +
                               std::to_string(best.record->current.epoch.value) + " of volume " +
                               name_ + ": they followed different pasts.");
    }
  }

  // The highest promise; what keeps a member from being counted is a problem.
  Epoch checkMembers(const VolumeRecord& best) {
    Epoch promised;
    for (const MemberIdentity& member : countedMembers(best)) {
      const NodeKnowledge* knowledge = find(asked_, member.node);
      std::string wrong;
      if (knowledge == nullptr) {
        wrong = "does not answer";
      } else if (knowledge->journal != member.journal) {
        wrong = "has another disk than when it became a member";
      } else {
        auto promise = knowledge->promises.find(best.id);
        if (promise != knowledge->promises.end()) {
          promised = std::max(promised, promise->second);
          continue;
        }
        if (best.traits.deleted) continue;  // nobody opens it any more, nor promises anything
        wrong = "has not opened the volume";
      }
      if (without_.count(member.node) > 0) continue;
      plan_.problems.push_back("Member " + member.node + " of volume " + name_ + " " + wrong +
                               ", and may know a later configuration. Start it, or, when it is lost "
                               "for good, say --without " + member.node + ".");
    }
    return promised;
  }

  uint64_t nextGeneration() const {
    uint64_t highest = stored_ == nullptr ? 0 : generationOf(stored_->revision);
    for (const Candidate& candidate : candidates_) {
      highest = std::max(highest, generationOf(candidate.record->revision));
    }
    return highest + 1;
  }

  const std::string& name_;
  const std::vector<NodeKnowledge>& asked_;
  const std::set<std::string>& without_;
  ReseedPlan& plan_;
  std::vector<Candidate> candidates_;
  const VolumeRecord* stored_ = nullptr;
};

}  // namespace

std::set<std::string> membersKnown(const std::vector<NodeKnowledge>& asked) {
  std::set<std::string> members;
  for (const auto& knowledge : asked) {
    for (const auto& record : knowledge.memory.volumes) {
      for (const auto& member : countedMembers(record)) members.insert(member.node);
    }
  }
  return members;
}

ReseedPlan planReseed(const std::vector<NodeKnowledge>& asked, const EtcdSurvey& survey,
                      const std::set<std::string>& without,
                      const std::function<replicator::Uuid()>& newUuid) {
  ReseedPlan plan;
  std::set<std::string> names;
  for (const auto& knowledge : asked) {
    const std::string problem = stillElsewhere(knowledge, survey);
    if (!problem.empty()) plan.problems.push_back(problem);
    for (const auto& record : knowledge.memory.volumes) names.insert(record.name);
  }
  for (const std::string& name : names) {
    VolumePlanner(name, asked, survey, without, plan).plan(newUuid);
  }
  plan.marker.past = newUuid();
  for (const auto& knowledge : asked) {
    plan.marker.nodes.push_back(knowledge.node);
    auto& continues = plan.marker.continues;
    auto same = std::find_if(continues.begin(), continues.end(), [&](const auto& old) {
      return old.clusterId == knowledge.memory.clusterId && old.past == knowledge.memory.past;
    });
    if (same == continues.end()) {
      continues.push_back({knowledge.memory.clusterId, knowledge.memory.past, 0});
      same = continues.end() - 1;
    }
    same->revision = std::max(same->revision, knowledge.memory.listed);
  }
  return plan;
}

}  // namespace packmoor::rpc
