// Goal: packs are merged without being asked, by the primary alone; what fails is tried again, less and
// less often, and told. Method: members in the simulator, whose time and disks the test holds.
#include "settler.h"
#include "test_cluster.h"
#include "test_log.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer::test {
namespace {

class MaintenanceTest : public ::testing::Test {
 public:
  ~MaintenanceTest() noexcept override {}

 protected:
  static GitOptions eager() {
    GitOptions options;
    options.repackPacks = 3;
    return options;
  }
  TestCluster cluster{simGround(), 2, eager()};
  RepositoryInfo repository = cluster.create("project");

  void makePack(const std::string& content) {
    PushTransaction txn;
    txn.verifiedAt = replicator::RecordIndex(cluster.log.size());
    txn.objects.push_back(blob(content));
    cluster.push(repository, std::move(txn));
    ASSERT_TRUE(settleRepository(cluster.ground->env(0), cluster.extents(), cluster.volume(),
                                 cluster.machine(), repository.id)
                    .promise()
                    .wait(cluster.scope()));
  }
  uint64_t packs() { return cluster.view("project")->statistics().packs; }
  void pass(kj::Duration time) {
    cluster.ground->env(0).timer.afterDelay(time).wait(cluster.scope());
  }
};

TEST_F(MaintenanceTest, MergesPacksByItself) {
  auto primary = cluster.node(0).run().eagerlyEvaluate(nullptr);
  auto standby = cluster.node(1).run().eagerlyEvaluate(nullptr);
  makePack("one");
  makePack("two");
  pass(60 * kj::SECONDS);
  EXPECT_EQ(packs(), 2u) << "too few";
  makePack("three");
  pass(60 * kj::SECONDS);
  EXPECT_EQ(packs(), 1u);
  EXPECT_EQ(cluster.node(0).maintenance().repacking.done, 1u);
  EXPECT_EQ(cluster.node(1).maintenance().repacking.done, 0u);
  EXPECT_TRUE(cluster.node(0).maintenance().repacking.repository.isNull());
  EXPECT_EQ(cluster.dump(0), cluster.dump(1));
}

TEST_F(MaintenanceTest, TriesWhatFailsLessAndLessOften) {
  for (const char* content : {"one", "two", "three"}) makePack(content);
  cluster.ground->setCapacity(0, 0);
  auto primary = cluster.node(0).run().eagerlyEvaluate(nullptr);
  pass(10 * kj::SECONDS);
  const auto first = cluster.node(0).maintenance().repacking;
  EXPECT_GE(first.failures, 1u);
  EXPECT_NE(first.lastError.find("disk is full"), std::string::npos) << first.lastError;
  pass(20 * kj::MINUTES);
  const auto later = cluster.node(0).maintenance().repacking;
  EXPECT_GT(later.failures, first.failures);
  EXPECT_LT(later.failures, 15u) << "240 times in five seconds each";
  EXPECT_EQ(packs(), 3u);
  cluster.ground->setCapacity(0, UINT64_MAX);
  pass(11 * kj::MINUTES);
  EXPECT_EQ(packs(), 1u);
  EXPECT_EQ(cluster.node(0).maintenance().repacking.failures, 0u);
  EXPECT_EQ(cluster.node(0).maintenance().repacking.done, 1u);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
