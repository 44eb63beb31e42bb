// Goal: a prune drops what nothing reaches, on every member alike, and never what something that stays
// names; views from before go on. Method: real state machines, histories made by git.
#include "prune_plan.h"

#include "random_history.h"
#include "settler.h"
#include "test_import.h"
#include "test_log.h"
#include "whole_repository.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;

ObjectId idOf(const std::string& hex) {
  ObjectId id;
  KJ_REQUIRE(ObjectId::parseHex(hex, id), hex.c_str());
  return id;
}

TEST(ReachableSetTest, IsWhatIsReached) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomHistory history(seed, {});
    ReachableSet set(history);
    std::vector<ObjectId> starts;
    for (int round = 0; round < 3; ++round) {
      for (const auto& id : history.pick(3)) {
        set.add(id);
        starts.push_back(id);
      }
      while (!set.step(seed % 2 == 0 ? 1 : 1000)) {
      }
      const auto reached = history.reached(starts);
      ASSERT_EQ(set.size(), reached.size());
      for (const auto& id : reached) ASSERT_TRUE(set.contains(id)) << id.hex().cStr();
    }
  }
  RandomHistory history(1, {});
  ReachableSet set(history);
  set.add(oid(77));
  EXPECT_ANY_THROW(set.step(10)) << "what is missing must not pass for unreachable";
}

class PruneTest : public ::testing::TestWithParam<const char*> {
 public:
  ~PruneTest() noexcept override {}

 protected:
  TestCluster cluster{std::string(GetParam()) == "sim" ? simGround() : realGround(), 2};
  RepositoryInfo repository = cluster.create("project");
  packmoor::test::TestGit git;

  GitNode::Pruned prune(bool dryRun = false, int64_t graceMs = 0, size_t member = 0) {
    GitNode::PruneRequest request;
    request.name = "project";
    request.dryRun = dryRun;
    request.graceMs = graceMs;
    return cluster.node(member).pruneRepository(request).wait(cluster.scope());
  }
  bool has(const std::string& revision, size_t member = 0) {
    return cluster.view("project", member)
        ->objects()
        .exists(idOf(git.line({"rev-parse", revision})));
  }
  void deleteRef(const std::string& name) {
    auto view = cluster.view("project");
    PushTransaction txn;
    txn.verifiedAt = view->index();
    RefUpdate update;
    update.name = name;
    update.oldId = view->ref(name)->id;
    txn.updates.push_back(update);
    ASSERT_EQ(cluster.push(repository, std::move(txn)).refs.at(0).problem, "");
  }
  void expectWhole() {
    for (size_t member = 0; member < 2; ++member) {
      EXPECT_EQ(wholeProblem(*cluster.view("project", member)), "") << member;
    }
    EXPECT_EQ(cluster.dump(0), cluster.dump(1));
  }
  // A branch "side" beside "main", which have a first commit in common.
  void makeSide() {
    git.commit("a", "first");
    git.run({"branch", "-q", "start"});
    git.run({"checkout", "-q", "-b", "side"});
    git.commit("b", "on the side");
    git.run({"checkout", "-q", "main"});
  }
};

TEST_P(PruneTest, DropsHotObjectsThatNothingReaches) {
  makeSide();
  git.commit("c", "on main");
  importHot(cluster, repository, git);
  const auto before = cluster.view("project")->statistics();
  EXPECT_EQ(prune().objects, 0u) << "everything is reached";
  deleteRef("refs/heads/side");

  const auto wouldBe = prune(true);
  EXPECT_EQ(wouldBe.objects, 3u) << "a commit, its tree and a file";
  EXPECT_GT(wouldBe.objectBytes, 0u);
  EXPECT_EQ(cluster.view("project")->statistics().hotObjects, before.hotObjects);
  EXPECT_TRUE(has("side"));

  auto old = cluster.view("project");
  const auto pruned = prune(false, 0, 1);  // asked at another member
  EXPECT_EQ(pruned.problem, RepositoryProblem::kNone);
  EXPECT_EQ(pruned.objects, wouldBe.objects);
  EXPECT_EQ(pruned.objectBytes, wouldBe.objectBytes);
  EXPECT_EQ(pruned.packs, 0u);
  EXPECT_EQ(pruned.attempts, 1u);
  EXPECT_EQ(pruned.index.value, cluster.log.size());
  for (size_t member = 0; member < 2; ++member) {
    const auto after = cluster.view("project", member)->statistics();
    EXPECT_EQ(after.hotObjects, before.hotObjects - 3);
    EXPECT_EQ(after.hotBytes, before.hotBytes - pruned.objectBytes);
    EXPECT_FALSE(has("side", member));
    EXPECT_FALSE(has("side:b", member));
    EXPECT_TRUE(has("main", member));
    EXPECT_TRUE(has("start", member));
  }
  expectWhole();
  EXPECT_TRUE(old->objects().read(idOf(git.line({"rev-parse", "side:b"}))) != nullptr)
      << "a view from before has what it had";
  EXPECT_EQ(prune().objects, 0u);
}

