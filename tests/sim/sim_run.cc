#include "sim_run.h"

#include "replicator/outcome.h"
#include "sim_clients.h"
#include "sim_storm.h"

#include <algorithm>
#include <numeric>

namespace packmoor::replicator {

namespace {

constexpr uint64_t kHorizon = 400;  // of transaction ids, in records

struct Setting {
  size_t nodes;
  uint32_t writeQuorum;
  ReplicatorOptions replicator;
  JournalOptions journal;
};

Setting settingOf(uint64_t seed) {
  kernelio::SeededRandom random(seed * 7919 + 13);
  Setting setting{3 + random.below(3), 2, SimCluster::testOptions(), SimCluster::journalOptions()};
  // Mostly majorities; every legal quorum at times.
  const size_t n = setting.nodes;
  setting.writeQuorum = static_cast<uint32_t>(random.chance(700'000) ? n / 2 + 1
                                                                     : 1 + random.below(n));
  ReplicatorOptions& options = setting.replicator;
  options.proposeTimeoutMs = 200 + static_cast<int64_t>(random.below(2000));
  options.readTimeoutMs = 200 + static_cast<int64_t>(random.below(1500));
  options.suspectAfterMs = 100 + static_cast<int64_t>(random.below(300));
  options.journalStuckMs = 200 + static_cast<int64_t>(random.below(1000));
  options.checkpointBytes = 4096 + random.below(64u << 10);
  options.checkpointIntervalMs = 200 + static_cast<int64_t>(random.below(2000));
  // With small logs a member that was away needs a checkpoint.
  options.logRetainBytes = seed % 3 == 0 ? 2048 : 64u << 20;
  setting.journal.segmentBytes = (64u << 10) << random.below(3);
  setting.journal.batchBytesMax = setting.journal.segmentBytes / 4;
  return setting;
}

class Run {
 public:
  Run(const SimRunOptions& options, const Setting& setting)
      : setting_(setting), cluster_(options.seed, setting.nodes, setting.replicator),
        checker_(cluster_), storm_(cluster_, checker_) {
    cluster_.story = options.story;
    cluster_.journal = setting.journal;
    cluster_.kvOptions = KvOptions{kHorizon, options.expireEarly ? 3 : kHorizon};
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
    result.setting = std::to_string(setting_.nodes) + " nodes, W = " +
                     std::to_string(setting_.writeQuorum) + "; " + storm_.weather();
    result.acknowledged = checker_.acknowledgements();
    result.reads = checker_.reads();
    result.records = checker_.records();
    result.messages = cluster_.network().messages();
    result.epochs = cluster_.coordinator().volumes["main"].current.epoch.value;
    result.virtualMs = cluster_.nowMs();
    if (clients_ != nullptr) {
      result.unknown = clients_->failed;
      result.rejected = clients_->rejected;
    }
    return result;
  }

 private:
  void phases() {
    cluster_.begin(setting_.writeQuorum);
    SimClientOptions load;
    load.clients = 3 + cluster_.random().below(6);
    clients_ = std::make_unique<SimClients>(cluster_, checker_, load);
    storm_.begin();
    const uint64_t faults = 15 + cluster_.random().below(50);
    for (uint64_t i = 0; i < faults && !checker_.found(); ++i) {
      runFor(storm_.untilNext());
      storm_.act();
    }
    if (!checker_.found()) healCore();
    if (!checker_.found()) healAll();
    if (!checker_.found()) checkExtents();
  }

  // Checks on the way.
  void runFor(kj::Duration duration) {
    constexpr kj::Duration kStep = 5 * kj::MILLISECONDS;
    while (duration > 0 * kj::NANOSECONDS && !checker_.found()) {
      const kj::Duration step = std::min(duration, kStep);
      cluster_.loop().runFor(step);
      checker_.poll();
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

  // As many as can both commit and take over (rules 5 and 15).
  void healCore() {
    const size_t n = setting_.nodes;
    const size_t enough = std::max<size_t>(setting_.writeQuorum, n - setting_.writeQuorum + 1);
    std::vector<size_t> core(n);
    std::iota(core.begin(), core.end(), 0);
    while (core.size() > enough) {
      core.erase(core.begin() + static_cast<ptrdiff_t>(cluster_.random().below(core.size())));
    }
    storm_.healCore(core);
    serves(core, kCoreBoundMs, "the healed core answers a write and a read at each of its nodes");
  }

  void serves(const std::vector<size_t>& nodes, int64_t boundMs, const char* what) {
    struct Asked {
      bool asking = false, answered = false;
    };
    std::vector<Asked> asked(setting_.nodes);
    until([&]() {
      bool all = true;
      for (size_t i : nodes) {
        Asked& place = asked[i];
        all = all && place.answered;
        if (place.answered || place.asking) continue;
        place.asking = true;
        tasks_.push_back(clients_->writeAndRead(i).promise().then([&place](bool done) {
          place.asking = false;
          place.answered = done;
        }).eagerlyEvaluate(nullptr));
      }
      return all;
    }, nodes, boundMs, what);
    tasks_.clear();
  }

  void healAll() {
    std::vector<size_t> all(setting_.nodes);
    std::iota(all.begin(), all.end(), 0);
    clients_->stop();
    storm_.healAll();
    until([&]() { return clients_->ended(); }, all, kConvergeBoundMs, "the clients are answered");
    serves(all, kCoreBoundMs, "every node answers a write and a read");
    until([&]() { return converged(); }, all, kConvergeBoundMs, "all members are equal");
    if (!checker_.found()) checker_.finish();
  }

  bool converged() {
    for (size_t i = 0; i < setting_.nodes; ++i) {
      SimNode& node = cluster_.node(i);
      if (!node.hasVolume()) return false;
      const VolumeStatus status = node.volume().status();
      if (status.applied < checker_.highestAcknowledged() || status.applied != status.last ||
          status.applied.value != checker_.records()) {
        return false;
      }
    }
    return true;
  }

  Co<void> checkExtentsOf(size_t n) {
    ExtentStore& store = cluster_.node(n).extents();
    for (const ExtentId& id : checker_.extents()) {
      // As it lies here: readBlock() would mend it from another member first.
      auto block = co_await outcomeOf(store.readBlockHere(id, 0));
      if (!block.ok()) {
        checker_.finding(cluster_.node(n).id() + " cannot read an extent of the log: " +
                         KJ_ASSERT_NONNULL(block.exception).getDescription().cStr());
        co_return;
      }
      auto content = SimClients::extentContent(id, block.value->size());
      if (content.bytes() != block.value->bytes()) {
        checker_.finding(cluster_.node(n).id() + " has other bytes in an extent of the log");
      }
    }
  }
  void checkExtents() {
    for (size_t i = 0; i < setting_.nodes; ++i) {
      cluster_.loop().wait(checkExtentsOf(i).promise());
    }
  }

  const Setting setting_;
  SimCluster cluster_;
  SimChecker checker_;
  SimStorm storm_;
  std::unique_ptr<SimClients> clients_;
  std::vector<kj::Promise<void>> tasks_;
};

}  // namespace

SimRunResult simRun(const SimRunOptions& options) {
  return Run(options, settingOf(options.seed)).go();
}

}  // namespace packmoor::replicator
