// Goal: of a prune, a ref transaction and a settle that do not know of one another, the later one in the
// log does not count, on every member, after any replay, and for ever (rules 20 and 21). Method: records
// in every order, judged in flight and appended without being judged; pushes of git's own client
// between a front's view and its proposal; random interleavings.
#include "prune_plan.h"

#include "receive_harness.h"
#include "settle.h"
#include "test_import.h"
#include "test_log.h"
#include "whole_repository.h"

#include <gtest/gtest.h>

#include <random>

namespace packmoor::gitlayer::test {
namespace {

using Status = ApplyResult::Status;
using replicator::RecordIndex;

// One repository, "project", with "refs/heads/main" at a blob and an unreachable blob beside it.
class PruneOrderTest : public ::testing::Test {
 public:
  ~PruneOrderTest() noexcept override {}

 protected:
  TestCluster cluster{simGround(), 2};
  RepositoryInfo repository = cluster.create("project");
  const ObjectId lost = blob("lost").id;
  uint64_t nextTxn = 1000;

  void SetUp() override {
    push(std::nullopt, "kept", {"kept"});
    push("kept", "lost", {"lost"});
    push("lost", "kept", {});
  }

  uint64_t last() { return cluster.log.size(); }
  PushTransaction moving(std::optional<std::string> from, const std::string& to,
                         std::vector<std::string> contents, uint64_t verifiedAt) {
    PushTransaction txn;
    txn.txn = txnId(nextTxn++);
    txn.verifiedAt = RecordIndex(verifiedAt);
    RefUpdate update;
    update.name = "refs/heads/main";
    if (from.has_value()) update.oldId = blob(*from).id;
    update.newId = blob(to).id;
    txn.updates.push_back(update);
    for (const auto& content : contents) txn.objects.push_back(blob(content));
    return txn;
  }
  void push(std::optional<std::string> from, const std::string& to,
            std::vector<std::string> contents) {
    const auto outcome = cluster.push(repository, moving(from, to, contents, last()));
    ASSERT_EQ(outcome.refs.at(0).problem, "");
  }
  replicator::Proposal proposalOf(PushTransaction txn) {
    replicator::Proposal proposal;
    proposal.txn = txn.txn;
    proposal.kind = kRefTransaction;
    proposal.payload = encodeRefTransaction(repository.id, txn, 1);
    return proposal;
  }
  replicator::Proposal pruneOf(const std::vector<ObjectId>& objects, uint64_t computedAt) {
    PruneRecord record;
    record.txn = txnId(nextTxn++);
    record.repository = repository.id;
    record.computedAt = computedAt;
    record.objects = objects;
    replicator::Proposal proposal;
    proposal.txn = record.txn;
    proposal.kind = kPrune;
    proposal.payload = encodePrune(record);
    return proposal;
  }
  replicator::Proposal settleOf(uint64_t computedAt) {
    const auto pack = buildSettledPack(*cluster.machine().snapshot(), repository.id, computedAt);
    SettleRecord record;
    record.txn = txnId(nextTxn++);
    record.repository = repository.id;
    record.upto = record.computedAt = computedAt;
    record.packRoot = pack.packRoot;
    record.indexRoot = pack.indexRoot;
    record.objectCount = static_cast<uint32_t>(pack.objects.size());
    record.packBytes = pack.pack.size();
    record.pack = txnId(nextTxn++);
    record.index = txnId(nextTxn++);
    replicator::Proposal proposal;
    proposal.txn = record.txn;
    proposal.kind = kSettle;
    proposal.payload = encodeSettle(record);
    return proposal;
  }
  // As if a primary had ordered it that does not judge: apply alone decides.
  ApplyResult append(const replicator::Proposal& proposal) {
    cluster.log.push_back(replicator::makeRecord(
        RecordIndex(last() + 1), replicator::Epoch(1), cluster.log.back()->hash, proposal.kind, {},
        kj::heapArray<const kj::byte>(proposal.payload.begin(), proposal.payload.size())));
    std::vector<std::string> results;
    for (size_t member = 0; member < 2; ++member) {
      auto applied = cluster.machine(member).apply({cluster.log.back()}).wait(cluster.scope());
      results.emplace_back(textOf(applied.at(0)));
    }
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(cluster.dump(0), cluster.dump(1));
    return decodeResult(bytesOf(results[0]));
  }
  replicator::Verdict judge(const replicator::Proposal& proposal, uint64_t index) {
    return cluster.machine().validate(proposal, RecordIndex(index));
  }
  bool has(const ObjectId& id) { return cluster.view("project")->objects().exists(id); }
  std::string main() {
    return cluster.view("project")->ref("refs/heads/main")->id == lost ? "lost" : "other";
  }
};

TEST_F(PruneOrderTest, ATransactionBehindAPrune) {
  const uint64_t computed = last();
  // This front saw the object, in a view from behind the computation even.
  EXPECT_EQ(append(settleOf(computed)).status, Status::kDone);
  push("kept", "kept", {"lost"});  // hot once more
  const uint64_t seen = last();
  EXPECT_EQ(append(pruneOf({lost}, seen)).status, Status::kDone);
  const uint64_t pruned = last();
  const auto revival = proposalOf(moving("kept", "lost", {}, seen));
  EXPECT_EQ(append(revival).status, Status::kVerifyAgain);
  EXPECT_EQ(append(proposalOf(moving("kept", "lost", {}, 0))).status, Status::kVerifyAgain)
      << "a record that does not say what it rests on";
  EXPECT_EQ(main(), "other");
  // Its result stays what it was, for whoever asks (rule 20), also behind another transaction.
  const auto result = KJ_ASSERT_NONNULL(cluster.machine().findResult(revival.txn));
  EXPECT_EQ(append(proposalOf(moving("kept", "lost", {"lost"}, pruned))).status, Status::kDone);
  EXPECT_EQ(main(), "lost");
  EXPECT_EQ(append(revival).status, Status::kVerifyAgain);
  EXPECT_EQ(KJ_ASSERT_NONNULL(cluster.machine(1).findResult(revival.txn)).index, result.index);
  for (size_t member = 0; member < 2; ++member) {
    const std::string before = cluster.dump(member);
    cluster.restart(member);
    EXPECT_EQ(cluster.dump(member), before);
  }
  EXPECT_TRUE(has(lost));
}

TEST_F(PruneOrderTest, APruneBehindATransaction) {
  const uint64_t computed = last();
  const auto prune = pruneOf({lost}, computed);
  push("kept", "lost", {});
  EXPECT_EQ(append(prune).status, Status::kVoid);
  EXPECT_TRUE(has(lost));
  EXPECT_EQ(main(), "lost");
  // One of another repository does not matter, nor one that changed nothing.
  push("lost", "kept", {});
  const uint64_t again = last();
  const auto other = cluster.create("other");
  EXPECT_EQ(append(proposalOf(moving("none", "lost", {}, again))).status, Status::kRefused);
  EXPECT_EQ(append(prune).status, Status::kVoid) << "its id keeps its result";
  EXPECT_EQ(append(pruneOf({lost}, again)).status, Status::kDone);
  EXPECT_FALSE(has(lost));
  EXPECT_EQ(append(pruneOf({lost}, again)).status, Status::kDone) << "prunes void no prunes";
  EXPECT_EQ(cluster.view("project")->statistics().hotObjects, 1u);
}

TEST_F(PruneOrderTest, APruneBehindASettle) {
  const uint64_t computed = last();
  const auto prune = pruneOf({lost}, computed);
  EXPECT_EQ(append(settleOf(computed)).status, Status::kDone);
  EXPECT_EQ(append(prune).status, Status::kVoid);
  EXPECT_TRUE(has(lost)) << "what it names might have been dropped, while it is in the pack";
}

TEST_F(PruneOrderTest, ASettleBehindAPrune) {
  const uint64_t computed = last();
  const auto settle = settleOf(computed);
  EXPECT_EQ(append(pruneOf({lost}, computed)).status, Status::kDone);
  EXPECT_EQ(append(settle).status, Status::kRefused) << "it would build another pack";
  EXPECT_EQ(cluster.view("project")->statistics().packs, 0u);
  EXPECT_EQ(append(settleOf(last())).status, Status::kDone);
}

TEST_F(PruneOrderTest, JudgedInFlight) {
  const uint64_t computed = last();
  // A transaction in flight.
  EXPECT_TRUE(judge(proposalOf(moving("kept", "lost", {}, computed)), computed + 1).accepted);
  auto refused = judge(pruneOf({lost}, computed), computed + 2);
  EXPECT_FALSE(refused.accepted);
  EXPECT_EQ(decodeResult(refused.result).status, Status::kVoid);
  EXPECT_EQ(refused.restsOn.value, computed + 1);
  // The lead is lost, and that record with it: the prune is good.
  cluster.machine().endSpeculation();
  EXPECT_TRUE(judge(pruneOf({lost}, computed), computed + 1).accepted);
  auto again = judge(proposalOf(moving("kept", "lost", {}, computed)), computed + 2);
  EXPECT_FALSE(again.accepted);
  EXPECT_EQ(decodeResult(again.result).status, Status::kVerifyAgain);
  EXPECT_EQ(again.restsOn.value, computed + 1);
  EXPECT_FALSE(judge(settleOf(computed), computed + 2).accepted);
  cluster.machine().endSpeculation();
  EXPECT_TRUE(judge(settleOf(computed), computed + 1).accepted);
  EXPECT_FALSE(judge(pruneOf({lost}, computed), computed + 2).accepted);
}

// git's client pushes what it believes the repository has, while that is pruned.
class PruneRaceTest : public ::testing::Test {
 public:
  ~PruneRaceTest() noexcept override {}

