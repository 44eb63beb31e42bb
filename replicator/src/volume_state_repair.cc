// A stored state that has rotted is brought back from another member.
//
// The journal is whole, so nothing is forgotten that rule 17 speaks of: the member goes on to accept,
// acknowledge and report its log. What it cannot do is go on from a state that cannot be read. It
// gives the lead away, fetches a checkpoint of the primary as a member does that is too far behind
// (StateTransfer), and has it installed by the same one record of the journal. Until then it serves
// what can be read, where there is a state at all.
#include "volume_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

constexpr int64_t kPauseMs = 200;
constexpr int64_t kSourceMs = 10'000;   // so long a primary may take to be there before that is told of
// Between attempts to give the lead away: each keeps pushes waiting for a moment. Doubles.
constexpr int64_t kLeadPauseMsFirst = 1000, kLeadPauseMsLast = 60'000;
constexpr const char* kOnlyCopy =
    "there would have to be another member, and there is none: the volume has this one copy only, and "
    "what is damaged cannot be fetched from anywhere; what can be read is served";

}  // namespace

bool VolumeImpl::mayNotLead() const {
  return member_.repairing() || stateAbsent_ || (applier_ != nullptr && applier_->failed());
}

bool VolumeImpl::isOnlyCopy() const {
  const VolumeConfiguration& current = record_.current;
  return current.members.size() == 1 && current.hasMember(parts_.self.node) &&
         current.async.empty();
}

// The state's durable position. Where there is none that can be used, that of the journal's last
// checkpoint, which it had.
Co<LogPosition> VolumeImpl::openState() {
  auto opening = outcomeOf(stateMachine_->open());
  auto opened = co_await kj::mv(opening);
  stateDamage_ = stateMachine_->damage();
  if (!opened.ok()) {
    KJ_IF_MAYBE(exception, opened.exception) {
      if (!stateDamaged()) kj::throwFatalException(kj::mv(*exception));
    }
    stateAbsent_ = true;
  } else if (opened.value->index < log_.base().index && !member_.repairing()) {
    stateDamage_ = kj::str("the stored state ends at record ", opened.value->index,
                           ", below the first that the journal holds").cStr();
    stateMachine_->abandon(stateDamage_);
    stateAbsent_ = true;
  }
  if (stateDamaged()) {
    KJ_LOG(ERROR, "the stored state of a volume is damaged on this node", record_.name.c_str(),
           stateDamage_.c_str());
  }
  co_return stateAbsent_ ? checkpointFound_ : *opened.value;
}

void VolumeImpl::noteStateDamage() {
  if (stateDamaged() || stopped_) return;
  std::string damage = stateMachine_->damage();
  if (!damage.empty()) beginStateRepair(std::move(damage));
}

void VolumeImpl::beginStateRepair(std::string damage) {
  KJ_LOG(ERROR, "the stored state of a volume is damaged on this node", record_.name.c_str(),
         damage.c_str());
  stateDamage_ = std::move(damage);
  tasks_.add(repairState());
}

void VolumeImpl::logUnreadable(RecordIndex index, const kj::Exception& exception) {
  if (stateDamaged()) return;
  stateFloor_ = index;
  beginStateRepair(kj::str("the state cannot be brought further: ",
                           exception.getDescription()).cStr());
}

Co<void> VolumeImpl::repairState() {
  co_await kj::evalLater([]() {});  // it may be begun by what it ends
  auto noting = outcomeOf(stateMachine_->rememberDamage());
  auto failure = co_await kj::mv(noting);
  KJ_IF_MAYBE(exception, failure) {
    KJ_LOG(WARNING, "the damage of a state could not be noted for the next start",
           record_.name.c_str(), exception->getDescription());
  }
  int64_t pauseMs = kLeadPauseMsFirst;
  while (stateDamaged() && !stopped_) {
    if (primary_ != nullptr && primary_->active()) {
      co_await giveLeadAway(pauseMs);
    } else {
      pauseMs = kLeadPauseMsFirst;
      if (takeover_ == nullptr && primary_ == nullptr) fetchState();
      co_await moved_.waitFor(parts_.env.timer, kPauseMs);
    }
  }
}

