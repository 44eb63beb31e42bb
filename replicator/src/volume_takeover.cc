// When this node tries to lead a volume by itself: suspicion, consent, and the attempt.
#include "volume_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

// ---- What this member hears (rules 9 and 12) ---------------------------------------------------

bool VolumeImpl::journalStuck() {
  const int64_t sinceMs = parts_.journal.inFlightSinceMs();
  // A node that did not run has not looked whether the write has ended.
  return sinceMs != 0 && nowMs() - std::max(sinceMs, lateTickMs_) >= parts_.options.journalStuckMs;
}

Epoch VolumeImpl::highestEpoch() const {
  return std::max(record_.current.epoch, member_.promise().epoch);
}

bool VolumeImpl::hearsPrimary() {
  const int64_t now = nowMs();
  // A role that it has itself, unless it gives way or does not get on.
  if (primary_ != nullptr && primary_->active()) return !primary_->yields();
  if (takeover_ != nullptr && takeover_->tookEpoch()) {
    return now - takeoverSinceMs_ < kStalledTakeoverMs;
  }
  if (primaryNode_.empty() || primaryNode_ == parts_.self.node) return false;
  if (watch_.suspects(now)) return false;
  // A candidate that is there and yet never active is left alone for so long only.
  return primaryIsActive() || now - watch_.followedMs() < kStalledTakeoverMs;
}

bool VolumeImpl::primaryIsActive() const {
  if (primary_ != nullptr) return primary_->active();
  return member_.hasAnnounced() || (record_.phase == VolumePhase::kActive &&
                                    record_.current.epoch >= member_.promise().epoch);
}

// ---- Who tries, and when -----------------------------------------------------------------------

// Members try in the order in which the configuration names them; those that are not there do not
// count. A member whose log is behind learns that by asking, and lets the other go first.
int64_t VolumeImpl::staggerMs() {
  int64_t rank = 0;
  for (const MemberIdentity& member : configurationToFence(record_).members) {
    if (member == parts_.self) break;
    if (member.node != primaryNode_ && parts_.peers.peer(member.node).connected()) ++rank;
  }
  const auto& drained = record_.traits.drained;
  if (stateDamaged() || shortOfRoom() ||
      std::find(drained.begin(), drained.end(), parts_.self.node) != drained.end()) {
    rank += kDrainedRanks;
  }
  return rank * kStaggerMs + static_cast<int64_t>(parts_.env.random.below(kJitterMs));
}

void VolumeImpl::tryAfter(int64_t milliseconds) {
  tryAtMs_ = nowMs() + milliseconds;
  if (milliseconds >= parts_.options.heartbeatMs) return;  // the tick is early enough
  if (wakeAtMs_ > nowMs() && wakeAtMs_ <= tryAtMs_) return;
  wakeAtMs_ = tryAtMs_;
  tasks_.add(parts_.env.timer.afterDelay(milliseconds * kj::MILLISECONDS).then([this]() {
    maybeLead();
  }));
}

// Starts an attempt where the rules let this node begin one by itself: as the first member of a new
// volume, after a restart as the primary (rule 2), and when the primary, or the candidate that was
// to become it, is suspected (rules 9, 10 and 12).
void VolumeImpl::maybeLead() {
  if (primary_ != nullptr || takeover_ != nullptr || asking_ || stopped_ || mayNotLead()) {
    return;
  }
  if (unproven()) return;
  if (transfer_ != nullptr && transferWanted_) return;  // it could not adopt the newest log
  const int64_t now = nowMs();
  const VolumeConfiguration& current = record_.current;
  const VolumeConfiguration& target = configurationToFence(record_);
  if (now < leadAfterMs_ || !isMember(target, parts_.self) || journalStuck()) return;
  const bool watches = !primaryNode_.empty() && primaryNode_ != parts_.self.node;
  if (watches) watch_.connection(parts_.peers.peer(primaryNode_).refused(), now);
  if (current.epoch.value == 0 && target.members.front() == parts_.self) {
    // Nobody has ever led: there is no primary to be heard.
    tasks_.add(beginTakeover({current.epoch}).catch_([](kj::Exception&&) {}));
    return;
  }
  const bool mine = current.primary == parts_.self && current.epoch >= member_.promise().epoch;
  if (!mine) {
    if (hearsPrimary() || (!watches && !watch_.suspects(now))) {
      tryAtMs_ = 0;
      deferred_ = false;
      noConsent_.clear();
      consentPauseMs_ = kConsentPauseMsMin;
      return;
    }
    if (tryAtMs_ == 0) tryAfter(staggerMs());
    if (now < tryAtMs_) return;
  }
  asking_ = true;
  auto alone = automaticTarget();
  KJ_IF_MAYBE(survivor, alone) {
    tasks_.add(askAndLead(kj::mv(*survivor), true, highestEpoch()));
  } else {
    tasks_.add(askAndLead(target, record_.traits.pair, highestEpoch()));
  }
}

