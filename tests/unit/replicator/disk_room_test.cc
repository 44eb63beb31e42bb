// Goal: a primary whose disk is short of room gives the lead to a member that has room, and no push
// fails; a member that is short takes none, and the lead does not go to and fro; when all disks are full,
// pushes are refused with a sentence that says so, and go on when there is room. Method: whole nodes
// under load, on simulated disks that are made small.
#include "sim_load.h"

#include "replicator/outcome.h"

namespace packmoor::replicator {
namespace {

constexpr uint64_t kShort = 100u << 20;    // less than the reserve, and more than a test writes

std::string failureOf(SimCluster& cluster, kj::Promise<void> work) {
  auto outcome = cluster.loop().wait(outcomeOf(kj::mv(work)));
  KJ_IF_MAYBE(exception, outcome) { return exception->getDescription().cStr(); }
  return {};
}

TEST(DiskRoomTest, TheLeadGoesToAMemberThatHasRoomAndStaysThere) {
  for (uint64_t seed = 700; seed < 702; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.begin(2);
    ASSERT_EQ(cluster.primary(), &cluster.node(0));
    SimLoad load(cluster, {0, 1, 2}, 5);
    cluster.loop().runFor(300 * kj::MILLISECONDS);
    EXPECT_FALSE(cluster.node(0).replicator().room().isShort);
    cluster.node(0).storage().setCapacity(kShort);
    cluster.until([&]() {
      return cluster.primary() != nullptr && cluster.primary() != &cluster.node(0);
    }, 1000, "another member leads");
    EXPECT_TRUE(cluster.node(0).replicator().room().isShort);
    // With its disk short as well, there is one left.
    SimNode& second = *cluster.primary();
    second.storage().setCapacity(kShort);
    cluster.until([&]() {
      return cluster.primary() != nullptr && cluster.primary() != &cluster.node(0) &&
             cluster.primary() != &second;
    }, 1000, "the third member leads");
    // And none: what room there is, is used where the lead is.
    SimNode& third = *cluster.primary();
    third.storage().setCapacity(kShort);
    cluster.loop().runFor(500 * kj::MILLISECONDS);
    const Epoch epoch = third.volume().status().epoch;
    const uint64_t before = load.done;
    cluster.loop().runFor(3 * kj::SECONDS);
    EXPECT_EQ(cluster.primary(), &third);
    EXPECT_EQ(third.volume().status().epoch, epoch);
    EXPECT_GT(load.done, before + 100);
    // Room on one of them is enough.
    cluster.node(0).storage().setCapacity(UINT64_MAX);
    cluster.until([&]() { return cluster.primary() == &cluster.node(0); }, 15'000,
                  "the member that has room leads");
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    EXPECT_EQ(load.lost, 0u);
    EXPECT_LT(load.longestMs, 500);
    cluster.settle();
    cluster.verify();
  }
}

TEST(DiskRoomTest, AMemberThatIsShortOfRoomLetsOthersLead) {
  for (uint64_t seed = 710; seed < 715; ++seed) {
    SimCluster cluster(seed, 3);
    cluster.begin(2);
    cluster.node(1).storage().setCapacity(kShort);   // b would try before c
    cluster.until([&]() { return cluster.node(1).replicator().room().isShort; }, 1000, "it is known");
    const std::string refused = failureOf(cluster, cluster.node(0).volume().switchOver("b"));
    EXPECT_NE(refused.find("short of room"), std::string::npos) << refused;
    EXPECT_EQ(cluster.primary(), &cluster.node(0));
    cluster.node(0).losePower();
    cluster.until([&]() { return cluster.primary() != nullptr; }, 2000, "another primary");
    EXPECT_EQ(cluster.primary(), &cluster.node(2));
    cluster.startAll();
    cluster.settle();
    cluster.verify();
  }
}

// Better one that is short than none: it leads while nobody else can.
TEST(DiskRoomTest, AMemberThatIsShortOfRoomLeadsWhereNobodyElseCan) {
  SimCluster cluster(720, 2);
  cluster.begin(1);
  cluster.node(1).storage().setCapacity(kShort);
  cluster.until([&]() { return cluster.node(1).replicator().room().isShort; }, 1000, "it is known");
  cluster.node(0).losePower();
  cluster.startAll();
  cluster.awaitPrimary();
  cluster.put(1, "k", "v");
  EXPECT_EQ(cluster.get(0, "k"), "v");
  cluster.until([&]() { return cluster.primary() == &cluster.node(0); }, 5000, "the one with room leads");
  cluster.settle();
  cluster.verify();
}

TEST(DiskRoomTest, WhenAllDisksAreFullPushesAreRefusedUntilThereIsRoom) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 3000;
  options.logRetainBytes = options.logRepairBytes = 64u << 20;   // no segment can be used again
  SimCluster cluster(730, 3, options);
  cluster.begin(2);
  for (size_t i = 0; i < 3; ++i) cluster.node(i).storage().setCapacity(1);
  std::string failure;
  const std::string large(8000, 'x');
  for (int i = 0; i < 2000 && failure.empty(); ++i) {
    failure = failureOf(cluster, cluster.propose(0, "put k" + std::to_string(i) + " " + large)
                                     .promise().ignoreResult());
  }
  // What was on its way then may or may not be there; what comes later is refused.
  EXPECT_NE(failure, "");
  for (size_t i = 0; i < 3; ++i) {
    failure = failureOf(cluster, cluster.propose(i, "put refused " + std::to_string(i))
                                     .promise().ignoreResult());
    EXPECT_NE(failure.find("was not committed and will not be"), std::string::npos) << failure;
    EXPECT_NE(failure.find("is full, and no member that has room leads the volume"), std::string::npos) << failure;
  }
  for (size_t i = 0; i < 3; ++i) cluster.node(i).storage().setCapacity(UINT64_MAX);
  cluster.put(1, "after", "it");
  EXPECT_EQ(cluster.get(2, "after"), "it");
  EXPECT_EQ(cluster.get(2, "refused"), "-");
  cluster.settle();
  cluster.verify();
}

}  // namespace
}  // namespace packmoor::replicator