Co<void> VolumeImpl::giveLeadAway(int64_t& pauseMs) {
  if (isOnlyCopy()) {
    repairStep(kOnlyCopy, NodeId(), true);
  } else {
    repairStep("it gives the lead to another member first");
    auto handing = handOver();
    const bool moved = co_await kj::mv(handing);
    if (moved) co_return;
    if (mayNotLead()) {  // nor can it serve
      stepDown(NodeId());
      co_return;
    }
    repairStep("another member would have to lead, and none takes the lead; it tries again, and "
               "serves what can be read", NodeId(), true);
  }
  co_await moved_.waitFor(parts_.env.timer, pauseMs);
  pauseMs = std::min(pauseMs * 2, kLeadPauseMsLast);
}

// A standby: from whoever leads.
void VolumeImpl::fetchState() {
  const NodeId source = transferSource();
  // What is applied must not outrun the checkpoint on its way. Without a source this member may have
  // to lead.
  applier_->pause(!source.empty());
  if (source.empty()) {
    if (sourcelessSinceMs_ == 0) sourcelessSinceMs_ = nowMs();
    repairStep(isOnlyCopy() ? kOnlyCopy : "it waits until another member leads", NodeId(),
               isOnlyCopy() || nowMs() - sourcelessSinceMs_ >= kSourceMs);
    return;
  }
  sourcelessSinceMs_ = 0;
  if (transfer_ == nullptr) beginTransfer();
  const TransferStatus status = transfer_->status();
  std::string step = "it fetches the state from " + source;
  if (!status.problem.empty()) step += "; the last attempt failed: " + status.problem;
  repairStep(std::move(step), source, !status.problem.empty());
}

// By a checkpoint that was installed, and is durable.
void VolumeImpl::stateReplaced() {
  if (!stateDamaged() && !stateAbsent_) return;
  KJ_LOG(INFO, "the state of a volume is whole again", record_.name.c_str(), stateAt_.index);
  stateDamage_.clear();
  stateFloor_ = RecordIndex();
  stateAbsent_ = false;
  applier_->pause(false);
  if (member_.repairing()) return;  // the journal's turn
  repairStep_.clear();
  if (!applier_->runs()) applier_->start();
}

// ---- Records that have rotted in the journal -----------------------------------------------------

kj::Promise<void> VolumeImpl::letGoOfDamaged(RecordIndex upTo) {
  return canceler_.wrap(letGo(upTo).promise());
}

// A checkpoint above them is durable before they go: what recovery would find missing is needed no more
// then, so a restart takes this volume for whole. Before that, it finds the rot and repairs the volume
// by rule 17. A member that needed them fetches a checkpoint.
Co<void> VolumeImpl::letGo(RecordIndex upTo) {
  KJ_LOG(WARNING, "records of a volume have rotted in the journal; it makes a checkpoint above them",
         record_.name.c_str(), upTo);
  while (log_.base().index < upTo) {
    KJ_REQUIRE(!stopped_, "this node is stopping");
    if (!member_.repairing() && applier_->runs() && applier_->applied() >= upTo) {
      if (applier_->checkpointed() < upTo) {
        auto making = outcomeOf(applier_->checkpoint());
        auto ignored = co_await kj::mv(making);  // by a full disk; then it is tried again
        (void)ignored;
      }
      if (applier_->checkpointed() >= upTo) {
        log_.release(std::min(upTo, member_.committed()));
        if (log_.base().index >= upTo) break;
      }
    }
    co_await moved_.waitFor(parts_.env.timer, kPauseMs);
  }
}

}  // namespace packmoor::replicator
