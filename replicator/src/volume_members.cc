// Changes of a volume's members and write quorum, and pairs (rules 9 and 19).
#include "volume_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

// Until a change is over, whichever way. A primary that it left in place orders again at once.
class Changing {
 public:
  Changing(bool& flag, std::unique_ptr<Primary>& primary) : flag_(flag), primary_(primary) {
    flag_ = true;
  }
  ~Changing() {
    flag_ = false;
    if (primary_ != nullptr) primary_->endDrain();
  }
  KJ_DISALLOW_COPY(Changing);

 private:
  bool& flag_;
  std::unique_ptr<Primary>& primary_;
};

}  // namespace

// ---- By order ----------------------------------------------------------------------------------

kj::Promise<void> VolumeImpl::changeConfiguration(ConfigurationChange change) {
  return canceler_.wrap(this->change(kj::mv(change)).promise());
}

void VolumeImpl::requireMayChange() {
  KJ_REQUIRE(!stopped_, "this node is stopping");
  KJ_REQUIRE(!changing_ && takeover_ == nullptr,
             "another change of the volume is under way; try again when it has ended");
  KJ_REQUIRE(primary_ != nullptr && primary_->active(), "this node does not lead the volume");
}

// One change follows another: whoever orders one need not know that a joiner is being counted.
Co<void> VolumeImpl::whenNothingChanges() {
  const int64_t untilMs = nowMs() + kChangeWaitMs;
  while ((changing_ || takeover_ != nullptr) && !stopped_ && nowMs() < untilMs) {
    co_await moved_.waitFor(parts_.env.timer, kChangePollMs);
  }
}

Co<void> VolumeImpl::change(ConfigurationChange change) {
  if (changing_ || takeover_ != nullptr) co_await whenNothingChanges();
  requireMayChange();
  Changing changing(changing_, primary_);
  auto nodes = co_await parts_.coordinator.listNodes();
  KJ_REQUIRE(primary_ != nullptr && primary_->active(), "this node does not lead the volume");
  auto target = changedBy(change, primary_->configuration(), record_.traits.pair, nodes);
  // What cannot be acknowledged at once would only make the volume wait.
  uint32_t reachable = 0;
  for (const MemberStatus& member : primary_->memberStatus()) {
    const bool stays = member.counted && target.hasMember(member.node);
    reachable += stays && (member.isSelf || (member.connected && member.problem.empty()));
  }
  KJ_REQUIRE(reachable >= target.writeQuorum,
             "fewer members than the write quorum would be connected after the change", reachable,
             target.writeQuorum);
  co_await changeTo(kj::mv(target), nullptr);
}

// Rule 9: a takeover of a new epoch whose configuration is the target. `joiner` is counted only when
// it has everything that is ordered.
Co<void> VolumeImpl::changeTo(VolumeConfiguration target, kj::Maybe<MemberIdentity> joiner) {
  const Epoch epoch = target.epoch;
  auto drained = parts_.env.timer.timeoutAfter(kDrainMs * kj::MILLISECONDS, primary_->drain());
  auto outcome = co_await outcomeOf(kj::mv(drained));
  (void)outcome;  // what is not committed by then is asked for again at the new epoch
  KJ_IF_MAYBE(standby, joiner) {
    const int64_t untilMs = nowMs() + kJoinWaitMs;
    while (primary_ != nullptr && !primary_->hasCaughtUp(*standby, true) && nowMs() < untilMs) {
      co_await parts_.env.timer.afterDelay(2 * kj::MILLISECONDS);
    }
    KJ_REQUIRE(primary_ != nullptr && primary_->hasCaughtUp(*standby, true),
               "the standby does not keep up with what is written", standby->node);
  }
  KJ_REQUIRE(primary_ != nullptr && primary_->active() &&
                 primary_->configuration().epoch == epoch,
             "the lead of the volume moved meanwhile");
  TakeoverCause cause;
  cause.target = kj::mv(target);
  auto attempt = beginTakeover(kj::mv(cause));
  co_await kj::mv(attempt);
}

kj::Promise<bool> VolumeImpl::whenCounted(NodeId node, int64_t timeoutMs) {
  return canceler_.wrap(waitCounted(kj::mv(node), timeoutMs).promise());
}

Co<bool> VolumeImpl::waitCounted(NodeId node, int64_t timeoutMs) {
  const int64_t untilMs = nowMs() + timeoutMs;
  for (;;) {
    if (record_.phase == VolumePhase::kActive && record_.current.hasMember(node)) co_return true;
    const int64_t leftMs = untilMs - nowMs();
    if (leftMs <= 0) co_return false;
    co_await moved_.waitFor(parts_.env.timer, leftMs);
  }
}

