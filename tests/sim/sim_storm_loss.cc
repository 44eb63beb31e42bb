// A directed storm: what an operator accepts as lost, and what becomes of those that come back.
#include "sim_storm.h"

#include "replicator/outcome.h"
#include "sim_run.h"

namespace packmoor::replicator {

namespace {

constexpr int64_t kReturnMs = 20'000;    // for those that were left out to count again
constexpr size_t kOrdersMax = 3;

}  // namespace

// Of a write quorum all lose power with records that the others lack; an operator goes on without them,
// they come back, and what only they have is discarded.
Co<void> SimStorm::loseSome() {
  auto settling = settles().promise();
  const bool settled = co_await kj::mv(settling);
  if (!settled || !record().losses.empty()) co_return;
  auto losing = loseWhatOthersLack().promise();
  const bool lost = co_await kj::mv(losing);
  if (!lost) co_return;
  co_await pass(800, 2500);
  auto accepting = acceptTheLoss().promise();
  const bool accepted = co_await kj::mv(accepting);
  if (over_) co_return;
  co_await pass(0, 500);
  for (size_t n : lost_) cluster_.node(n).boot();
  for (size_t n : kept_) cluster_.node(n).boot();
  if (!accepted) co_return;
  if (random_.chance(300'000)) cutPower(lost_[random_.below(lost_.size())]);
  auto returning = theyReturn().promise();
  co_await kj::mv(returning);
}

// False: it did not come to that.
Co<bool> SimStorm::loseWhatOthersLack() {
  SimNode* primary = cluster_.primary();
  if (primary == nullptr) co_return false;
  const bool pair = record().traits.pair;
  lost_ = {cluster_.indexOf(*primary)};
  kept_.clear();
  for (const MemberIdentity& member : record().current.members) {
    const size_t n = static_cast<size_t>(member.node[0] - 'a');
    if (n == lost_[0]) continue;
    const bool isLost = !pair && lost_.size() < record().current.writeQuorum;
    (isLost ? lost_ : kept_).push_back(n);
  }
  if (kept_.empty()) co_return false;
  tell(name(lost_[0]) + (pair ? "" : " and others") + " will be lost, with what " + name(kept_[0]) +
       " lacks");
  if (pair) {
    cluster_.node(kept_[0]).losePower();
    quorum_ = 1;
    auto shrinking = comes(&SimStorm::hasShrunk, kAloneMs).promise();
    const bool alone = co_await kj::mv(shrinking);
    if (!alone) co_return false;
  }
  for (size_t lost : lost_) {
    for (size_t kept : kept_) {
      cluster_.network().cut(name(lost), name(kept));
      cluster_.network().cut(name(kept), name(lost));
    }
  }
  if (primary->hasVolume()) proposeSome(*primary, 5);
  co_await pass(20, 300);
  if (over_) co_return false;
  for (size_t n : lost_) {
    if (!cluster_.node(n).idle()) cluster_.node(n).losePower();
  }
  cluster_.network().heal();
  for (size_t n : kept_) cluster_.node(n).boot();
  co_return true;
}

// False: nothing was accepted.
Co<bool> SimStorm::acceptTheLoss() {
  for (size_t i = 0; i < kOrdersMax && !over_; ++i) {
    SimNode& node = cluster_.node(kept_[0]);
    for (size_t n : kept_) cluster_.node(n).boot();
    co_await pass(300, 600);
    if (over_) co_return false;
    if (!node.hasVolume()) continue;
    if (random_.chance(200'000)) {
      trap_ = Trap::kStored;
      trapSkips_ = random_.below(3);
    }
    tell(name(kept_[0]) + " is told to accept the loss of the others");
    auto ordered = node.front(node.volume().acceptLoss(cluster_.lossOrder(kept_)));
    auto outcome = co_await outcomeOf(kj::mv(ordered));
    (void)outcome;   // what the coordinator has stored counts
    trap_ = Trap::kNone;
    if (!record().losses.empty()) co_return true;
  }
  co_return false;
}

// Those that were left out: as they are, or discarded where they have diverged.
Co<void> SimStorm::theyReturn() {
  const int64_t untilMs = cluster_.nowMs() + kReturnMs;
  while (!over_ && cluster_.nowMs() < untilMs) {
    if (record().phase == VolumePhase::kActive &&
        record().current.members.size() == lost_.size() + kept_.size()) {
      co_return;
    }
    co_await cluster_.timer().afterDelay(20 * kj::MILLISECONDS);
    for (size_t n : lost_) {
      SimNode& node = cluster_.node(n);
      node.boot();
      if (over_ || !node.hasVolume() || node.volume().status().diverged.empty()) continue;
      tell("what " + name(n) + " holds is discarded");
      for (auto& checker : checkers_) checker->discarded(node);
      auto discarded = node.front(node.volume().discardDiverged());
      auto failure = co_await outcomeOf(kj::mv(discarded));
      (void)failure;
      node.stop();
    }
    for (size_t n : kept_) cluster_.node(n).boot();
  }
  if (!over_) {
    checkers_.front()->finding(kNoProgress + std::string("members that a loss left out do not return") +
                               cluster_.describe());
  }
}

}  // namespace packmoor::replicator
