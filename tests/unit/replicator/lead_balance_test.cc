// Goal: leads are spread evenly, by the same decision on every node, at most one move in the quiet time
// in the whole cluster, never back and forth, never against a drained node and never while anything is
// not well. Method: the pure function on records; every node's balancer in virtual time on one set of
// records; then a cluster of whole nodes.
#include "replicator/lead_balance.h"

#include "sim_cluster.h"

#include <gtest/gtest.h>

#include <map>

namespace packmoor::replicator {
namespace {

VolumeRecord led(const char* name, const char* primary, std::vector<NodeId> members) {
  VolumeRecord record;
  record.name = name;
  record.phase = VolumePhase::kActive;
  record.current.epoch = Epoch(1);
  record.current.primary.node = primary;
  for (const NodeId& node : members) record.current.members.push_back({node, {}});
  return record;
}

bool all(const NodeId&) { return true; }

const std::vector<NodeId> kThree{"a", "b", "c"};

TEST(LeadBalanceTest, TheFirstVolumeThatMakesItMoreEqualMoves) {
  std::vector<VolumeRecord> records{led("z", "a", kThree), led("y", "a", kThree),
                                    led("x", "b", kThree)};
  EXPECT_EQ(nextLeadMove(records, all), (LeadMove{"y", "a", "c"}));
  EXPECT_EQ(nextLeadMove(records, [](const NodeId& node) { return node != "c"; }), std::nullopt);
  records[1].current.primary.node = "c";
  EXPECT_EQ(nextLeadMove(records, all), std::nullopt);
}

TEST(LeadBalanceTest, ADifferenceOfOneIsLeftAlone) {
  EXPECT_EQ(nextLeadMove({led("x", "a", {"a", "b"})}, all), std::nullopt);
  EXPECT_EQ(nextLeadMove({led("x", "a", {"a", "b"}), led("y", "a", {"a"})}, all),
            (LeadMove{"x", "a", "b"}));
}

TEST(LeadBalanceTest, ADrainedMemberIsGivenNothingAndGivesAway) {
  std::vector<VolumeRecord> records{led("x", "a", kThree), led("y", "a", kThree)};
  for (auto& record : records) record.traits.drained = {"b", "c"};
  EXPECT_EQ(nextLeadMove(records, all), std::nullopt);
  for (auto& record : records) record.traits.drained = {"a", "c"};
  EXPECT_EQ(nextLeadMove(records, all), (LeadMove{"x", "a", "b"}));
  records[0].current.primary.node = records[1].current.primary.node = "b";
  EXPECT_EQ(nextLeadMove(records, all), std::nullopt);   // although b leads all
}

TEST(LeadBalanceTest, DeletedVolumesAndThoseInATakeoverDoNotCount) {
  std::vector<VolumeRecord> records{led("x", "a", kThree), led("y", "a", kThree)};
  records[0].traits.deleted = true;
  EXPECT_EQ(nextLeadMove(records, all), std::nullopt);
  records[0].traits.deleted = false;
  records[1].phase = VolumePhase::kRecovering;
  EXPECT_EQ(nextLeadMove(records, all), std::nullopt);
}

// Every node's balancer over the same records, polled every 5 s, each at its own time.
struct Nodes {
  explicit Nodes(std::vector<VolumeRecord> volumes) : records(std::move(volumes)) {
    for (const NodeId& node : kThree) balancers.emplace(node, LeadBalancer(60'000));
  }
  // For so long; the times of the moves.
  std::vector<int64_t> pass(int64_t seconds) {
    std::vector<int64_t> moves;
    for (const int64_t end = now + seconds * 1000; now < end; now += 1000) {
      int64_t offset = 0;
      for (auto& [node, balancer] : balancers) {
        if ((now / 1000 + offset++) % 5 != 0) continue;
        auto move = balancer.sample(now, records, node, well);
        if (!move.has_value()) continue;
        moves.push_back(now);
        EXPECT_EQ(move->from, node);
        for (auto& record : records) {
          if (record.name != move->volume) continue;
          EXPECT_EQ(record.current.primary.node, node);
          record.current.primary.node = move->to;
          record.current.epoch = record.current.epoch.next();
        }
      }
    }
    return moves;
  }
  std::map<NodeId, size_t> leads() {
    std::map<NodeId, size_t> count;
    for (const auto& record : records) ++count[record.current.primary.node];
    return count;
  }
  std::vector<VolumeRecord> records;
  std::map<NodeId, LeadBalancer> balancers;
  int64_t now = 0;
  bool well = true;
};

std::vector<VolumeRecord> many(size_t count, const char* primary) {
  std::vector<VolumeRecord> records;
  for (size_t i = 0; i < count; ++i) {
    records.push_back(led(("v" + std::to_string(i)).c_str(), primary, kThree));
  }
  return records;
}

TEST(LeadBalanceTest, OneMoveAMinuteUntilTheLeadsAreEven) {
  Nodes nodes(many(9, "a"));
  const auto moves = nodes.pass(3600);
  EXPECT_EQ(nodes.leads(), (std::map<NodeId, size_t>{{"a", 3}, {"b", 3}, {"c", 3}}));
  ASSERT_EQ(moves.size(), 6u);
  EXPECT_GE(moves.front(), 60'000);
  for (size_t i = 1; i < moves.size(); ++i) EXPECT_GE(moves[i] - moves[i - 1], 60'000);
}

TEST(LeadBalanceTest, NothingMovesWhileAnythingIsNotWellOrChanges) {
  Nodes nodes(many(4, "b"));
  nodes.well = false;
  EXPECT_TRUE(nodes.pass(600).empty());
  nodes.well = true;
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(nodes.pass(50).empty());
    nodes.records[0].current.epoch = nodes.records[0].current.epoch.next();
  }
  nodes.records[1].phase = VolumePhase::kRecovering;
  EXPECT_TRUE(nodes.pass(600).empty());
  nodes.records[1].phase = VolumePhase::kActive;
  EXPECT_FALSE(nodes.pass(120).empty());
}

TEST(LeadBalanceTest, AMoveThatFailsIsTriedAgainAMinuteLater) {
  LeadBalancer balancer(60'000);
  const auto records = many(3, "a");
  std::vector<int64_t> asked;
  for (int64_t now = 0; now < 300'000; now += 1000) {
    if (balancer.sample(now, records, "a", true).has_value()) asked.push_back(now);
  }
  EXPECT_EQ(asked, (std::vector<int64_t>{60'000, 120'000, 180'000, 240'000}));
}

// One volume of three nodes: there is nothing to spread, but a drained node gives its lead away.
TEST(LeadBalanceTest, WholeNodesMoveALeadWithoutAnyFailure) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.autoBalance = true;
  options.autoBalanceQuietMs = 10'000;
  SimCluster cluster(700, 3, options);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  cluster.loop().runFor(60 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), &cluster.node(0));
  cluster.coordinator().volumes.at("main").traits.drained = {"a"};
  ++cluster.coordinator().volumes.at("main").revision;
  cluster.node(1).losePower();
  cluster.loop().runFor(60 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), &cluster.node(0));   // not while a member is away
  cluster.startAll();
  cluster.until([&]() { return cluster.primary() == &cluster.node(1); }, 40'000, "the lead moves");
  cluster.put(2, "k", "2");
  cluster.loop().runFor(60 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), &cluster.node(1));
  cluster.settle();
  cluster.verify();
}

}  // namespace
}  // namespace packmoor::replicator
