// Goal: no order of deaths, power cuts, hanging disks, partitions, switchovers, lost, late, repeated
// and overtaking messages loses what was acknowledged, applies it twice, makes members differ, or
// lets a read be stale; and when the faults end, the volume serves again. Method: random faults from a
// seed under load on whole nodes; then everything heals. The same seed gives the same trace.
//
// PACKMOOR_SEEDS=FROM-TO runs other seeds.
#include "sim_load.h"

#include "replicator/outcome.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace packmoor::replicator {
namespace {

struct Shape {
  size_t nodes;
  uint32_t writeQuorum;
};

Shape shapeOf(uint64_t seed) {
  constexpr Shape kShapes[] = {{3, 2}, {3, 2}, {5, 3}, {2, 2}, {3, 3}, {1, 1}, {4, 2}};
  return kShapes[seed % std::size(kShapes)];
}

class Nemesis {
 public:
  explicit Nemesis(SimCluster& cluster) : cluster_(cluster), random_(cluster.random().split()) {}

  void act() {
    const size_t n = random_.below(cluster_.size());
    SimNode& node = cluster_.node(n);
    switch (random_.below(12)) {
      case 0:
      case 1:
        if (node.up()) node.losePower();
        break;
      case 2:
        if (node.up()) node.stop();
        break;
      case 3:
      case 4:
        for (size_t i = 0; i < cluster_.size(); ++i) start(i);
        break;
      case 5: cluster_.network().isolate(node.id(), cluster_.nodeIds()); break;
      case 6: {  // one direction only
        const size_t other = random_.below(cluster_.size());
        if (other != n) cluster_.network().cut(node.id(), cluster_.node(other).id());
        break;
      }
      case 7: cluster_.network().heal(); break;
      case 8:
        if (random_.below(2) == 0) {
          cluster_.coordinator().cutOff(node.id());
        } else {
          cluster_.coordinator().heal();
        }
        break;
      case 9: takeOver(node); break;
      case 10:
        node.slowDisk(static_cast<int64_t>(random_.below(2000)) * kj::MILLISECONDS);
        break;
      case 11:
        for (size_t i = 0; i < cluster_.size(); ++i) cluster_.node(i).slowDisk(0 * kj::SECONDS);
        break;
    }
  }

  // Everything is well from here on.
  void heal() {
    for (size_t i = 0; i < cluster_.size(); ++i) cluster_.node(i).slowDisk(0 * kj::SECONDS);
    cluster_.network().heal();
    cluster_.network().links = SimLinks();
    cluster_.coordinator().heal();
    cluster_.coordinator().unknownPerMillion = 0;
    cluster_.until([this]() {
      for (size_t i = 0; i < cluster_.size(); ++i) start(i);
      for (size_t i = 0; i < cluster_.size(); ++i) {
        if (!cluster_.node(i).hasVolume()) return false;
      }
      return true;
    }, 30'000, "every node has opened the volume");
  }

 private:
  void start(size_t i) {
    if (cluster_.node(i).idle()) {
      cluster_.tasks().add(outcomeOf(cluster_.node(i).start().promise()).ignoreResult());
    }
  }
  void takeOver(SimNode& node) {
    if (!node.hasVolume()) return;
    cluster_.tasks().add(outcomeOf(node.volume().takeOver()).ignoreResult());
  }

  SimCluster& cluster_;
  kernelio::SeededRandom random_;
};

struct Result {
  uint64_t trace = 0, done = 0, failed = 0, lost = 0, reads = 0;
};

Result run(uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Shape shape = shapeOf(seed);
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 3000;
  options.readTimeoutMs = 1500;
  options.logRetainBytes = 64u << 20;  // nobody may fall behind what the journals keep
  SimCluster cluster(seed, shape.nodes, options);
  cluster.begin(shape.writeQuorum);
  SimLinks& links = cluster.network().links;
  if (seed % 3 != 0) {
    links.lossPerMillion = static_cast<uint32_t>(cluster.random().below(20'000));
    links.repeatPerMillion = static_cast<uint32_t>(cluster.random().below(50'000));
    links.overtaking = seed % 2 == 0;
    links.delayUsMax = 200 + static_cast<int64_t>(cluster.random().below(5000));
  }
  cluster.coordinator().unknownPerMillion = seed % 4 == 0 ? 100'000 : 0;
  Nemesis nemesis(cluster);
  std::vector<size_t> clients;
  for (size_t i = 0; i < 4; ++i) clients.push_back(i % shape.nodes);
  SimLoad load(cluster, clients, 6);
  for (int i = 0; i < 25; ++i) {
    cluster.loop().runFor(static_cast<int64_t>(20 + cluster.random().below(250)) *
                          kj::MILLISECONDS);
    nemesis.act();
  }
  nemesis.heal();
  load.join();
  cluster.awaitPrimary(15'000);
  const uint64_t before = cluster.acknowledged().size();
  for (size_t i = 0; i < shape.nodes; ++i) cluster.put(i, "last", std::to_string(i));
  EXPECT_EQ(cluster.acknowledged().size(), before + shape.nodes);
  cluster.settle();
  cluster.verify();
  return Result{cluster.network().traceHash(), load.done, load.failed, load.lost, load.reads};
}

std::pair<uint64_t, uint64_t> seeds(uint64_t from, uint64_t to) {
  const char* given = std::getenv("PACKMOOR_SEEDS");  // a test's own switch
  if (given != nullptr && std::sscanf(given, "%lu-%lu", &from, &to) != 2) to = from = 0;
  return {from, to};
}

TEST(VolumeRandomTest, NothingIsLost) {
  auto [from, to] = seeds(1000, 1021);
  uint64_t done = 0, failed = 0, lost = 0, reads = 0;
  for (uint64_t seed = from; seed < to && !HasFatalFailure(); ++seed) {
    const Result result = run(seed);
    done += result.done;
    failed += result.failed;
    lost += result.lost;
    reads += result.reads;
    if (HasFailure()) {
      std::printf("failing seed: %lu\n", seed);
      break;
    }
  }
  std::printf("%lu acknowledged, %lu unknown, %lu rejected, %lu reads\n", done, failed, lost, reads);
  EXPECT_GT(done, (to - from) * 50);
}

TEST(VolumeRandomTest, TheSameSeedGivesTheSameTrace) {
  for (uint64_t seed : {2002, 2004}) {
    const Result first = run(seed), second = run(seed), other = run(seed + 7);
    EXPECT_EQ(first.trace, second.trace);
    EXPECT_EQ(first.done, second.done);
    EXPECT_NE(first.trace, other.trace);
  }
}

}  // namespace
}  // namespace packmoor::replicator
