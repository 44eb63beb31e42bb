// Goal: a node creates, lists, shows and deletes repositories and orders pushes, with a sentence
// for everything that it refuses. Method: members with real state machines on one simple log.
#include "test_cluster.h"
#include "test_log.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;

TEST(GitNodeTest, CreatesListsAndDeletes) {
  TestCluster cluster(simGround(), 2);
  auto& node = cluster.node(1);
  for (const char* name : {"b", "a/x", "c"}) {
    auto made = node.createRepository(name, "", "refs/heads/trunk", "about").wait(cluster.scope());
    EXPECT_EQ(made.problem, RepositoryProblem::kNone) << made.message;
    EXPECT_EQ(made.info.name, name);
    EXPECT_EQ(made.index.value, cluster.log.size());
  }
  EXPECT_EQ(node.repositoryCount(), 3u);
  auto listed = node.listRepositories("", 10).wait(cluster.scope());
  ASSERT_EQ(listed.size(), 3u);
  EXPECT_EQ(listed[0].name, "a/x");
  EXPECT_EQ(listed[0].description, "about");
  EXPECT_EQ(listed[0].head, "refs/heads/trunk");
  EXPECT_EQ(listed[2].name, "c");
  listed = node.listRepositories("a/x", 1).wait(cluster.scope());
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].name, "b");
  auto gone = node.deleteRepository("b", true).wait(cluster.scope());
  EXPECT_EQ(gone.problem, RepositoryProblem::kNone);
  EXPECT_EQ(gone.info.name, "b");
  EXPECT_TRUE(node.view("b", true).wait(cluster.scope()) == nullptr);
  EXPECT_TRUE(node.view("b", false).wait(cluster.scope()) == nullptr);
  EXPECT_EQ(node.repositoryCount(), 2u);
  EXPECT_TRUE(cluster.node(0).view("c", false).wait(cluster.scope()) != nullptr);
}

TEST(GitNodeTest, SaysWhyNot) {
  TestCluster cluster(simGround(), 1);
  auto& node = cluster.node();
  auto make = [&](const std::string& name, const std::string& volume, const std::string& head,
                  const std::string& description = "") {
    return node.createRepository(name, volume, head, description).wait(cluster.scope());
  };
  EXPECT_EQ(make("a", "main", "").problem, RepositoryProblem::kNone);
  auto again = make("a", "", "");
  EXPECT_EQ(again.problem, RepositoryProblem::kExists);
  EXPECT_EQ(again.message, "a repository with the name 'a' exists");
  EXPECT_EQ(make("a/../b", "", "").problem, RepositoryProblem::kBadName);
  EXPECT_EQ(make("b", "", "main").message,
            "HEAD must name a ref such as refs/heads/main, not 'main'");
  EXPECT_EQ(make("b", "", "", std::string(5000, 'x')).problem, RepositoryProblem::kBadName);
  auto nowhere = make("b", "other", "");
  EXPECT_EQ(nowhere.problem, RepositoryProblem::kNoVolume);
  EXPECT_EQ(nowhere.message, "there is no volume 'other'");
  auto absent = node.deleteRepository("b", true).wait(cluster.scope());
  EXPECT_EQ(absent.problem, RepositoryProblem::kNotFound);
  EXPECT_EQ(absent.message, "there is no repository with the name 'b'");
}

TEST(GitNodeTest, PushesOnce) {
  TestCluster cluster(simGround(), 2);
  const auto repository = cluster.create("project");
  auto txn = transaction(0, {update("refs/heads/main", 0, 1)});
  txn.txn = replicator::TxnId();  // the node makes one
  auto first = cluster.push(repository, std::move(txn), 1);
  ASSERT_EQ(first.refs.size(), 1u);
  EXPECT_EQ(first.refs[0].name, "refs/heads/main");
  EXPECT_EQ(first.refs[0].problem, "");
  EXPECT_EQ(first.index.value, cluster.log.size());

  auto second = cluster.push(repository, transaction(5, {update("refs/heads/main", 1, 2)}));
  auto repeated = cluster.push(repository, transaction(5, {update("refs/heads/main", 1, 2)}), 1);
  EXPECT_EQ(repeated.index, second.index);
  EXPECT_EQ(repeated.refs[0].problem, "");

  auto lost = cluster.push(repository, transaction(6, {update("refs/heads/main", 1, 3)}));
  EXPECT_EQ(lost.refs[0].problem, "failed to update ref");
  EXPECT_FALSE(lost.verifyAgain);
  EXPECT_TRUE(cluster.node().volumeOf(repository.id) != nullptr);
  EXPECT_TRUE(cluster.node().volumeOf(repositoryId(1)) == nullptr);
  EXPECT_ANY_THROW(cluster.node().push(repositoryId(1), {}).wait(cluster.scope()));
}

TEST(GitNodeTest, RefusesPushesThatNoRecordCanHold) {
  TestCluster cluster(simGround(), 1);
  const auto repository = cluster.create("project");
  auto txn = transaction(5, {});
  for (size_t i = 0; i < 90'000; ++i) {
    txn.updates.push_back(update("refs/heads/" + std::string(60, 'x') + std::to_string(i), 0, 1));
  }
  auto error = kj::runCatchingExceptions([&]() { cluster.push(repository, std::move(txn)); });
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(error).getDescription().cStr()).find("too large"),
            std::string::npos);
}

}  // namespace
}  // namespace packmoor::gitlayer
