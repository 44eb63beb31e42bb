// Goal: a primary slows down only for a counted member that is too far behind and gets on, and to
// less than that member takes. Method: the brake alone, with a clock of the test; then a cluster whose
// standby takes records slowly.
#include "lag_brake.h"
#include "sim_load.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

constexpr uint64_t kMiB = 1u << 20;

class LagBrakeTest : public testing::Test {
 protected:
  // Samples for `seconds` a member that lags so much and takes so many bytes a second.
  void pass(int64_t seconds, uint64_t lagBytes, uint64_t bytesPerSecond) {
    for (int64_t i = 0; i < seconds * 4; ++i) {
      now_ += LagBrake::kSampleMs;
      taken_ += bytesPerSecond / 4;
      LagBrake::Follower follower{"b", counted_, lagBytes, taken_, taken_};
      brake_.sample(now_, {follower});
    }
  }

  LagBrake brake_{10 * kMiB};
  int64_t now_ = 1000;
  uint64_t taken_ = 0;
  bool counted_ = true;
};

TEST_F(LagBrakeTest, NobodyIsSlowedDownForAMemberThatIsNear) {
  pass(10, 9 * kMiB, kMiB);
  EXPECT_FALSE(brake_.status().on);
}

TEST_F(LagBrakeTest, LessIsOrderedThanTheMemberTakes) {
  pass(10, 11 * kMiB, 4 * kMiB);
  ASSERT_TRUE(brake_.status().on);
  EXPECT_EQ(brake_.status().member, "b");
  EXPECT_LT(brake_.status().bytesPerSecond, 4 * kMiB);
  EXPECT_GT(brake_.status().bytesPerSecond, 2 * kMiB);
  const uint64_t before = brake_.status().bytesPerSecond;
  pass(10, 19 * kMiB, 4 * kMiB);
  EXPECT_LT(brake_.status().bytesPerSecond, before / 2);
}

TEST_F(LagBrakeTest, ItStaysOnUntilTheMemberIsWellBelowTheBound) {
  pass(10, 11 * kMiB, 4 * kMiB);
  pass(1, 9 * kMiB, 4 * kMiB);
  EXPECT_TRUE(brake_.status().on);
  pass(1, 7 * kMiB, 4 * kMiB);
  EXPECT_FALSE(brake_.status().on);
}

TEST_F(LagBrakeTest, AMemberThatDoesNotGetOnIsNotWaitedFor) {
  pass(10, 11 * kMiB, 4 * kMiB);
  EXPECT_TRUE(brake_.getsOn("b", now_));
  pass(16, 50 * kMiB, 0);
  EXPECT_FALSE(brake_.status().on);
  EXPECT_FALSE(brake_.getsOn("b", now_));
}

TEST_F(LagBrakeTest, NobodyIsSlowedDownForAnAsyncStandby) {
  counted_ = false;
  pass(10, 50 * kMiB, kMiB);
  EXPECT_FALSE(brake_.status().on);
  EXPECT_TRUE(brake_.getsOn("b", now_));  // but the log is kept for it
}

TEST_F(LagBrakeTest, ASlowMemberStopsNobody) {
  pass(20, 100 * kMiB, 8);
  ASSERT_TRUE(brake_.status().on);
  EXPECT_EQ(brake_.status().bytesPerSecond, LagBrake::kFloorBytesPerSecond);
}

// A standby whose disk takes far less than the clients propose: the primary slows down, says so, and
// the standby never falls out of the log.
TEST(LagBrakeClusterTest, AStandbyWithASlowDiskConverges) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.lagBytesMax = 2 * kMiB;
  options.logRetainBytes = 2 * kMiB;
  SimCluster cluster(601, 3, options);
  cluster.begin(2);
  cluster.put(0, "a", "1");
  kernelio::SimFault fault;
  fault.kind = kernelio::SimFaultKind::kSlow;
  fault.pathPrefix = "journal";
  fault.count = kernelio::SimFault::kForever;
  fault.delay = 100 * kj::MILLISECONDS;
  cluster.node(2).storage().inject(fault);
  SimLoad load(cluster, std::vector<size_t>(24, 0), 0);
  cluster.until([&]() { return cluster.node(0).volume().status().brake.on; }, 120'000,
                "the primary slows down");
  EXPECT_EQ(cluster.node(0).volume().status().brake.member, "c");
  cluster.loop().runFor(10 * kj::SECONDS);
  EXPECT_EQ(cluster.node(2).volume().status().transfer.installed, 0u);
  EXPECT_FALSE(cluster.node(2).volume().status().transfer.running);
  const uint64_t before = load.done;
  cluster.loop().runFor(5 * kj::SECONDS);
  EXPECT_GT(load.done, before);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  cluster.node(2).storage().clearFaults();
  cluster.settle(120'000);
  cluster.verify();
  cluster.until([&]() { return !cluster.node(0).volume().status().brake.on; }, 60'000,
                "the primary goes on at full speed");
}

}  // namespace
}  // namespace packmoor::replicator