// Rule 9: consent comes before the first compare-and-swap.
// `bounded`: the attempt is given up when it stalls.
Co<void> VolumeImpl::askAndLead(VolumeConfiguration target, bool bounded, Epoch expected) {
  const bool alone = record_.traits.pair && target.members.size() == 1;
  ConsentReply own;
  own.consents = true;
  own.member = parts_.self;
  own.last = log_.last();
  auto consent = std::make_unique<Consent>(
      parts_.env, parts_.peers,
      ConsentRequest{record_.id, parts_.self, expected, log_.last()}, kj::mv(own), target,
      parts_.options.suspectAfterMs);
  auto outcome = co_await consent->ask();
  asking_ = false;
  if (!outcome.granted) {
    if (noConsent_ != outcome.reason) {
      noConsent_ = outcome.reason;
      KJ_LOG(INFO, "the members do not consent to a takeover", record_.name.c_str(),
             noConsent_.c_str());
    }
    if (outcome.answered == target.members.size()) {
      partnerSilentSinceMs_ = 0;
    } else if (partnerSilentSinceMs_ == 0) {
      partnerSilentSinceMs_ = nowMs();
    }
    tryAfter(consentPauseMs_ +
             static_cast<int64_t>(parts_.env.random.below(consentPauseMs_)));
    consentPauseMs_ = std::min(consentPauseMs_ * 2, kConsentPauseMsMax);
    leadAfterMs_ = tryAtMs_;
    // What the others know and this node does not, the coordinator knows.
    if (outcome.highest > expected) parts_.coordinatorWanted.notify();
    co_return;
  }
  noConsent_.clear();
  if (outcome.outrun && !deferred_) {
    deferred_ = true;
    tryAfter(kStaggerMs + static_cast<int64_t>(parts_.env.random.below(kJitterMs)));
    leadAfterMs_ = tryAtMs_;
    co_return;
  }
  if (primary_ != nullptr || takeover_ != nullptr || stopped_ || mayNotLead() ||
      expected != highestEpoch()) {
    co_return;  // somebody was faster
  }
  KJ_LOG(INFO, "taking over the volume", record_.name.c_str(), expected, primaryNode_.c_str());
  if (alone) {
    KJ_LOG(WARNING, "NO_REDUNDANCY: the other node of the pair is lost; this one goes on alone, and "
                    "what is pushed from now on is on this node only", record_.name.c_str());
  }
  TakeoverCause cause;
  cause.expected = expected;
  if (bounded && record_.lastActive) cause.target = kj::mv(target);
  auto attempt = beginTakeover(kj::mv(cause));
  auto failure = co_await outcomeOf(kj::mv(attempt));
  stalledTogether_ = bounded && !alone && failure != nullptr;
}

// Whether the coordinator's epoch, which is not active, has been so for that long.
bool VolumeImpl::stallsFor(Epoch epoch, int64_t boundMs) {
  if (stalledEpoch_ != epoch) {
    stalledEpoch_ = epoch;
    stalledSinceMs_ = nowMs();
  }
  return nowMs() - stalledSinceMs_ >= boundMs;
}

// An attempt took an epoch and got no further: its node is gone, or never learned that the coordinator
// has it. The primary of the epoch before goes on (rule 10), but whom that attempt would have added is
// not served, and no other change can begin. The primary takes a new epoch, for what was active last
// (rule 9); who ordered the change was told that it failed, or not known.
bool VolumeImpl::endStalledAttempt() {
  const Epoch taken = record_.current.epoch;
  if (record_.phase == VolumePhase::kActive || taken <= primary_->configuration().epoch ||
      primary_->yields() || nowMs() < leadAfterMs_ || !stallsFor(taken, kStalledAboveMs)) {
    return false;
  }
  KJ_LOG(WARNING, "an attempt to lead the volume, or to change it, was given up by its node; this node, "
                  "which leads, takes a new epoch", record_.name.c_str(), taken,
         record_.current.primary.node.c_str());
  TakeoverCause cause;
  cause.expected = taken;
  tasks_.add(beginTakeover(kj::mv(cause)).catch_([](kj::Exception&&) {}));  // it tells of itself
  return true;
}

// ---- The attempt -------------------------------------------------------------------------------

kj::Promise<void> VolumeImpl::beginTakeover(TakeoverCause cause) {
  if (takeover_ != nullptr) return takeoverDone_.addBranch();
  bool damaged = mayNotLead();
  KJ_IF_MAYBE(order, cause.loss) {
    if (order->asIs) damaged = stateAbsent_;  // it is made whole on the way (takeAsIs)
  }
  if (damaged) return KJ_EXCEPTION(FAILED, "this member's copy of the volume is damaged");
  if (installing_) return KJ_EXCEPTION(FAILED, "this member installs a checkpoint of the volume");
  takeover_ = std::make_unique<Takeover>(static_cast<TakeoverHost&>(*this));
  takeoverSinceMs_ = nowMs();
  takeoverDone_ = runTakeover(cause).promise().fork();
  return takeoverDone_.addBranch();
}

Co<void> VolumeImpl::runTakeover(TakeoverCause cause) {
  co_await kj::evalLater([]() {});  // so that takeoverDone_ is set before anything happens
  auto attempt = takeover_->run(kj::mv(cause)).promise();
  auto failure = co_await outcomeOf(kj::mv(attempt));
  takeover_ = nullptr;
  tryAtMs_ = 0;
  deferred_ = false;
  moved_.notify();
  KJ_IF_MAYBE(exception, failure) {
    const kj::StringPtr why = exception->getDescription();
    const std::string problem = kj::str("taking over failed: ", why).cStr();
    if (problem != takeoverProblem_) {  // an attempt is repeated until it succeeds
      KJ_LOG(WARNING, "taking over the volume failed", record_.name.c_str(), why);
    }
    takeoverProblem_ = problem;
    if (primary_ != nullptr && !primary_->active()) stepDown(NodeId());
    leadAfterMs_ = nowMs() + leadPauseMs_ +
                   static_cast<int64_t>(parts_.env.random.below(leadPauseMs_));
    leadPauseMs_ = std::min(leadPauseMs_ * 2, kLeadPauseMsMax);
    parts_.coordinatorWanted.notify();
    kj::throwFatalException(kj::mv(*exception));
  }
  leadPauseMs_ = kLeadPauseMsMin;
}

}  // namespace packmoor::replicator
