// Goal: a volume commits, applies, reads and moves its lead as DESIGN section 6 says, with one node
// and with three, when nothing is broken. Method: whole nodes on simulated disks and a simulated
// network under virtual time.
#include "sim_cluster.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

TEST(VolumeTest, OneNodeCommitsAlone) {
  SimCluster cluster(1, 1);
  cluster.begin(1);
  for (int i = 0; i < 20; ++i) cluster.put(0, "k" + std::to_string(i), "v");
  EXPECT_EQ(cluster.get(0, "k7"), "v");
  EXPECT_EQ(cluster.get(0, "absent"), "-");
  cluster.restart(0);
  cluster.awaitPrimary();
  EXPECT_EQ(cluster.get(0, "k19"), "v");
  cluster.settle();
  cluster.verify();
  EXPECT_EQ(cluster.acknowledged().size(), 20u);
}

TEST(VolumeTest, ThreeNodesAgree) {
  SimCluster cluster(2, 3);
  cluster.begin(2);
  for (int i = 0; i < 60; ++i) cluster.put(i % 3, "k" + std::to_string(i % 7), std::to_string(i));
  for (size_t n = 0; n < 3; ++n) EXPECT_EQ(cluster.get(n, "k3"), "59");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeTest, ARecordThatDoesNotFitIntoTheJournalIsRefused) {
  SimCluster cluster(4, 3);
  cluster.begin(2);
  for (size_t node : {0, 1}) {
    auto refused = kj::runCatchingExceptions(
        [&]() { cluster.put(node, "k", std::string(300u << 10, 'v')); });
    EXPECT_NE(std::string(KJ_ASSERT_NONNULL(refused).getDescription().cStr()).find("replication.segment"),
              std::string::npos);
  }
  cluster.put(1, "k", "v");
  EXPECT_EQ(cluster.get(0, "k"), "v");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeTest, SwitchoverMovesTheLead) {
  SimCluster cluster(3, 3);
  cluster.begin(2);
  cluster.put(0, "a", "1");
  cluster.loop().wait(cluster.node(0).volume().switchOver("b"));
  EXPECT_EQ(cluster.primary(), &cluster.node(1));
  cluster.put(0, "a", "2");
  cluster.put(2, "b", "3");
  EXPECT_EQ(cluster.get(2, "a"), "2");
  cluster.settle();
  cluster.verify();
}

}  // namespace
}  // namespace packmoor::replicator
