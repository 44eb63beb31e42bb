#include "quorum.h"

#include "kernelio/check.h"
#include "planted_fault.h"

#include <algorithm>

namespace packmoor::replicator {

const VolumeConfiguration& configurationToFence(const VolumeRecord& record) {
  return record.lastActive.has_value() ? *record.lastActive : record.current;
}

bool isMember(const VolumeConfiguration& configuration, const MemberIdentity& who) {
  const auto& members = configuration.members;
  return std::find(members.begin(), members.end(), who) != members.end();
}

const VolumeConfiguration& configurationAsked(const FenceRequest& request) {
  return request.acceptsLoss ? request.coordinator.current
                             : configurationToFence(request.coordinator);
}

VolumeConfiguration keeping(const std::vector<MemberIdentity>& kept,
                            const VolumeConfiguration& last) {
  auto isKept = [&](const MemberIdentity& who) {
    return std::find(kept.begin(), kept.end(), who) != kept.end();
  };
  VolumeConfiguration next = last;
  next.members = kept;
  next.writeQuorum = std::min(last.writeQuorum, static_cast<uint32_t>(kept.size()));
  std::erase_if(next.async, isKept);
  std::erase_if(next.joining, isKept);
  for (const MemberIdentity& member : last.members) {
    if (isKept(member)) continue;
    next.async.push_back(member);
    next.joining.push_back(member);
  }
  return next;
}

bool isProven(const VolumeRecord& record, const MemberIdentity& who, const LogPosition& last) {
  if (planted(PlantedFault::kUnprovenCounts)) return true;
  for (const AcceptedLoss& loss : record.losses) {
    const bool kept = std::find(loss.kept.begin(), loss.kept.end(), who) != loss.kept.end();
    if (!kept && last.epoch < loss.epoch) return false;
  }
  return true;
}

size_t fenceQuorum(const VolumeConfiguration& configuration) {
  const size_t members = configuration.members.size();
  PACKMOOR_CHECK(configuration.writeQuorum >= 1 && configuration.writeQuorum <= members,
                 "an impossible write quorum", configuration.writeQuorum, members);
  if (planted(PlantedFault::kFenceNMinusW) && members > configuration.writeQuorum) {
    return members - configuration.writeQuorum;
  }
  return members - configuration.writeQuorum + 1;
}

bool countsAsFenced(const VolumeConfiguration& configuration, const FenceReply& reply) {
  // Invariant 8: a member in repair is never counted. The other place is VolumeImpl::fence.
  return reply.promised && !reply.repairing && isMember(configuration, reply.member);
}

const FenceReply* chooseAdopted(const std::vector<const FenceReply*>& reports) {
  const FenceReply* best = nullptr;
  for (const FenceReply* report : reports) {
    const bool better = best != nullptr && (planted(PlantedFault::kAdoptByIndex)
                                                ? report->last.index > best->last.index
                                                : adoptBefore(report->last, best->last));
    if (best == nullptr || better) best = report;
  }
  return best;
}

uint64_t countedByQuorum(std::vector<uint64_t> values, size_t writeQuorum) {
  if (writeQuorum == 0 || values.size() < writeQuorum) return 0;
  std::nth_element(values.begin(), values.begin() + (writeQuorum - 1), values.end(),
                   std::greater<uint64_t>());
  return values[writeQuorum - 1];
}

std::vector<RecordIndex> indexesToCompare(RecordIndex base, RecordIndex last) {
  std::vector<RecordIndex> indexes;
  uint64_t back = 0;
  while (last.value >= base.value + back) {
    indexes.push_back(RecordIndex(last.value - back));
    back = back == 0 ? 1 : back * 2;
  }
  if (indexes.empty() || indexes.back() != base) indexes.push_back(base);
  std::reverse(indexes.begin(), indexes.end());
  return indexes;
}

CommitCounter::CommitCounter(Epoch epoch, RecordIndex start, size_t members, size_t writeQuorum)
    : epoch_(epoch), start_(start), writeQuorum_(writeQuorum), acknowledged_(members, 0) {
  PACKMOOR_CHECK(writeQuorum >= 1 && writeQuorum <= members, "an impossible write quorum",
                 writeQuorum, members);
}

void CommitCounter::acknowledge(size_t slot, Epoch epoch, RecordIndex index) {
  if (epoch != epoch_) return;
  acknowledged_[slot] = std::max(acknowledged_[slot], index.value);
}

RecordIndex CommitCounter::onQuorum() const {
  const RecordIndex index(countedByQuorum(acknowledged_, writeQuorum_));
  return index < start_ && !planted(PlantedFault::kCountOlderEpochs) ? RecordIndex() : index;
}

RecordIndex CommitCounter::onOneShort() const {
  return RecordIndex(countedByQuorum(acknowledged_, writeQuorum_ > 1 ? writeQuorum_ - 1 : 1));
}

RecordIndex CommitCounter::everywhere() const {
  return RecordIndex(*std::min_element(acknowledged_.begin(), acknowledged_.end()));
}

}  // namespace packmoor::replicator
