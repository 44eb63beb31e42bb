// Storms at chosen moments: orders of events that chance alone hardly ever gives.
//
// What rot has eaten does harm only when it was acknowledged or promised and others do not know of that,
// and a coordinator that goes back only when a copy of it lets somebody lead without what was written
// since. A directed storm brings that about among whatever weather the run has, once, and then lets the
// other faults go on.
#include "sim_storm.h"

#include "replicator/outcome.h"
#include "sim_rot.h"

#include <algorithm>

namespace packmoor::replicator {

namespace {

constexpr int64_t kSettleMs = 3000;      // for all to be well before it begins
constexpr int64_t kMarkerMs = 1000;      // for the marker of a journal to know of what may rot
constexpr int64_t kMendMs = 3000;        // for what has rotted to be whole again
constexpr int64_t kPollMs = 5;

}  // namespace

void SimStorm::direct() {
  if (options_.directed == Directed::kNone) return;
  directing_ = true;
  auto play = [this]() {
    switch (options_.directed) {
      case Directed::kNone: break;
      case Directed::kRotOfAcknowledged: return rotAcknowledged().promise();
      case Directed::kRotOfPromise: return rotPromise().promise();
      case Directed::kCoordinatorGoesBack: return goBackBehindAnEpoch().promise();
      case Directed::kAcceptedLoss: return loseSome().promise();
    }
    return kj::Promise<void>(kj::READY_NOW);
  };
  cluster_.tasks().add(play().then([this]() {
    if (over_) return;
    tell("the directed storm is over");
    directing_ = false;
    cluster_.network().heal();
    cluster_.coordinator().heal();
  }));
}

kj::Promise<void> SimStorm::pass(uint64_t msMin, uint64_t msMax) {
  return cluster_.timer().afterDelay(
      static_cast<int64_t>(1000 * msMin + random_.below(1000 * (msMax - msMin) + 1)) *
      kj::MICROSECONDS);
}

// False: not within the time.
Co<bool> SimStorm::comes(bool (SimStorm::*what)(), int64_t withinMs) {
  const int64_t untilMs = cluster_.nowMs() + withinMs;
  while (!over_ && !(this->*what)()) {
    if (cluster_.nowMs() >= untilMs) co_return false;
    co_await cluster_.timer().afterDelay(kPollMs * kj::MILLISECONDS);
  }
  co_return !over_;
}

// All nodes run, and somebody leads of whom all have everything.
bool SimStorm::isSettled() {
  SimNode* primary = cluster_.primary();
  if (primary == nullptr) return false;
  const RecordIndex committed = primary->volume().status().committed;
  for (const MemberIdentity& member : record().current.members) {
    SimNode& node = cluster_.node(static_cast<size_t>(member.node[0] - 'a'));
    if (!node.hasVolume() || node.volume().status().repairing) return false;
    if (node.volume().status().applied.value + 20 < committed.value) return false;
  }
  return record().phase == VolumePhase::kActive && record().current.primary.node == primary->id();
}

Co<bool> SimStorm::settles() {
  tell("a directed storm gathers");
  trap_ = Trap::kNone;
  cluster_.network().heal();
  cluster_.coordinator().heal();
  for (size_t i = 0; i < cluster_.size(); ++i) {
    unhang(i);
    cluster_.node(i).boot();
  }
  auto settled = comes(&SimStorm::isSettled, kSettleMs).promise();
  const bool all = co_await kj::mv(settled);
  co_return all;
}

// Records are lost on the way to a node that is starved; heartbeats arrive.
void SimStorm::starve(const NodeId& primary, const NodeId& member, const AppendRequest& request) {
  if (member != starved_) return;
  if (request.records.empty()) {
    cluster_.network().uncut(primary, member);
  } else {
    cluster_.network().cut(primary, member);
  }
}

void SimStorm::proposeSome(SimNode& node, uint64_t most) {
  const uint64_t records = 1 + random_.below(most);
  for (uint64_t i = 0; i < records; ++i) {
    cluster_.tasks().add(outcomeOf(node.front(node.volume().propose(kvProposal(
        cluster_.newTxn(), "put k" + std::to_string(i % 5) + " directed")))).ignoreResult());
  }
}

// Another member than these; `a` when there is none.
size_t SimStorm::another(size_t a, size_t b) {
  std::vector<size_t> others;
  for (const MemberIdentity& member : record().current.members) {
    const size_t n = static_cast<size_t>(member.node[0] - 'a');
    if (n != a && n != b) others.push_back(n);
  }
  return others.empty() ? a : others[random_.below(others.size())];
}

// All that a node's journal holds behind `batch`; false: the journal would not know that it was there.
Co<bool> SimStorm::rotAfter(size_t n, uint64_t batch) {
  rotNode_ = n;
  rotBatch_ = batch;
  auto marked = comes(&SimStorm::isMarked, kMarkerMs).promise();
  const bool known = co_await kj::mv(marked);
  if (!known || !mayRot()) co_return false;
  SimNode& node = cluster_.node(n);
  if (random_.chance(500'000)) {
    node.stop();
  } else if (!node.idle()) {
    node.losePower();
  }
  const size_t batches = rotBatchesAfter(node.storage(), batch);
  tell("the journal of " + name(n) + " rots, its last " + std::to_string(batches) + " batches");
  cluster_.damageExpected = true;
  rotten_ = n;
  for (auto& checker : checkers_) checker->rotted(node);
  co_return true;
}

bool SimStorm::isMarked() { return markedBatch(cluster_.node(rotNode_).storage()) > rotBatch_; }
bool SimStorm::rotIsOpen() {
  return cluster_.node(rotNode_).hasVolume(checkers_.front()->volume().c_str());
}
bool SimStorm::rotIsMended() { return !isRotten(rotNode_); }

// Rule 17, the last index and not the committed one: a standby has acknowledged what its primary has not
// counted, and forgets it.
Co<void> SimStorm::rotAcknowledged() {
  auto settling = settles().promise();
  const bool settled = co_await kj::mv(settling);
  if (!settled || !mayRot()) co_return;
  SimNode* primary = cluster_.primary();
  if (primary == nullptr) co_return;
  const size_t a = cluster_.indexOf(*primary), b = another(a, a);
  tell(name(a) + " hears nobody, and " + name(b) + " is to forget what it has acknowledged");
  for (size_t i = 0; i < cluster_.size(); ++i) cluster_.network().cut(name(i), name(a));
  const bool lonely = random_.chance(300'000);  // nobody else has it
  for (size_t i = 0; i < cluster_.size(); ++i) {
    if (lonely && i != b) cluster_.network().cut(name(a), name(i));
  }
  const uint64_t batch = newestBatch(cluster_.node(b).storage());
  if (primary->hasVolume()) proposeSome(*primary, 8);
  // It hears what is committed, and its state stands there, whatever its journal forgets.
  co_await pass(5, 60);
  if (over_ || !cluster_.node(b).hasVolume()) co_return;
  auto checkpoint = cluster_.node(b).volume().checkpointNow();
  auto made = co_await outcomeOf(kj::mv(checkpoint));
  if (over_ || made != nullptr) co_return;
  auto rotting = rotAfter(b, batch).promise();
  const bool rotten = co_await kj::mv(rotting);
  if (over_ || !rotten) co_return;
  cluster_.network().uncut(name(b), name(a));
  co_await pass(0, 5);
  if (over_) co_return;
  cluster_.node(b).boot();
  auto opening = comes(&SimStorm::rotIsOpen, kMendMs).promise();
  const bool open = co_await kj::mv(opening);
  if (!open) co_return;
  // For a while it hears the primary, but what it is sent is lost, or takes long.
  if (random_.chance(700'000)) starved_ = name(b);
  if (random_.chance(300'000)) {
    cluster_.node(b).slowDisk(static_cast<int64_t>(20 + random_.below(150)) * kj::MILLISECONDS);
  }
  co_await pass(300, 1500);
  starved_.clear();
  cluster_.network().uncut(name(a), name(b));
  auto mending = comes(&SimStorm::rotIsMended, kMendMs).promise();
  const bool whole = co_await kj::mv(mending);
  cluster_.node(b).slowDisk(0 * kj::SECONDS);
  if (over_ || !whole) co_return;
  // The one that knew of it may be lost now.
  co_await pass(0, 20);
  if (!over_ && random_.chance(700'000)) cutPower(a);
  cluster_.network().heal();
  co_await pass(0, 500);
}

// Rule 17, the promise: a member has followed a new primary, forgets it, and the old one asks it.
Co<void> SimStorm::rotPromise() {
  auto settling = settles().promise();
  const bool settled = co_await kj::mv(settling);
  if (!settled || !mayRot()) co_return;
  SimNode* primary = cluster_.primary();
  if (primary == nullptr) co_return;
  const size_t a = cluster_.indexOf(*primary), b = another(a, a), c = another(a, b);
  if (c == a) co_return;
  SimNetwork& network = cluster_.network();
  tell(name(a) + " is isolated, and " + name(c) + " is to forget that it has followed " + name(b));
  const uint64_t batch = newestBatch(cluster_.node(c).storage());
  network.isolate(name(a), cluster_.nodeIds());
  cluster_.coordinator().cutOff(name(a));
  takeOver(b);
  turnsTo_ = name(b);
  auto turning = comes(&SimStorm::hasTurned, kSettleMs).promise();
  const bool turned = co_await kj::mv(turning);
  if (!turned) co_return;
  if (cluster_.node(b).hasVolume()) proposeSome(cluster_.node(b), 5);
  auto rotting = rotAfter(c, batch).promise();
  const bool rotten = co_await kj::mv(rotting);
  if (over_ || !rotten) co_return;
  // Only the old primary reaches it.
  tell(name(a) + " is back, and reaches " + name(c) + " only");
  network.heal();
  for (size_t i = 0; i < cluster_.size(); ++i) {
    if (i != a && i != c) network.isolate(name(i), cluster_.nodeIds());
  }
  restartSoon(c, 10);
  co_await pass(300, 1500);
}

bool SimStorm::hasTurned() {
  SimNode* primary = cluster_.primary();
  return primary != nullptr && primary->id() == turnsTo_ &&
         record().phase == VolumePhase::kActive && record().current.primary.node == turnsTo_;
}

// Rule 18: by the copy of the coordinator fewer members need to be asked than by what it had since.
Co<void> SimStorm::goBackBehindAnEpoch() {
  auto settling = settles().promise();
  const bool settled = co_await kj::mv(settling);
  SimCoordinator& coordinator = cluster_.coordinator();
  if (!settled || coordinator.isRestored()) co_return;
  SimNode* primary = cluster_.primary();
  if (primary == nullptr) co_return;
  const size_t a = cluster_.indexOf(*primary), last = another(a, a);
  if (last == a) co_return;
  coordinator.keepCopy();
  tell("a copy of the coordinator is made; then the volume goes on without " + name(last));
  if (record().traits.pair) {
    cluster_.node(last).losePower();
  } else {
    const uint32_t fewer = record().current.writeQuorum - 1;
    auto changed = primary->front(primary->volume().changeConfiguration(
        {ConfigurationChange::Kind::kSetQuorum, "", fewer}));
    auto failure = co_await outcomeOf(kj::mv(changed));
    if (over_ || failure != nullptr) co_return;
    cluster_.network().isolate(name(last), cluster_.nodeIds());
  }
  quorum_ = record().traits.pair ? 1 : record().current.writeQuorum;
  auto shrinking = comes(&SimStorm::hasShrunk, kAloneMs).promise();
  const bool shrunk = co_await kj::mv(shrinking);
  if (!shrunk) co_return;
  if (cluster_.node(a).hasVolume()) proposeSome(cluster_.node(a), 5);
  co_await pass(50, 300);
  if (over_ || !coordinator.goBack()) co_return;
  tell("the coordinator is restored from that copy");
  co_await pass(0, 100);
  if (over_) co_return;
  cutPower(a);
  cluster_.network().heal();
  cluster_.node(last).boot();
  co_await pass(3000, 7000);
  if (over_) co_return;
  tell("the coordinator is accepted");
  coordinator.accept();
}

bool SimStorm::hasShrunk() {
  return cluster_.primary() != nullptr && record().phase == VolumePhase::kActive &&
         record().current.writeQuorum == quorum_;
}

const VolumeRecord& SimStorm::record() {
  return cluster_.coordinator().volumes.at(checkers_.front()->volume());
}

}  // namespace packmoor::replicator
