// What is written to an etcd that is accepted although its past is another one (DESIGN rule 18).
//
// A restored etcd may lack epochs that were handed out, and configurations that were active. What it
// lacks is known to members: whoever takes an epoch keeps its record durably before it acts on it,
// and members keep what they have read and promised. So every counted member of the newest known
// configuration of a volume must be asked, except those that the operator gives up as lost. Then:
//   - The record of the highest epoch that they know is written.
//   - Where a member has promised a higher epoch than that, or etcd has handed one out, an attempt
//     of that epoch that never became active is written above it: the next takeover takes a higher
//     one, and fences the last active configuration.
//   - Nothing takes the lead by this. The present primary's epoch stays the active one.
// Pure functions.
#pragma once

#include <rpc/etcd_coordinator.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace packmoor::rpc {

struct NodeKnowledge {
  std::string node;
  replicator::Uuid journal;
  bool doubts = false;
  uint64_t seenCluster = 0;            // 0: it has not seen etcd since it started
  EtcdMemory memory;
  std::map<replicator::VolumeId, replicator::Epoch> promises;   // of the volumes that it has open
};

struct ReseedPlan {
  std::vector<std::string> problems;   // sentences; the plan may be carried out only without any
  std::vector<replicator::VolumeRecord> volumes;
  std::vector<std::string> done;       // for each of them, a sentence
  EtcdPastMarker marker;
};

// The counted members of all configurations in these memories: whom to ask next.
std::set<std::string> membersKnown(const std::vector<NodeKnowledge>& asked);

ReseedPlan planReseed(const std::vector<NodeKnowledge>& asked, const EtcdSurvey& survey,
                      const std::set<std::string>& without,
                      const std::function<replicator::Uuid()>& newUuid);

}  // namespace packmoor::rpc