 protected:
  TestCluster cluster{simGround(), 2};
  RepositoryInfo repository = cluster.create("project");
  packmoor::test::TestGit git;

  // The branch "gone" is one commit ahead of "main", unreachable in the repository.
  void SetUp() override {
    git.commit("a", "main");
    git.run({"checkout", "-q", "-b", "gone"});
    git.commit("b", "gone");
    importHot(cluster, repository, git);
    auto view = cluster.view("project");
    PushTransaction txn;
    txn.verifiedAt = view->index();
    RefUpdate update;
    update.name = "refs/heads/gone";
    update.oldId = view->ref(update.name)->id;
    txn.updates.push_back(update);
    cluster.push(repository, std::move(txn));
  }
  // The report of a push of `revision`, whose session took its view before a prune.
  std::string pushAfterPrune(const std::string& revision, const std::string& pack) {
    ReceiveCounters counters;
    GitRequest request;
    request.repository = "project";
    request.service = GitService::kReceivePack;
    request.principal = "tester";
    auto session = makeReceivePackSession(cluster.node(1), kj::mv(request),
                                          cluster.view("project", 1), counters);
    GitNode::PruneRequest prune;
    prune.name = "project";
    EXPECT_EQ(cluster.node().pruneRepository(prune).wait(cluster.scope()).objects, 3u);
    std::string body;
    appendPkt(body, std::string(kZero) + " " + git.line({"rev-parse", revision}) +
                        " refs/heads/new" + std::string(1, '\0') + "report-status");
    appendFlush(body);
    StringInput in(body + pack);
    StringOutput out;
    session->serve(in, out).wait(cluster.scope());
    EXPECT_EQ(wholeProblem(*cluster.view("project")), "");
    EXPECT_EQ(cluster.dump(0), cluster.dump(1));
    return out.text;
  }
};

TEST_F(PruneRaceTest, APushThatBringsAllItNeedsIsVerifiedAgainAndTaken) {
  const auto report = pushAfterPrune("gone", git.pack({"gone", "^main"}));
  EXPECT_NE(report.find("ok refs/heads/new"), std::string::npos) << report;
  EXPECT_TRUE(cluster.view("project")->ref("refs/heads/new").has_value());
}

TEST_F(PruneRaceTest, APushThatBuildsOnWhatWasPrunedIsRefused) {
  git.commit("c", "on top");
  const auto report = pushAfterPrune("gone", git.pack({"gone", "^gone~1"}));
  EXPECT_NE(report.find("ng refs/heads/new missing necessary objects"), std::string::npos) << report;
  EXPECT_FALSE(cluster.view("project")->ref("refs/heads/new").has_value());
}

TEST_F(PruneRaceTest, ARefToWhatWasPrunedIsRefused) {
  const auto report = pushAfterPrune("gone", git.pack({"gone", "^gone"}));
  EXPECT_NE(report.find("ng refs/heads/new missing necessary objects"), std::string::npos) << report;
}

}  // namespace
}  // namespace packmoor::gitlayer::test