// ---- By itself ---------------------------------------------------------------------------------

void VolumeImpl::tickMembers() {
  const int64_t now = nowMs();
  const auto partner = partnerOf(parts_.self, configurationToFence(record_));
  if (!record_.traits.pair || !partner || parts_.peers.peer(partner->node).connected()) {
    partnerAwaySinceMs_ = 0;
  } else if (partnerAwaySinceMs_ == 0) {
    partnerAwaySinceMs_ = now;
  }
  if (primary_ == nullptr || !primary_->active() || takeover_ != nullptr || changing_ || stopped_ ||
      now < changeAfterMs_) {
    return;
  }
  if (endStalledAttempt()) return;
  const VolumeConfiguration& current = primary_->configuration();
  if (record_.traits.pair && partner && !primary_->yields() && partnerIsLost(*partner)) {
    changing_ = true;
    tasks_.add(goOnAlone(*partner));
    return;
  }
  for (const MemberIdentity& joiner : current.joining) {
    if (!primary_->hasCaughtUp(joiner, false)) continue;
    changing_ = true;
    tasks_.add(countJoiner(joiner));
    return;
  }
}

Co<void> VolumeImpl::countJoiner(MemberIdentity joiner) {
  Changing changing(changing_, primary_);
  KJ_LOG(INFO, "a standby has caught up and is to be counted", record_.name.c_str(),
         joiner.node.c_str());
  if (primary_ == nullptr) co_return;
  auto target = counting(joiner, primary_->configuration(), record_.traits.pair);
  auto change = changeTo(kj::mv(target), kj::mv(joiner)).promise();
  auto failure = co_await outcomeOf(kj::mv(change));
  if (failure != nullptr) changeAfterMs_ = nowMs() + kJoinPauseMs;
}

// Rule 19. Everything that was ever acknowledged by both is in this log: it was in the last active
// configuration, of which each member had to acknowledge.
Co<void> VolumeImpl::goOnAlone(MemberIdentity lost) {
  Changing changing(changing_, primary_);
  if (primary_ == nullptr) co_return;
  KJ_LOG(WARNING, "NO_REDUNDANCY: the other node of the pair is lost; this one goes on alone, and "
                  "what is pushed from now on is on this node only", record_.name.c_str(),
         lost.node.c_str());
  TakeoverCause cause;
  cause.target = aloneWith(parts_.self, primary_->configuration());
  auto attempt = beginTakeover(kj::mv(cause));
  auto failure = co_await outcomeOf(kj::mv(attempt));
  if (failure != nullptr) changeAfterMs_ = nowMs() + kJoinPauseMs;
}

bool VolumeImpl::partnerIsLost(const MemberIdentity& partner) {
  const int64_t now = nowMs();
  const int64_t awayMs = partnerAwaySinceMs_ == 0 ? 0 : now - partnerAwaySinceMs_;
  if (primary_ == nullptr || !primary_->active()) return awayMs >= kPartnerWaitMs;
  if (parts_.peers.peer(partner.node).refused() || awayMs >= kPartnerLostMs) return true;
  for (const MemberStatus& member : primary_->memberStatus()) {
    if (member.node != partner.node) continue;
    // A node that did not run has not listened.
    return std::min(member.silentMs, now - lateTickMs_) >= kPartnerLostMs;
  }
  return false;
}

// What an attempt that nobody ordered aims at, where that is not the last active configuration: the
// survivor of a pair needs nobody's acknowledgement.
kj::Maybe<VolumeConfiguration> VolumeImpl::automaticTarget() {
  if (!record_.traits.pair || !record_.lastActive) return nullptr;
  const VolumeConfiguration& last = *record_.lastActive;
  const auto partner = partnerOf(parts_.self, last);
  if (!partner) return nullptr;
  const int64_t now = nowMs();
  // Both may have been started at the same time: one that has not heard the other yet waits longer.
  const bool waited = now - openedMs_ >= kPartnerWaitMs;
  const bool suspected = primaryNode_ == partner->node && watch_.suspects(now) &&
                         (waited || member_.hasAnnounced());
  const bool silent = partnerSilentSinceMs_ != 0 && now - partnerSilentSinceMs_ >= kPartnerWaitMs;
  if (!suspected && !silent && !stalledTogether_ && !partnerIsLost(*partner)) return nullptr;
  return aloneWith(parts_.self, last);
}

}  // namespace packmoor::replicator
