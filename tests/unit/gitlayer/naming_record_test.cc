// Goal: a repository keeps all that is in it under another name, and for a while after it was deleted; its
// name is free at once; what is in flight has the outcome that it was judged to have.
// Method: a log in memory, and members of a cluster with a clock that tests move.
#include "state_machine_fixture.h"
#include "test_cluster.h"

namespace packmoor::gitlayer {
namespace {

using namespace test;
using Status = ApplyResult::Status;

replicator::Proposal namingProposal(replicator::RecordKind kind, uint64_t txn, uint64_t repository,
                                    const std::string& name, const std::string& to = {}) {
  RepositoryNamingRecord record;
  record.txn = txnId(txn);
  record.repository = repositoryId(repository);
  record.name = name;
  record.to = to;
  record.timeMs = 1000;
  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kind;
  proposal.payload = encodeRepositoryNaming(record);
  return proposal;
}

class NamingTest : public StateMachineTest {
 protected:
  ~NamingTest() noexcept {}
  void SetUp() override {
    StateMachineTest::SetUp();
    submit(createProposal(1, 1, "project"));
    auto txn = transaction(2, {update("refs/heads/main", 0, 1)});
    txn.objects.push_back(blob("hello\n"));
    push(std::move(txn));
  }
  // Of a new branch, checked against the state at that record.
  static replicator::Proposal pushAt(uint64_t verifiedAt, uint64_t txn) {
    auto pushed = transaction(txn, {update("refs/heads/" + std::to_string(txn), 0, 1)});
    pushed.verifiedAt = replicator::RecordIndex(verifiedAt);
    return pushProposal(1, std::move(pushed));
  }
  Status rename(uint64_t txn, const std::string& name, const std::string& to) {
    return submit(namingProposal(kRepositoryRename, txn, 1, name, to)).status;
  }
  Status discard(uint64_t txn, const std::string& name) {
    return submit(namingProposal(kRepositoryDiscard, txn, 1, name)).status;
  }
  Status restore(uint64_t txn, const std::string& name, const std::string& to) {
    return submit(namingProposal(kRepositoryRestore, txn, 1, name, to)).status;
  }
};

TEST_F(NamingTest, Renames) {
  submit(createProposal(3, 2, "other"));
  EXPECT_EQ(rename(4, "project", "other"), Status::kExists);
  EXPECT_EQ(rename(5, "none", "new"), Status::kNotFound);
  EXPECT_EQ(rename(6, "project", "a..b.git"), Status::kRefused);
  EXPECT_EQ(rename(7, "project", "team/new"), Status::kDone);
  EXPECT_TRUE(machine->view("project") == nullptr);
  EXPECT_EQ(view("team/new")->info().name, "team/new");
  EXPECT_EQ(view("team/new")->objects().hotObjects().size(), 1u);
  EXPECT_EQ(submit(createProposal(8, 3, "project")).status, Status::kDone) << "the name is free";
  const std::string before = dump();
  crash();
  EXPECT_EQ(dump(), before);
  EXPECT_EQ(machine->repositoryCount(), 3u);
}

TEST_F(NamingTest, KeepsWhatIsDiscarded) {
  EXPECT_EQ(discard(3, "project"), Status::kDone);
  EXPECT_TRUE(machine->view("project") == nullptr);
  EXPECT_EQ(machine->repositoryCount(), 1u);
  EXPECT_EQ(push(transaction(4, {update("refs/heads/x", 0, 1)})).status, Status::kNotFound);
  EXPECT_EQ(discard(5, "project"), Status::kNotFound);
  EXPECT_EQ(rename(6, "project", "new"), Status::kNotFound);
  EXPECT_TRUE(machine->discardedUntil(999).empty());
  ASSERT_EQ(machine->discardedUntil(1000), std::vector<RepositoryId>{repositoryId(1)});
  const auto kept = findRepository(*machine->snapshot(), repositoryId(1));
  EXPECT_EQ(kept->info.name, "project");
  EXPECT_EQ(kept->info.discardedAtMs, 1000);
  crash();
  EXPECT_EQ(machine->discardedUntil(1000).size(), 1u);
  // Its name is another's meanwhile.
  EXPECT_EQ(submit(createProposal(7, 2, "project")).status, Status::kDone);
  EXPECT_EQ(restore(8, "project", "project"), Status::kExists);
  EXPECT_EQ(restore(9, "project", "back"), Status::kDone);
  EXPECT_EQ(view("back")->ref("refs/heads/main")->id, oid(1));
  EXPECT_EQ(view("back")->objects().hotObjects().size(), 1u);
  EXPECT_EQ(view("back")->info().discardedAtIndex, 0u);
  EXPECT_EQ(restore(10, "back", "again"), Status::kNotFound);
  EXPECT_TRUE(machine->discardedUntil(1000).empty());
  EXPECT_EQ(submit(pushAt(log->last(), 11)).status, Status::kDone);
}

// The name may be another's by then.
TEST_F(NamingTest, PushesThatWereJudgedUnderAnotherNameAreJudgedAgain) {
  EXPECT_TRUE(log->order(namingProposal(kRepositoryRename, 3, 1, "project", "new")).accepted);
  const auto inFlight = log->order(pushAt(2, 4));
  EXPECT_FALSE(inFlight.accepted);
  EXPECT_EQ(decodeResult(inFlight.result).status, Status::kVerifyAgain);
  log->applyAll(loop.waitScope());
  EXPECT_EQ(submit(pushAt(2, 5)).status, Status::kVerifyAgain);
  EXPECT_EQ(submit(pushAt(3, 6)).status, Status::kDone);
}

TEST_F(NamingTest, RemembersWhoHadAName) {
  auto former = [&](const char* name) {
    const auto row = findFormer(*machine->snapshot(), name);
    return row.has_value() ? row->info.name : std::string();
  };
  rename(3, "project", "b");
  rename(4, "b", "c");
  EXPECT_EQ(former("project"), "c");
  EXPECT_EQ(former("b"), "c");
  EXPECT_EQ(former("c"), "");
  submit(createProposal(5, 2, "b"));
  EXPECT_EQ(former("b"), "") << "it is another's";
  rename(6, "c", "project");
  EXPECT_EQ(former("project"), "");
  EXPECT_EQ(former("c"), "project");
  for (uint64_t i = 0; i < kFormerNamesMax; ++i) {
    rename(10 + i, i == 0 ? "project" : "n" + std::to_string(i - 1), "n" + std::to_string(i));
  }
  EXPECT_EQ(former("c"), "") << "only so many are remembered";
  EXPECT_EQ(former("project"), "n" + std::to_string(kFormerNamesMax - 1));
  discard(100, "n" + std::to_string(kFormerNamesMax - 1));
  EXPECT_EQ(former("n0"), "n" + std::to_string(kFormerNamesMax - 1));
  submit(deleteProposal(101, 1, "n" + std::to_string(kFormerNamesMax - 1)));
  size_t left = 0;
  machine->snapshot()->scan("o", {}, [&](std::string_view, std::string_view) { return ++left > 0; });
  EXPECT_EQ(left, 0u) << "nothing is left of a repository that is gone for good";
}

TEST_F(NamingTest, ForGoodLeavesTheNameToItsNewHolder) {
  discard(3, "project");
  submit(createProposal(4, 2, "project"));
  EXPECT_EQ(submit(deleteProposal(5, 1, "project")).status, Status::kDone);
  EXPECT_EQ(machine->repositoryCount(), 1u);
  EXPECT_EQ(view("project")->info().id, repositoryId(2));
  EXPECT_EQ(restore(6, "project", "back"), Status::kNotFound);
  EXPECT_EQ(submit(deleteProposal(7, 2, "project")).status, Status::kDone);
  EXPECT_TRUE(machine->view("project") == nullptr);
}

// The end of one that was kept for long enough, ordered while it is restored.
TEST_F(NamingTest, WhatIsRestoredStays) {
  discard(3, "project");  // record 3
  RepositoryDeleteRecord end;
  end.txn = txnId(4);
  end.repository = repositoryId(1);
  end.name = "project";
  end.discardedAtIndex = 3;
  auto proposal = deleteProposal(4, 1, "project");
  proposal.payload = encodeRepositoryDelete(end);
  EXPECT_TRUE(log->order(namingProposal(kRepositoryRestore, 5, 1, "project", "project")).accepted);
  EXPECT_FALSE(log->order(proposal).accepted);
  log->applyAll(loop.waitScope());
  EXPECT_EQ(submit(proposal).status, Status::kNotFound);
  EXPECT_EQ(discard(6, "project"), Status::kDone);
  proposal.txn = end.txn = txnId(7);
  proposal.payload = encodeRepositoryDelete(end);
  EXPECT_EQ(submit(proposal).status, Status::kNotFound) << "it was deleted anew, and is kept anew";
  EXPECT_EQ(restore(8, "project", "project"), Status::kDone);
}

TEST_F(NamingTest, JudgesBehindWhatIsInFlight) {
  auto accepted = [&](const replicator::Proposal& proposal) { return log->order(proposal).accepted; };
  auto push = [&](uint64_t txn) { return pushAt(log->last(), txn); };
  EXPECT_TRUE(accepted(namingProposal(kRepositoryRename, 3, 1, "project", "new")));
  EXPECT_FALSE(accepted(namingProposal(kRepositoryRename, 4, 1, "project", "newer")));
  EXPECT_FALSE(accepted(createProposal(5, 2, "new")));
  EXPECT_TRUE(accepted(createProposal(6, 2, "project")));
  EXPECT_TRUE(accepted(push(7)));
  EXPECT_TRUE(accepted(namingProposal(kRepositoryDiscard, 8, 1, "new")));
  EXPECT_FALSE(accepted(push(9)));
  EXPECT_FALSE(accepted(namingProposal(kRepositoryRestore, 10, 1, "new", "project")));
  EXPECT_TRUE(accepted(namingProposal(kRepositoryRestore, 11, 1, "new", "new")));
  EXPECT_TRUE(accepted(push(12)));
  EXPECT_TRUE(accepted(namingProposal(kRepositoryDiscard, 13, 1, "new")));
  EXPECT_TRUE(accepted(deleteProposal(14, 1, "new")));
  EXPECT_FALSE(accepted(namingProposal(kRepositoryRestore, 15, 1, "new", "new")));
  for (const auto& [index, result] : log->applyAll(loop.waitScope())) {
    EXPECT_EQ(decodeResult(result).status, Status::kDone) << index;
  }
  EXPECT_EQ(machine->repositoryCount(), 1u);
  EXPECT_EQ(view("project")->info().id, repositoryId(2));
}

TEST(NamingNode, RenamesDeletesAndRestores) {
  TestCluster cluster(simGround(), 2);
  auto& node = cluster.node(1);
  auto& scope = cluster.scope();
  const auto first = cluster.create("a");
  EXPECT_EQ(node.renameRepository("a", "b").wait(scope).info.name, "b");
  EXPECT_EQ(node.renameRepository("a", "c").wait(scope).message,
            "there is no repository with the name 'a' any more: it is called 'b' now");
  EXPECT_EQ(node.renameRepository("none", "c").wait(scope).message,
            "there is no repository with the name 'none'");
  EXPECT_EQ(node.renameRepository("b", "b").wait(scope).problem, RepositoryProblem::kExists);
  EXPECT_EQ(node.renameRepository("b", "x..y").wait(scope).problem, RepositoryProblem::kNone);
  EXPECT_EQ(node.renameRepository("x..y", ".b").wait(scope).problem, RepositoryProblem::kBadName);
  node.renameRepository("x..y", "b").wait(scope);

  EXPECT_EQ(node.deleteRepository("b", false).wait(scope).problem, RepositoryProblem::kNone);
  const auto again = node.deleteRepository("b", false).wait(scope);
  EXPECT_EQ(again.problem, RepositoryProblem::kNotFound);
  EXPECT_NE(again.message.find("packmoorctl repo undelete b"), std::string::npos) << again.message;
  const auto second = cluster.create("b");
  EXPECT_EQ(node.deleteRepository("b", false).wait(scope).problem, RepositoryProblem::kNone);
  EXPECT_EQ(node.listRepositories("", 10).wait(scope).size(), 0u);
  ASSERT_EQ(node.listDiscarded(10).wait(scope).size(), 2u);
  EXPECT_EQ(node.listDiscarded(1).wait(scope).size(), 1u);
  // The newest of a name comes back first.
  EXPECT_EQ(node.restoreRepository("b", "").wait(scope).info.id, second.id);
  EXPECT_EQ(node.restoreRepository("b", "").wait(scope).problem, RepositoryProblem::kExists);
  EXPECT_EQ(node.restoreRepository("b", "old").wait(scope).info.id, first.id);
  EXPECT_EQ(node.restoreRepository("b", "older").wait(scope).message,
            "there is no deleted repository with the name 'b'");
  // For good, also what is kept.
  node.deleteRepository("b", false).wait(scope);
  EXPECT_EQ(node.deleteRepository("b", true).wait(scope).info.id, second.id);
  EXPECT_EQ(node.deleteRepository("old", true).wait(scope).problem, RepositoryProblem::kNone);
  EXPECT_EQ(node.listDiscarded(10).wait(scope).size(), 0u);
  EXPECT_EQ(node.repositoryCount(), 0u);
  EXPECT_EQ(cluster.dump(0), cluster.dump(1));
}

TEST(NamingNode, DropsWhatWasKeptForLongEnough) {
  GitOptions options;
  options.discardedKeepMs = 60'000;
  TestCluster cluster(simGround(), 2, options);
  auto pass = [&](kj::Duration time) {
    cluster.ground->env(0).timer.afterDelay(time).wait(cluster.scope());
  };
  auto left = [&]() {
    std::vector<std::string> names;
    for (const auto& info : cluster.node(1).listDiscarded(10).wait(cluster.scope())) {
      names.push_back(info.name);
    }
    return names;
  };
  auto primary = cluster.node(0).run().eagerlyEvaluate(nullptr);
  auto standby = cluster.node(1).run().eagerlyEvaluate(nullptr);
  cluster.create("a");
  cluster.create("b");
  cluster.node().deleteRepository("a", false).wait(cluster.scope());
  pass(40 * kj::SECONDS);
  cluster.node().deleteRepository("b", false).wait(cluster.scope());
  EXPECT_EQ(left(), (std::vector<std::string>{"a", "b"}));
  pass(40 * kj::SECONDS);
  EXPECT_EQ(left(), std::vector<std::string>{"b"});
  EXPECT_EQ(cluster.node(0).maintenance().dropping.done, 1u);
  EXPECT_EQ(cluster.node(1).maintenance().dropping.done, 0u) << "that is the primary's";
  EXPECT_FALSE(cluster.node().formerText("a").has_value());
  EXPECT_EQ(cluster.dump(0), cluster.dump(1));
}

}  // namespace
}  // namespace packmoor::gitlayer
