// The counting rules of DESIGN section 6: who must be fenced, which log is adopted, what W
// acknowledgements commit, which reads a confirm round serves. Pure functions and one small
// counter; nothing here knows a clock, a network or a journal.
#pragma once

#include "replicator/coordinator.h"
#include "replicator/peer.h"

#include <vector>

namespace packmoor::replicator {

// The configuration that a takeover fences (rule 5): the last active one, or before the first
// activation the members that the volume was created with.
const VolumeConfiguration& configurationToFence(const VolumeRecord& record);

bool isMember(const VolumeConfiguration& configuration, const MemberIdentity& who);

// Those whom a fence asks: of the last active configuration, or, by an operator's order, those kept.
const VolumeConfiguration& configurationAsked(const FenceRequest& request);

// What goes on when a loss is accepted: those kept are counted, all others follow at most.
VolumeConfiguration keeping(const std::vector<MemberIdentity>& kept, const VolumeConfiguration& last);

// Is the member's log known to be of the volume's history? Not when an accepted loss was not decided by
// this log among others (AcceptedLoss::kept), and it has nothing that came after. Records of that epoch and later ones are of the history only,
// and by the hash chain so is all before them.
bool isProven(const VolumeRecord& record, const MemberIdentity& who, const LogPosition& last);

// Rule 5: N - W + 1.
size_t fenceQuorum(const VolumeConfiguration& configuration);

// Rule 4, 5: is this report from a member of the configuration, promised and complete?
bool countsAsFenced(const VolumeConfiguration& configuration, const FenceReply& reply);

// Rule 6: the maximum by (epoch of the last record, last index); null for no reports.
const FenceReply* chooseAdopted(const std::vector<const FenceReply*>& reports);

// The W-th largest of what each counted member has; 0 with fewer than W members.
uint64_t countedByQuorum(std::vector<uint64_t> values, size_t writeQuorum);

// Indexes at which to compare two logs: dense near the end, sparse further down, ascending, `base`
// first. Few enough for one message, and the found prefix is at most about twice as far from
// the end as the true one.
std::vector<RecordIndex> indexesToCompare(RecordIndex base, RecordIndex last);

// Rule 15: counts acknowledgements of one epoch of a primary.
class CommitCounter {
 public:
  // `start`: index of the epoch's EpochStart. `members`: number of counted members, by slot.
  CommitCounter(Epoch epoch, RecordIndex start, size_t members, size_t writeQuorum);

  // Records that the member in `slot` has everything up to `index`, durable and verified. An
  // acknowledgement that is tagged with another epoch is not counted (rule 14).
  void acknowledge(size_t slot, Epoch epoch, RecordIndex index);
  RecordIndex acknowledged(size_t slot) const { return RecordIndex(acknowledged_[slot]); }

  // Durable on W members; 0 while that does not include EpochStart, so that only records of the
  // own epoch commit by counting (invariant 3).
  RecordIndex onQuorum() const;
  RecordIndex onOneShort() const;  // on W-1 members: for PlantedFault::kStartOneShort only
  RecordIndex everywhere() const;  // durable on all counted members

 private:
  Epoch epoch_;
  RecordIndex start_;
  size_t writeQuorum_;
  std::vector<uint64_t> acknowledged_;
};

}  // namespace packmoor::replicator
