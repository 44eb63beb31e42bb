// Leads are spread over the nodes by themselves (lead_balance.h).
#include "replicator_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

namespace packmoor::replicator {

namespace {
constexpr uint64_t kLevelRecordsMax = 256;     // a member that is so little behind is level
constexpr int64_t kMoveTimeoutMs = 10'000;
}  // namespace

// `records` were read just now.
void ReplicatorImpl::spreadLeads(const std::vector<VolumeRecord>& records) {
  if (!options_.autoBalance || stopped_ || movingLead_) return;
  auto move = balancer_.sample(monotonicMs(parts_.env.timer), records, self_.node,
                               everythingIsWell(records));
  if (!move.has_value()) return;
  movingLead_ = true;
  tasks_.add(moveLead(*move));
}

// As far as this node sees: how far members are, it knows of the volumes that it leads.
bool ReplicatorImpl::everythingIsWell(const std::vector<VolumeRecord>& records) {
  if (!ready() || !parts_.coordinator.reachable() || !parts_.coordinator.doubt().empty()) return false;
  for (const VolumeRecord& record : records) {
    if (record.traits.deleted) continue;
    if (!record.current.joining.empty()) return false;
    for (const MemberIdentity& member : record.current.members) {
      if (member.node != self_.node && !parts_.peers.peer(member.node).connected()) return false;
    }
  }
  for (auto& [name, volume] : volumes_) {
    const VolumeStatus status = volume->status();
    if (status.repairing || status.transfer.running || status.brake.on) return false;
    if (status.role == VolumeRole::kTakingOver) return false;
    if (status.role != VolumeRole::kPrimary) continue;
    for (const MemberStatus& member : status.members) {
      if (!member.counted) continue;
      if (!member.problem.empty() || member.lagRecords > kLevelRecordsMax) return false;
    }
  }
  return true;
}

// A planned move: the other catches up first, and no push fails.
Co<void> ReplicatorImpl::moveLead(LeadMove move) {
  auto open = volumes_.find(move.volume);
  if (open != volumes_.end()) {
    KJ_LOG(INFO, "the leads are uneven: this node gives one away", move.volume.c_str(),
           move.to.c_str());
    auto moved = parts_.env.timer.timeoutAfter(kMoveTimeoutMs * kj::MILLISECONDS,
                                               open->second->switchOver(move.to));
    auto failure = co_await outcomeOf(kj::mv(moved));
    KJ_IF_MAYBE(exception, failure) {
      KJ_LOG(INFO, "the lead was not given away; it is tried again later", move.volume.c_str(),
             exception->getDescription());
    }
  }
  movingLead_ = false;
  coordinatorWanted_.notify();
}

}  // namespace packmoor::replicator
