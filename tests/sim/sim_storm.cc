#include "sim_storm.h"

#include "replicator/outcome.h"

#include <algorithm>

namespace packmoor::replicator {

namespace {

enum Action : size_t {
  kPower, kKill, kRestart, kRack, kIsolate, kCutOneWay, kClog, kHealNetwork, kCoordinator, kDisk,
  kTakeOver, kTrap, kCheckpoint, kDuel, kRot, kChange, kOldCoordinator, kActions
};
// Of those that a run may be without.
constexpr uint32_t kWeights[kActions] = {2, 2, 6, 1, 2, 3, 2, 4, 2, 2, 4, 4, 1, 2, 3, 4, 3};

// More than a run writes.
constexpr uint64_t kShortOfRoomBytes = 200u << 20;

}  // namespace

SimStorm::SimStorm(SimCluster& cluster, SimCheckers& checkers, SimStormOptions options)
    : cluster_(cluster), checkers_(checkers), options_(options), random_(cluster.random().split()) {
  cluster_.network().tap = this;
  stored_ = std::move(cluster_.coordinator().onStored);
  cluster_.coordinator().onStored = [this](const VolumeRecord& record) {
    stored_(record);
    if (duelOf_ != nullptr && record.phase == VolumePhase::kActive) {
      duelTurns(record.current.primary.node);
    }
    sprung(Trap::kStored, record.current.primary.node);
  };
}

SimStorm::~SimStorm() { cluster_.network().tap = checkers_.back().get(); }

void SimStorm::tell(const std::string& what) { cluster_.tell(what); }

// ---- The weather --------------------------------------------------------------------------------

void SimStorm::begin() {
  for (size_t i = 0; i < kActions; ++i) {
    const bool always = i == kRestart || i == kHealNetwork;
    const bool without = (i == kRot && !options_.rot) || (i == kChange && !options_.changes) ||
                         (i == kOldCoordinator && !options_.coordinatorGoesBack);
    const bool wanted = i >= kRot || always || random_.chance(600'000);
    weights_.push_back(wanted && !without ? kWeights[i] : 0);
  }
  pauseMsMax_ = static_cast<int64_t>(20 + random_.below(200));
  SimLinks& links = cluster_.network().links;
  if (random_.chance(600'000)) links.lossPerMillion = random_.below(30'000);
  if (random_.chance(600'000)) links.repeatPerMillion = random_.below(80'000);
  if (random_.chance(300'000)) links.corruptPerMillion = 200'000;
  links.overtaking = random_.chance(500'000);
  links.delayUsMax = 200 + static_cast<int64_t>(random_.below(random_.chance(300'000) ? 10'000 : 1500));
  links.silenceMs = 100 + static_cast<int64_t>(random_.below(600));
  SimCoordinator& coordinator = cluster_.coordinator();
  coordinator.keepCopy();
  if (random_.chance(400'000)) coordinator.unknownPerMillion = random_.below(400'000);
  if (random_.chance(300'000)) coordinator.delayUsMax = 50'000;
  if (random_.chance(300'000)) {
    for (size_t i = 0; i < cluster_.size(); ++i) {
      kernelio::SimFaultRates rates;
      rates.slow = random_.below(30'000);
      rates.slowDelay = static_cast<int64_t>(1 + random_.below(60)) * kj::MILLISECONDS;
      cluster_.node(i).storage().setFaultRates(rates);
    }
  }
  weather_ = "links lose " + std::to_string(links.lossPerMillion) + " and repeat " +
             std::to_string(links.repeatPerMillion) + " of a million, take up to " +
             std::to_string(links.delayUsMax) + " us" + (links.overtaking ? ", overtaking" : "") +
             "; a fault every " + std::to_string(pauseMsMax_ / 2) + " ms";
  tell(weather_);
}

void SimStorm::calm() {
  over_ = true;
  trap_ = Trap::kNone;
  cluster_.network().heal();
  cluster_.network().links = SimLinks();
  SimCoordinator& coordinator = cluster_.coordinator();
  coordinator.heal();
  coordinator.accept();
  coordinator.unknownPerMillion = 0;
  coordinator.delayUsMax = 2000;
  for (size_t i = 0; i < cluster_.size(); ++i) {
    unhang(i);
    cluster_.node(i).storage().clearFaults();
    cluster_.node(i).storage().setCapacity(UINT64_MAX);
  }
}

kj::Duration SimStorm::untilNext() {
  return static_cast<int64_t>(1 + random_.below(pauseMsMax_)) * kj::MILLISECONDS;
}

// ---- Faults ---------------------------------------------------------------------------------------

void SimStorm::act() {
  uint32_t total = 0;
  for (uint32_t weight : weights_) total += weight;
  uint64_t draw = random_.below(total);
  size_t action = 0;
  while (draw >= weights_[action]) draw -= weights_[action++];
  const size_t n = any();
  SimNode& node = cluster_.node(n);
  switch (action) {
    case kPower: cutPower(n); break;
    case kKill:
      if (!node.idle()) {
        tell(name(n) + " is killed");
        node.stop();
        if (random_.chance(500'000)) restartSoon(n, 100);
      }
      break;
    case kRestart:
      for (size_t i = 0; i < cluster_.size(); ++i) {
        if (!cluster_.node(i).idle() || random_.chance(300'000)) continue;
        tell(name(i) + " starts");
        cluster_.node(i).boot();
      }
      break;
    case kRack: rackLosesPower(); break;
    case kIsolate:
      tell(name(n) + " is isolated");
      cluster_.network().isolate(name(n), cluster_.nodeIds());
      break;
    case kCutOneWay: cutSome(); break;
    case kClog: {
      const size_t other = any();
      if (other == n) break;
      tell("what " + name(n) + " sends to " + name(other) + " waits");
      cluster_.network().clog(name(n), name(other));
      break;
    }
    case kHealNetwork:
      tell("the network is whole");
      cluster_.network().heal();
      break;
    case kCoordinator: disturbCoordinator(n); break;
    case kDisk: disturbDisk(n); break;
    case kTakeOver:
      takeOver(n);
      if (random_.chance(300'000)) takeOver(any());
      break;
    case kTrap:
      trap_ = static_cast<Trap>(1 + random_.below(4));
      trapSkips_ = random_.below(trap_ == Trap::kStored || trap_ == Trap::kFenceReport ? 3 : 20);
      break;
    case kCheckpoint: {
      const std::string& volume = anyVolume();
      if (node.hasVolume(volume.c_str())) {
        cluster_.tasks().add(
            outcomeOf(node.volume(volume.c_str()).checkpointNow()).ignoreResult());
      }
      break;
    }
    case kDuel: duel(); break;
    case kRot: rot(); break;
    case kChange: changeMembers(); break;
    case kOldCoordinator: coordinatorGoesBack(); break;
    default: break;
  }
}

// The primary is cut off with records that nobody else has; another leads, and dies as it begins;
// then the first one is back.
void SimStorm::duel() {
  const std::string& volume = anyVolume();
  SimNode* primary = cluster_.primary(volume);
  if (primary == nullptr || duelOf_ != nullptr) return;
  tell("a duel: " + primary->id() + " is isolated with records of its own");
  cluster_.network().isolate(primary->id(), cluster_.nodeIds());
  const uint64_t records = 1 + random_.below(12);
  for (uint64_t i = 0; i < records; ++i) {
    cluster_.tasks().add(outcomeOf(primary->volume(volume.c_str()).propose(kvProposal(
        cluster_.newTxn(), "put k" + std::to_string(i % 5) + " duel"))).ignoreResult());
  }
  duelOf_ = primary;
  const size_t other = any();
  cluster_.tasks().add(cluster_.timer().afterDelay(
      static_cast<int64_t>(5 + random_.below(30)) * kj::MILLISECONDS).then([this, other]() {
    if (!over_) takeOver(other);
  }));
}

// An epoch has become active while a duel is on.
void SimStorm::duelTurns(const NodeId& winner) {
  SimNode* loser = duelOf_;
  duelOf_ = nullptr;
  if (loser->id() == winner) return;
  const size_t n = static_cast<size_t>(winner[0] - 'a');
  const size_t back = static_cast<size_t>(loser->id()[0] - 'a');
  auto lasts = static_cast<int64_t>(random_.below(15'000)) * kj::MICROSECONDS;
  cluster_.tasks().add(cluster_.timer().afterDelay(lasts).then([this, n, back]() {
    if (over_) return;
    cutPower(n);
    // Who has followed the winner may have forgotten it.
    const size_t other = any();
    if (options_.rot && other != n && other != back && mayRot() && rotJournal(other)) {
      restartSoon(other, 5);
    }
    tell(name(back) + " is back");
    cluster_.network().heal();
    takeOver(back);
  }));
}

void SimStorm::cutPower(size_t n) {
  SimNode& node = cluster_.node(n);
  if (node.idle()) return;
  tell(name(n) + " loses power");
  node.losePower();
  if (random_.chance(600'000)) restartSoon(n, 60);
}

void SimStorm::restartSoon(size_t n, int64_t msMax) {
  auto delay = static_cast<int64_t>(random_.below(static_cast<uint64_t>(msMax * 1000)) + 1) *
               kj::MICROSECONDS;
  cluster_.tasks().add(cluster_.timer().afterDelay(delay).then([this, n]() {
    if (over_ || !cluster_.node(n).idle()) return;
    tell(name(n) + " starts");
    cluster_.node(n).boot();
  }));
}

void SimStorm::rackLosesPower() {
  tell("the rack loses power");
  for (size_t i = 0; i < cluster_.size(); ++i) {
    if (!cluster_.node(i).idle()) cluster_.node(i).losePower();
    if (random_.chance(700'000)) restartSoon(i, 30);
  }
  if (random_.chance(500'000)) {
    const size_t n = any();
    cluster_.tasks().add(cluster_.timer().afterDelay(60 * kj::MILLISECONDS).then([this, n]() {
      if (!over_) takeOver(n);
    }));
  }
}

void SimStorm::cutSome() {
  const size_t pairs = 1 + random_.below(cluster_.size());
  for (size_t i = 0; i < pairs; ++i) {
    const size_t from = any(), to = any();
    if (from == to) continue;
    tell("nothing goes from " + name(from) + " to " + name(to));
    cluster_.network().cut(name(from), name(to));
    if (random_.chance(500'000)) cluster_.network().cut(name(to), name(from));
  }
}

void SimStorm::disturbDisk(size_t n) {
  kernelio::SimFault fault;
  switch (random_.below(5)) {
    case 0:
      fault.kind = kernelio::SimFaultKind::kWriteError;
      fault.pathPrefix = "journal";
      fault.skip = random_.below(5);
      cluster_.startsMayFail = true;
      tell("a write of the journal of " + name(n) + " will fail");
      break;
    case 1:
      fault.kind = kernelio::SimFaultKind::kStuck;
      fault.pathPrefix = "journal";
      tell("the disk of " + name(n) + " hangs");
      hanging_.insert(n);
      cluster_.tasks().add(cluster_.timer().afterDelay(300 * kj::MILLISECONDS).then([this, n]() {
        if (over_) return;
        unhang(n);
      }));
      break;
    case 2: fillDisk(n); return;
    default:
      fault.kind = kernelio::SimFaultKind::kSlow;
      fault.count = 1 + random_.below(20);
      fault.delay = static_cast<int64_t>(1 + random_.below(150)) * kj::MILLISECONDS;
      tell("the disk of " + name(n) + " is slow");
      break;
  }
  cluster_.node(n).storage().inject(fault);
}

// Less is left than the reserve, or nothing.
void SimStorm::fillDisk(size_t n) {
  const bool full = random_.chance(600'000);
  tell("the disk of " + name(n) + (full ? " is full" : " is short of room"));
  cluster_.node(n).storage().setCapacity(full ? 0 : kShortOfRoomBytes);
  cluster_.startsMayFail = true;
  auto lasts = static_cast<int64_t>(50 + random_.below(1500)) * kj::MILLISECONDS;
  cluster_.tasks().add(cluster_.timer().afterDelay(lasts).then([this, n]() {
    if (over_) return;
    tell("there is room on the disk of " + name(n));
    cluster_.node(n).storage().setCapacity(UINT64_MAX);
  }));
}

// Nothing ends a write that hangs but a restart.
void SimStorm::unhang(size_t n) {
  if (hanging_.erase(n) == 0) return;
  cluster_.node(n).storage().clearFaults();
  cutPower(n);
}

void SimStorm::disturbCoordinator(size_t n) {
  if (random_.chance(500'000)) {
    tell("the coordinator is there for all");
    cluster_.coordinator().heal();
  } else {
    tell(name(n) + " cannot reach the coordinator");
    cluster_.coordinator().cutOff(name(n));
  }
}

void SimStorm::takeOver(size_t n) {
  SimNode& node = cluster_.node(n);
  const std::string& volume = anyVolume();
  if (!node.hasVolume(volume.c_str())) return;
  tell(name(n) + " is told to take over" + (volume == "main" ? "" : " " + volume));
  cluster_.tasks().add(outcomeOf(node.volume(volume.c_str()).takeOver()).ignoreResult());
}

// ---- Faults at a moment -----------------------------------------------------------------------------

void SimStorm::sprung(Trap trap, const NodeId& id) {
  if (trap != trap_ || over_) return;
  if (trapSkips_ > 0) {
    --trapSkips_;
    return;
  }
  trap_ = Trap::kNone;
  const size_t n = static_cast<size_t>(id[0] - 'a');
  cluster_.tasks().add(kj::evalLater([this, n]() {
    if (!over_) cutPower(n);
  }));
}

void SimStorm::appendSent(const NodeId& primary, const NodeId& member,
                          const AppendRequest& request) {
  checkers_.back()->appendSent(primary, member, request);
  if (!request.records.empty()) sprung(Trap::kAppendSent, primary);
  starve(primary, member, request);
}

void SimStorm::appendAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                              const AppendReply& reply) {
  checkers_.back()->appendAnswered(primary, member, volume, reply);
  sprung(Trap::kAcknowledged, random_.chance(500'000) ? member : primary);
}

void SimStorm::fenceAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                             const FenceReply& reply) {
  checkers_.back()->fenceAnswered(primary, member, volume, reply);
  sprung(Trap::kFenceReport, random_.chance(700'000) ? member : primary);
}

// ---- The end ------------------------------------------------------------------------------------------

// Of a pair either member is enough (rule 19). Who joins may be counted at any time, so it is there.
bool SimStorm::suffices(const std::vector<size_t>& core) {
  auto there = [&](const MemberIdentity& member) {
    const size_t n = static_cast<size_t>(member.node[0] - 'a');
    return std::find(core.begin(), core.end(), n) != core.end() && !isRotten(n);
  };
  for (const auto& [volume, record] : cluster_.coordinator().volumes) {
    for (const VolumeConfiguration* configuration :
         {&record.current, record.lastActive ? &*record.lastActive : &record.current}) {
      const auto& members = configuration->members;
      size_t enough = std::max<size_t>(configuration->writeQuorum,
                                       members.size() - configuration->writeQuorum + 1);
      if (record.traits.pair) enough = 1;
      if (changing_ > 0) enough = members.size();
      const auto have = std::count_if(members.begin(), members.end(), there);
      if (static_cast<size_t>(have) < enough) return false;
      const auto& joining = configuration->joining;
      if (!std::all_of(joining.begin(), joining.end(), there)) return false;
    }
  }
  return true;
}

std::vector<size_t> SimStorm::healCore() {
  calm();
  undoExtentRot();
  std::vector<size_t> core, order;
  for (size_t i = 0; i < cluster_.size(); ++i) {
    core.push_back(i);
    order.insert(order.begin() + static_cast<ptrdiff_t>(random_.below(order.size() + 1)), i);
  }
  for (size_t i : order) {
    std::vector<size_t> without = core;
    std::erase(without, i);
    if (isRotten(i) || suffices(without)) core = std::move(without);
  }
  bool pair = false;
  for (const auto& [volume, record] : cluster_.coordinator().volumes) {
    pair = pair || record.traits.pair;
  }
  for (size_t i = 0; i < cluster_.size(); ++i) {
    const bool inCore = std::find(core.begin(), core.end(), i) != core.end();
    if (inCore) {
      tell(name(i) + " is in the core that heals");
      cluster_.node(i).boot();
    } else if (random_.chance(500'000)) {
      tell(name(i) + " stays down");
      cluster_.node(i).stop();
    } else {
      tell(name(i) + " stays isolated");
      cluster_.network().isolate(name(i), cluster_.nodeIds());
      // Of a pair either may go on alone, and it is to be the one in the core.
      if (pair) cluster_.coordinator().cutOff(name(i));
    }
  }
  return core;
}

void SimStorm::healAll() {
  calm();
  tell("all heals");
  for (size_t i = 0; i < cluster_.size(); ++i) cluster_.node(i).boot();
}

}  // namespace packmoor::replicator