TEST_P(PruneTest, DropsPacksInWhichNothingIsReached) {
  makeSide();
  importHot(cluster, repository, git);
  git.run({"checkout", "-q", "--orphan", "big"});
  git.run({"rm", "-q", "-r", "-f", "."});
  git.commit("big", std::string(3000, 'b'));
  importPack(cluster, repository, git, {"big", "^side"});
  git.run({"checkout", "-q", "-f", "main"});
  importHot(cluster, repository, git);  // the ref
  EXPECT_EQ(prune().packs, 0u);
  deleteRef("refs/heads/big");
  auto old = cluster.view("project");
  auto unopened = cluster.view("project", 1);
  std::vector<replicator::ExtentId> dropped;
  for (const auto& extent : cluster.extents(1).list()) dropped.push_back(extent.id);
  const auto pruned = prune();
  EXPECT_EQ(pruned.packs, 1u);
  EXPECT_EQ(pruned.objects, 0u);
  EXPECT_GT(pruned.packBytes, 0u);
  EXPECT_GT(pruned.packedObjects, 1u);
  const auto after = cluster.view("project")->statistics();
  EXPECT_EQ(after.packs, 0u);
  EXPECT_EQ(after.packBytes, 0u);
  EXPECT_EQ(after.packedObjects, 0u);
  expectWhole();
  // The extent is let go once the drop is durable; who has a view can still read it.
  for (size_t member = 0; member < 2; ++member) {
    cluster.machine(member).flush().wait(cluster.scope());
  }
  EXPECT_TRUE(old->objects().read(idOf(git.line({"rev-parse", "big:big"}))) != nullptr);
  old = nullptr;
  if (std::string(GetParam()) == "real") {
    // A view whose pack was not opened before its files went fails as a whole, with a sentence.
    for (const auto& id : dropped) {
      cluster.ground->env(1).disk.remove(cluster.extents(1).path(id)).wait(cluster.scope());
    }
    auto failure = kj::runCatchingExceptions([&]() {
      unopened->objects().read(idOf(git.line({"rev-parse", "big:big"})));
    });
    EXPECT_NE(std::string(KJ_ASSERT_NONNULL(failure).getDescription().cStr()).find("pack "),
              std::string::npos);
  }
  unopened = nullptr;
  // Replayed and restarted, nothing comes back.
  const std::string dump = cluster.dump(0);
  for (size_t member = 0; member < 2; ++member) {
    cluster.restart(member);
    EXPECT_EQ(cluster.dump(member), dump);
    EXPECT_FALSE(has("big:big", member));
  }
  expectWhole();
}

// An unreachable commit stays because its pack does. A later push may build on it, so what it names
// must stay too.
TEST_P(PruneTest, KeepsWhatIsNamedByWhatStays) {
  makeSide();
  importHot(cluster, repository, git);
  git.run({"checkout", "-q", "side"});
  git.commit("b", "again on the side");
  git.run({"checkout", "-q", "main"});
  git.commit("c", "on main");
  importPack(cluster, repository, git, {"main", "side", "^side~1", "^start"});
  importHot(cluster, repository, git);
  deleteRef("refs/heads/side");
  EXPECT_EQ(prune().objects, 0u);
  EXPECT_TRUE(has("side~1:b"));
  expectWhole();
}

