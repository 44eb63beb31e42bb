// Losses that cannot be repaired: what this member knows of them, an operator's order to go on without
// some members, and what becomes of those when they return (rules 5, 6 and 19).
//
// A member that was ignored may hold the only copies of what was acknowledged. So nothing of it is cut or
// overwritten by itself: where its log has other records than the volume's history it is *diverged*, and
// stays as it is, readable by `lost-writes`, until an operator has it discarded.
#include "volume_impl.h"

#include "kernelio/check.h"
#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

// ---- What is known ------------------------------------------------------------------------------

LogKnowledge VolumeImpl::logKnowledge() {
  LogKnowledge known;
  known.member = parts_.self;
  known.diverged = !divergedProblem().empty();
  known.damaged = member_.repairing() && !unproven() && !discarded_;
  known.whole = !member_.repairing() && !unproven() && !discarded_;
  known.leads = primary_ != nullptr && primary_->active();
  known.hearsPrimary = hearsPrimary();
  known.problem = status().problem;
  known.last = log_.last();
  known.base = log_.base().index;
  known.committed = member_.committed();
  known.announced = std::max(heardCommitted_, member_.committed());
  known.promised = member_.promise().epoch;
  if (primary_ != nullptr) {
    for (const MemberStatus& member : primary_->memberStatus()) {
      if (!member.isSelf) known.acknowledged.emplace_back(member.node, member.acknowledged);
    }
  }
  return known;
}

kj::Promise<std::vector<RecordRef>> VolumeImpl::readLog(RecordIndex first) {
  return canceler_.wrap(readHere(first).promise());
}

Co<std::vector<RecordRef>> VolumeImpl::readHere(RecordIndex first) {
  std::vector<RecordRef> records;
  if (first > log_.last().index) co_return records;
  auto read = co_await log_.read(first, kAppendBytesMax);
  for (RecordRef& record : read) records.push_back(kj::mv(record));
  co_return records;
}

// ---- The order ----------------------------------------------------------------------------------

kj::Promise<void> VolumeImpl::acceptLoss(LossOrder order) {
  return canceler_.wrap(acceptLossAlone(kj::mv(order)).promise());
}

Co<void> VolumeImpl::acceptLossAlone(LossOrder order) {
  KJ_REQUIRE(!stopped_, "this node is stopping");
  KJ_REQUIRE(!member_.repairing() || order.asIs,
             "this node's copy of the volume is damaged and may not lead", problem_);
  KJ_REQUIRE(!hearsPrimary() || takeover_ != nullptr,
             "the volume has a primary, which is heard; nothing needs to be accepted");
  co_await endAttempt();
  KJ_DEFER(acceptsAsIs_ = false);
  if (member_.repairing()) {
    KJ_REQUIRE(order.kept.size() == 1 && order.kept.front() == parts_.self,
               "a damaged copy is taken only where no other is kept");
    acceptsAsIs_ = true;
    if (!repairPrepared_) co_await prepareRepair(NodeId());
  }
  TakeoverCause cause;
  cause.loss = kj::mv(order);
  auto attempt = beginTakeover(kj::mv(cause));
  co_await kj::mv(attempt);
}

// One that waits for members which do not come would wait for ever.
Co<void> VolumeImpl::endAttempt() {
  if (takeover_ == nullptr) co_return;
  takeover_->abandon();
  if (primary_ != nullptr && !primary_->active()) stepDown(NodeId());
  auto ended = outcomeOf(takeoverDone_.addBranch());
  auto outcome = co_await kj::mv(ended);
  KJ_REQUIRE(outcome != nullptr, "this node has come to lead the volume meanwhile");
}

void VolumeImpl::lossAccepted(const AcceptedLoss& loss) {
  KJ_LOG(WARNING, "DATA_LOST: by order, the volume goes on without what only members held that were "
                  "not asked", record_.name.c_str(), loss.epoch, loss.adopted.index,
         loss.by.c_str(), loss.what.c_str());
  if (member_.repairing()) takeAsIs();
}

// There is no other copy, and the coordinator has it that this one goes on as it is: what rot has eaten is
// lost. The mark is durable before EpochStart is written (Takeover::adopt).
void VolumeImpl::takeAsIs() {
  PACKMOOR_CHECK(acceptsAsIs_ && !unproven(), "a damaged member becomes whole without an order");
  log_.markWhole();
  member_.whole();
  problem_.clear();
  repairStep_.clear();
  repairTarget_ = RecordIndex();
  applier_->start();
  advanced();
}

// ---- Members that were ignored --------------------------------------------------------------------

bool VolumeImpl::isIgnored(const MemberIdentity& who) const {
  return !isProven(record_, who, LogPosition());
}

// Here, where this node leads. A front may have checked what it proposes against the state of its own
// node, which then must be of the volume's history (rules 19 and 21). The node itself may not know yet.
bool VolumeImpl::isLeftOut(const NodeId& node) {
  if (record_.losses.empty() || node == parts_.self.node) return false;
  const VolumeConfiguration& current = primary_->configuration();
  if (current.hasMember(node)) return false;   // it was counted again when it had followed, or is new
  for (const MemberIdentity& member : current.async) {
    if (member.node == node) return isIgnored(member) && !primary_->hasAcknowledged(member);
  }
  // It is no member any more.
  return std::any_of(record_.losses.begin(), record_.losses.end(), [&](const AcceptedLoss& loss) {
    return std::any_of(loss.ignored.begin(), loss.ignored.end(),
                       [&](const MemberIdentity& member) { return member.node == node; });
  });
}

