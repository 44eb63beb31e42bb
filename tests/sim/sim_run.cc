#include "sim_run.h"

#include "replicator/outcome.h"
#include "scenario.h"
#include "sim_clients.h"
#include "sim_pushers.h"
#include "sim_storm.h"

#include <algorithm>
#include <numeric>

namespace packmoor::replicator {

namespace {

constexpr uint64_t kHorizon = 400;  // of transaction ids, in records

struct VolumeSetting {
  std::string name;
  std::vector<NodeId> members;
  uint32_t writeQuorum;
  VolumeTraits traits;
};

struct Setting {
  size_t nodes;
  std::vector<VolumeSetting> volumes;
  SimStormOptions storm;
  ReplicatorOptions replicator;
  JournalOptions journal;
};

// Mostly majorities; every legal quorum at times. Where journals rot, one member must not be needed.
uint32_t quorumOf(kernelio::SeededRandom& random, size_t members, bool rot) {
  const uint64_t any = 1 + random.below(members);
  const uint64_t quorum = random.chance(700'000) ? members / 2 + 1 : any;
  if (rot && members >= 3) return static_cast<uint32_t>(std::clamp<uint64_t>(quorum, 2, members - 1));
  return static_cast<uint32_t>(quorum);
}

// Consecutive nodes from a random one on, in a ring.
std::vector<NodeId> membersOf(size_t first, size_t count, size_t nodes) {
  std::vector<NodeId> members;
  for (size_t i = 0; i < count; ++i) {
    members.emplace_back(1, static_cast<char>('a' + (first + i) % nodes));
  }
  return members;
}

// Who is there, and what becomes of them.
void drawVolumes(Setting& setting, kernelio::SeededRandom& random) {
  size_t members = 3 + random.below(3);
  setting.storm.changes = random.chance(300'000);
  const bool pair = setting.storm.changes && random.chance(200'000);
  if (pair) members = 2;
  setting.nodes = members;
  if (setting.storm.changes) setting.nodes += random.below(members >= 4 ? 2 : 3);
  setting.storm.rot = !pair && random.chance(300'000);
  setting.storm.coordinatorGoesBack = random.chance(250'000);
  VolumeSetting first{"main", membersOf(0, members, setting.nodes), 2, {}};
  first.traits.pair = pair;
  if (!pair) first.writeQuorum = quorumOf(random, members, setting.storm.rot);
  setting.volumes.push_back(std::move(first));
  if (random.chance(800'000)) return;
  const size_t least = std::min<size_t>(setting.storm.rot ? 3 : 2, setting.nodes);
  const size_t count = least + random.below(setting.nodes - least + 1);
  const size_t from = random.below(setting.nodes);
  setting.volumes.push_back({"side", membersOf(from, count, setting.nodes),
                             quorumOf(random, count, setting.storm.rot), {}});
}

// Every fourth run has a directed storm, and what it needs; the others are as they would be without.
void drawDirected(Setting& setting, uint64_t seed) {
  if (seed % 4 != 1) return;
  kernelio::SeededRandom random(seed * 6007 + 5);
  setting.storm.directed = static_cast<Directed>(1 + seed / 4 % 4);
  setting.storm.changes = false;
  VolumeSetting& volume = setting.volumes.front();
  setting.volumes.erase(setting.volumes.begin() + 1, setting.volumes.end());
  const bool rots = setting.storm.directed == Directed::kRotOfAcknowledged ||
                    setting.storm.directed == Directed::kRotOfPromise;
  if (rots) {
    setting.storm.rot = true;
    setting.nodes = random.chance(600'000) ? 3 : 3 + random.below(3);
    volume.members = membersOf(0, setting.nodes, setting.nodes);
    volume.writeQuorum = setting.nodes / 2 + 1;
    volume.traits.pair = false;
    // Nobody takes over from a primary that hears nobody, before that is what is wanted.
    if (setting.storm.directed == Directed::kRotOfAcknowledged) {
      setting.replicator.suspectAfterMs = 1000;
    }
    // What has rotted is not all in a checkpoint.
    setting.replicator.checkpointBytes = 1u << 20;
    setting.replicator.checkpointIntervalMs = 3000;
    return;
  }
  setting.storm.rot = setting.storm.coordinatorGoesBack = false;
  volume.traits.pair = random.chance(600'000);
  setting.nodes = volume.traits.pair ? 2 : 3;
  volume.writeQuorum = setting.nodes;
  if (setting.storm.directed == Directed::kAcceptedLoss && !volume.traits.pair) {
    setting.nodes = random.chance(500'000) ? 3 : 5;
    volume.writeQuorum = setting.nodes / 2 + 1;
  }
  volume.members = membersOf(0, setting.nodes, setting.nodes);
}

Setting settingOf(uint64_t seed) {
  kernelio::SeededRandom random(seed * 7919 + 13);
  Setting setting{3, {}, {}, SimCluster::testOptions(), SimCluster::journalOptions()};
  const bool smallLogs = seed % 3 == 0;
  drawVolumes(setting, random);
  ReplicatorOptions& options = setting.replicator;
  options.proposeTimeoutMs = 200 + static_cast<int64_t>(random.below(2000));
  options.readTimeoutMs = 200 + static_cast<int64_t>(random.below(1500));
  options.suspectAfterMs = 100 + static_cast<int64_t>(random.below(300));
  options.journalStuckMs = 200 + static_cast<int64_t>(random.below(1000));
  options.checkpointBytes = 4096 + random.below(64u << 10);
  options.checkpointIntervalMs = 200 + static_cast<int64_t>(random.below(2000));
  // With small logs a member that was away needs a checkpoint.
  options.logRetainBytes = smallLogs ? 2048 : 64u << 20;
  options.logRepairBytes = options.logRetainBytes;
  drawDirected(setting, seed);
  setting.journal.segmentBytes = (64u << 10) << random.below(3);
  setting.journal.batchBytesMax = setting.journal.segmentBytes / 4;
  return setting;
}

std::string describe(const Setting& setting) {
  std::string text = std::to_string(setting.nodes) + " nodes";
  for (const VolumeSetting& volume : setting.volumes) {
    text += ", " + volume.name + " on ";
    for (const NodeId& member : volume.members) text += member;
    text += " with W = " + std::to_string(volume.writeQuorum);
    if (volume.traits.pair) text += ", a pair";
  }
  if (setting.storm.changes) text += "; members change";
  if (setting.storm.rot) text += "; disks rot";
  if (setting.storm.directed != Directed::kNone) text += "; a directed storm";
  if (setting.storm.coordinatorGoesBack) text += "; the coordinator goes back";
  return text;
}

class Run {
 public:
  Run(const SimRunOptions& options, const Setting& setting)
      : setting_(setting), cluster_(options.seed, setting.nodes, setting.replicator),
        checkers_(watch(cluster_, setting)), checker_(*checkers_.front()),
        storm_(cluster_, checkers_, setting.storm) {
    cluster_.story = options.story;
    cluster_.journal = setting.journal;
    cluster_.kvOptions.horizon = kHorizon;
    cluster_.coordinator().unnoticed = options.unnoticedRestore;
    cluster_.kvOptions.kept = options.expireEarly ? 3 : kHorizon;
  }
  ~Run() {
    while (checkers_.size() > 1) checkers_.pop_back();
  }

  SimRunResult go() {
    auto failure = kj::runCatchingExceptions([this]() { phases(); });
    KJ_IF_MAYBE(exception, failure) {
      if (!checker_.found()) {
        checker_.finding(std::string("the run failed: ") + exception->getDescription().cStr());
      }
    }
    SimRunResult result;
    result.trace = cluster_.network().traceHash();
    result.findings = checker_.findings();
    result.setting = describe(setting_) + "; " + storm_.weather();
    for (auto& checker : checkers_) {
      result.acknowledged += checker->acknowledgements();
      result.reads += checker->reads();
      result.records += checker->records();
    }
    result.messages = cluster_.network().messages();
    for (auto& [name, record] : cluster_.coordinator().volumes) {
      result.epochs += record.current.epoch.value;
    }
    result.virtualMs = cluster_.nowMs();
    for (auto& clients : clients_) {
      result.unknown += clients->failed;
      result.rejected += clients->rejected;
    }
    if (pushers_ != nullptr) result.setting += "; " + pushers_->told();
    return result;
  }

 private:
  static SimCheckers watch(SimCluster& cluster, const Setting& setting) {
    SimCheckers checkers;
    for (const VolumeSetting& volume : setting.volumes) {
      checkers.push_back(std::make_unique<SimChecker>(
          cluster, volume.name, checkers.empty() ? nullptr : checkers.front().get()));
    }
    return checkers;
  }

  void begin() {
    cluster_.startAll();
    for (const VolumeSetting& volume : setting_.volumes) {
      cluster_.loop().wait(cluster_.node(0).replicator().createVolume(
          volume.name, volume.members, volume.writeQuorum, volume.traits));
    }
    for (const VolumeSetting& volume : setting_.volumes) {
      cluster_.until([&]() { return cluster_.primary(volume.name) != nullptr; }, 20'000, "a primary");
    }
    for (auto& checker : checkers_) {
      SimClientOptions load;
      load.clients = clients_.empty() ? 3 + cluster_.random().below(6) : 2;
      if (!clients_.empty()) load.readers = 1;
      clients_.push_back(std::make_unique<SimClients>(cluster_, *checker, load));
    }
    pushers_ = std::make_unique<SimPushers>(
        cluster_, checker_, setting_.storm.directed == Directed::kAcceptedLoss);
  }

  void phases() {
    begin();
    storm_.begin();
    const uint64_t faults = 15 + cluster_.random().below(50);
    const uint64_t directedAt = setting_.storm.directed == Directed::kNone
                                    ? faults : cluster_.random().below(15);
    for (uint64_t i = 0; i < faults && !checker_.found(); ++i) {
      runFor(storm_.untilNext());
      if (i == directedAt) storm_.direct();
      while (storm_.directs() && !checker_.found()) runFor(kj::Duration(5 * kj::MILLISECONDS));
      storm_.act();
    }
    if (!checker_.found()) {
      serve(storm_.healCore(), kCoreBoundMs,
            "the healed core answers a write and a read at each of its nodes");
    }
    if (!checker_.found()) healAll();
    if (!checker_.found()) checkExtents();
  }

  // Checks on the way.
  void runFor(kj::Duration duration) {
    constexpr kj::Duration kStep = 5 * kj::MILLISECONDS;
    while (duration > 0 * kj::NANOSECONDS && !checker_.found()) {
      const kj::Duration step = std::min(duration, kStep);
      cluster_.loop().runFor(step);
      for (auto& checker : checkers_) checker->poll();
      duration -= step;
    }
  }

  // Runs until the condition holds; a finding after the time. Nobody helps: the members must find a
  // primary by themselves.
  template <typename Condition>
  void until(Condition condition, const std::vector<size_t>& nodes, int64_t boundMs,
             const char* what) {
    const int64_t deadline = cluster_.nowMs() + boundMs;
    while (!checker_.found() && !condition()) {
      if (cluster_.nowMs() >= deadline) {
        checker_.finding(kNoProgress + std::string(what) + cluster_.describe());
        return;
      }
      runFor(10 * kj::MILLISECONDS);
      for (size_t i : nodes) cluster_.node(i).boot();
    }
  }

  // Every volume, at each of the nodes that are its members by then.
  void serve(const std::vector<size_t>& nodes, int64_t boundMs, const char* what) {
    struct Asked {
      bool asking = false, answered = false;
    };
    std::vector<Asked> asked(setting_.nodes * checkers_.size());
    until([&]() {
      bool all = true;
      for (size_t v = 0; v < checkers_.size(); ++v) {
        for (size_t i : nodes) {
          if (!cluster_.isMember(cluster_.node(i), checkers_[v]->volume())) continue;
          Asked& place = asked[v * setting_.nodes + i];
          all = all && place.answered;
          if (place.answered || place.asking) continue;
          place.asking = true;
          tasks_.push_back(clients_[v]->writeAndRead(i).promise().then([&place](bool done) {
            place.asking = false;
            place.answered = done;
          }).eagerlyEvaluate(nullptr));
        }
      }
      return all;
    }, nodes, boundMs, what);
    tasks_.clear();
  }

  void healAll() {
    std::vector<size_t> all(setting_.nodes);
    std::iota(all.begin(), all.end(), 0);
    for (auto& clients : clients_) clients->stop();
    pushers_->stop();
    storm_.healAll();
    until([&]() {
      return pushers_->ended() &&
             std::all_of(clients_.begin(), clients_.end(), [](auto& c) { return c->ended(); });
    }, all, kConvergeBoundMs, "the clients are answered");
    serve(all, kCoreBoundMs, "every member answers a write and a read");
    until([&]() { return !storm_.changesMembers() && converged(); }, all, kConvergeBoundMs,
          "all members are equal");
    for (auto& checker : checkers_) {
      if (!checker_.found()) checker->finish();
    }
  }

  bool converged() {
    for (auto& checker : checkers_) {
      for (size_t i = 0; i < setting_.nodes; ++i) {
        SimNode& node = cluster_.node(i);
        const char* name = checker->volume().c_str();
        if (!cluster_.isMember(node, checker->volume())) continue;
        if (!node.hasVolume(name)) return false;
        const VolumeStatus status = node.volume(name).status();
        if (status.applied < checker->highestAcknowledged() || status.applied != status.last ||
            status.applied.value != checker->records() || status.repairing) {
          return false;
        }
      }
    }
    return true;
  }

  Co<void> checkExtentsOf(SimChecker& checker, size_t n) {
    ExtentStore& store = cluster_.node(n).extents();
    for (const ExtentId& id : checker.extents()) {
      // As it lies here: readBlock() would mend it from another member first.
      auto block = co_await outcomeOf(store.readBlockHere(id, 0));
      if (!block.ok()) {
        checker.finding(cluster_.node(n).id() + " cannot read an extent of the log: " +
                        KJ_ASSERT_NONNULL(block.exception).getDescription().cStr());
        co_return;
      }
      auto content = SimClients::extentContent(id, block.value->size());
      if (content.bytes() != block.value->bytes()) {
        checker.finding(cluster_.node(n).id() + " has other bytes in an extent of the log");
      }
    }
  }
  void checkExtents() {
    for (auto& checker : checkers_) {
      for (size_t i = 0; i < setting_.nodes; ++i) {
        if (!cluster_.isMember(cluster_.node(i), checker->volume())) continue;
        cluster_.loop().wait(checkExtentsOf(*checker, i).promise());
      }
    }
  }

  const Setting setting_;
  SimCluster cluster_;
  SimCheckers checkers_;
  SimChecker& checker_;           // the first: findings of all are there
  SimStorm storm_;
  std::vector<std::unique_ptr<SimClients>> clients_;  // by volume, as the checkers
  std::unique_ptr<SimPushers> pushers_;               // in the first volume
  std::vector<kj::Promise<void>> tasks_;
};

}  // namespace

SimRunResult simRun(const SimRunOptions& options) {
  if (!options.scenario.empty()) return runScenario(options);
  return Run(options, settingOf(options.seed)).go();
}

}  // namespace packmoor::replicator