TEST_P(PruneTest, KeepsWhatIsYoung) {
  makeSide();
  importHot(cluster, repository, git);
  deleteRef("refs/heads/side");
  constexpr int64_t kHourMs = 3'600'000;
  EXPECT_EQ(prune(true, kHourMs).objects, 0u);
  EXPECT_EQ(prune(true, 0).objects, 3u);
  // The tests' clock stands still but for timers; the newest record is as old as it is.
  cluster.ground->env(0).timer.afterDelay(20 * kj::MILLISECONDS).wait(cluster.scope());
  EXPECT_EQ(prune(false, 1).objects, 3u);
}

// What a prune does that was void because of a push.
TEST_P(PruneTest, GoesOnFromANewerView) {
  makeSide();
  importHot(cluster, repository, git);
  git.run({"checkout", "-q", "--orphan", "big"});
  git.run({"rm", "-q", "-r", "-f", "."});
  git.commit("big", std::string(3000, 'b'));
  importPack(cluster, repository, git, {"big", "^side"});
  deleteRef("refs/heads/side");
  auto view = [&]() { return cluster.view("project"); };
  auto plan = [](PruneJob& job) {
    while (!job.step(1)) {
    }
    return job.take();
  };
  PruneJob job(cluster.machine().snapshot(), view(), std::nullopt);
  const auto first = plan(job);
  EXPECT_EQ(first.objects.size(), 3u);
  EXPECT_EQ(first.packs.size(), 1u);
  // The pack's branch is pushed, and one more commit; "start" goes, which was the parent of all.
  importHot(cluster, repository, git);
  deleteRef("refs/heads/side");
  deleteRef("refs/heads/main");
  deleteRef("refs/heads/start");
  job.renew(cluster.machine().snapshot(), view());
  const auto second = plan(job);
  EXPECT_EQ(second.computedAt, cluster.log.size());
  EXPECT_EQ(second.objects, first.objects) << "what was kept stays for this time";
  EXPECT_TRUE(second.packs.empty());
  PruneJob fresh(cluster.machine().snapshot(), view(), std::nullopt);
  const auto third = plan(fresh);
  EXPECT_GT(third.objects.size(), second.objects.size());
  EXPECT_TRUE(third.packs.empty());
}

TEST_P(PruneTest, WhatIsSettledCanBePruned) {
  makeSide();
  importHot(cluster, repository, git);
  settleRepository(cluster.ground->env(0), cluster.extents(), cluster.volume(), cluster.machine(),
                   repository.id).promise().wait(cluster.scope());
  deleteRef("refs/heads/side");
  EXPECT_EQ(prune().packs, 0u) << "the pack has reachable objects, too";
  for (const char* ref : {"refs/heads/main", "refs/heads/start"}) deleteRef(ref);
  EXPECT_EQ(prune().packs, 1u);
  EXPECT_TRUE(objectsOf(*cluster.view("project")).empty());
  // The client's next push brings everything again.
  importHot(cluster, repository, git);
  expectWhole();
  EXPECT_TRUE(has("side"));
}

TEST_P(PruneTest, SaysWhatIsNotPossible) {
  GitNode::PruneRequest request;
  request.name = "none";
  const auto missing = cluster.node().pruneRepository(request).wait(cluster.scope());
  EXPECT_EQ(missing.problem, RepositoryProblem::kNotFound);
  // An object that is missing is damage: nothing may be dropped then.
  PushTransaction txn;
  txn.updates.push_back(update("refs/heads/broken", 0, 1));
  txn.objects.push_back(blob("unreachable"));
  cluster.push(repository, std::move(txn));
  request.name = "project";
  EXPECT_ANY_THROW(cluster.node().pruneRepository(request).wait(cluster.scope()));
  EXPECT_EQ(cluster.view("project")->statistics().hotObjects, 1u);
}

INSTANTIATE_TEST_SUITE_P(Grounds, PruneTest, ::testing::Values("sim", "real"));

}  // namespace
}  // namespace packmoor::gitlayer