// The primary knows of an accepted loss that this member has not read of yet. Until it has, it cannot
// tell whether its log is of the volume's history.
bool VolumeImpl::mayFollow(const AppendRequest& request) {
  if (request.lossEpoch <= lossEpoch() || log_.last().epoch >= request.lossEpoch) return true;
  parts_.coordinatorWanted.notify();
  return false;
}

void VolumeImpl::requireProven() {
  KJ_REQUIRE(!unproven(),
             "this node's copy of the volume may hold what is not the volume's history: an operator "
             "accepted a loss without it; use another node");
}

// Empty: not diverged, as far as is known here.
std::string VolumeImpl::divergedProblem() {
  if (discarded_) {
    return "this diverged member was discarded, and begins anew as an empty one";
  }
  if (!unproven() || log_.last().index.value == 0) return {};
  const auto loss = std::find_if(
      record_.losses.begin(), record_.losses.end(),
      [&](const AcceptedLoss& each) { return each.epoch > log_.last().epoch; });
  if (loss == record_.losses.end()) return {};
  std::string from;
  if (partedAt_.has_value() && partedAt_->index.value > 0) {
    from = kj::str("above ", partedAt_->index, ", ").cStr();
  } else if (log_.last().index > loss->adopted.index) {
    from = kj::str("above ", loss->adopted.index, " at the least, ").cStr();
  } else if (!partedAt_.has_value()) {
    auto held = log_.position(loss->adopted.index);
    KJ_IF_MAYBE(position, held) {
      if (position->hash == loss->adopted.hash) return {};
    } else {
      return {};
    }
  }
  const bool compared = !partedAt_.has_value() || partedAt_->index.value > 0;
  return kj::str("this member is diverged: a loss was accepted without it in epoch ", loss->epoch,
                 ", and its records ", from.c_str(), "up to ", log_.last().index,
                 compared ? " are not the volume's history"
                          : " cannot be compared with the volume's history any more",
                 "; it is not counted and never leads. See `packmoorctl "
                 "volume lost-writes ", record_.name.c_str(),
                 "` for what they are; then `packmoorctl volume discard-diverged ",
                 record_.name.c_str(), "` here lets it begin anew").cStr();
}

kj::Promise<void> VolumeImpl::discardDiverged() { return canceler_.wrap(forgetDiverged().promise()); }

// Durable when it resolves: one entry of the journal ends the log. The state is removed when the volume is
// opened again, which follows at once (ReplicatorImpl::beginAnew), or at the next start after a crash:
// either finds a volume that has promised and holds nothing.
Co<void> VolumeImpl::forgetDiverged() {
  KJ_REQUIRE(unproven() && !divergedProblem().empty(),
             "this node's copy of the volume is not diverged; nothing was discarded");
  if (!discarded_) {
    KJ_LOG(WARNING, "MEMBER_DIVERGED: the diverged copy of the volume is discarded by order",
           record_.name.c_str(), log_.last().index);
    discarded_ = true;
    member_.beginRepair();  // nothing is accepted, applied or answered from here on
    log_.reset(LogPosition());
  }
  co_await log_.whenWritten();
  discardDurable_ = true;
}

// ---- Health ---------------------------------------------------------------------------------------

// Empty, or who is missing for a takeover that is wanted.
std::string VolumeImpl::consentProblem() {
  if (primary_ != nullptr || hearsPrimary() || unproven()) return {};
  if (!watch_.suspects(nowMs()) && primaryNode_ != parts_.self.node) return {};
  const VolumeConfiguration& last = configurationToFence(record_);
  const bool mine = namesNode(last, parts_.self.node) || namesNode(record_.current, parts_.self.node);
  if (last.epoch.value == 0 || !mine) return {};
  std::string away;
  size_t there = 0;
  for (const MemberIdentity& member : last.members) {
    if (member == parts_.self ? !member_.repairing()
                              : parts_.peers.peer(member.node).connected()) {
      ++there;
    } else {
      away += (away.empty() ? "" : ", ") + member.node;
      if (member == parts_.self) away += " (this node, whose copy is damaged)";
    }
  }
  const size_t needed = fenceQuorum(last);
  if (there >= needed) return {};
  return kj::str("nobody leads, and a takeover needs ", needed, " of the ", last.members.size(),
                 " counted members, of which ", there, " can be asked; missing: ", away.c_str(),
                 ". Bring one of them back. If they are lost for good: `packmoorctl volume "
                 "lost-writes ", record_.name.c_str(), "` says what is lost with them, and "
                 "`packmoorctl volume accept-loss ", record_.name.c_str(),
                 "` goes on without").cStr();
}

// Each situation is told once in the log.
void VolumeImpl::tickLoss() {
  const std::string diverged = divergedProblem();
  std::string consent = consentProblem();
  if (consent.empty()) {
    noConsentSinceMs_ = 0;
  } else {
    if (noConsentSinceMs_ == 0) noConsentSinceMs_ = nowMs();
    if (nowMs() - noConsentSinceMs_ < kNoConsentMs) consent.clear();
  }
  if (toldDiverged_.empty() && !diverged.empty()) {
    KJ_LOG(ERROR, "MEMBER_DIVERGED", record_.name.c_str(), diverged.c_str());
  }
  if (toldNoConsent_.empty() && !consent.empty()) {
    KJ_LOG(ERROR, "NO_CONSENT", record_.name.c_str(), consent.c_str());
  }
  toldDiverged_ = diverged;
  toldNoConsent_ = consent;
}

}  // namespace packmoor::replicator
