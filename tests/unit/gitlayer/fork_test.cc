// Goal: a fork is what its parent was, and from then on nothing that happens to one of the two concerns the
// other; a pack that they share stays for as long as one of them names it.
// Method: a log in memory with packs that are names only; members with real packs, settled, pruned and merged.
#include "repacker.h"
#include "settler.h"
#include "state_machine_fixture.h"
#include "test_import.h"
#include "whole_repository.h"

#include <support/git_process.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;
using Status = ApplyResult::Status;
using replicator::RecordIndex;

replicator::Proposal forkProposal(uint64_t txn, uint64_t parent, uint64_t repository,
                                  const std::string& name, bool defaultBranchOnly = false) {
  RepositoryForkRecord record;
  record.txn = txnId(txn);
  record.repository = repositoryId(repository);
  record.name = name;
  record.parent = repositoryId(parent);
  record.parentName = "parent";
  record.defaultBranchOnly = defaultBranchOnly;
  record.timeMs = 7000;
  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kRepositoryFork;
  proposal.payload = encodeRepositoryFork(record);
  return proposal;
}

// "project" (1) with a hot object, a pack (70, 71) and two branches.
class ForkRecordTest : public StateMachineTest {
 protected:
  ~ForkRecordTest() noexcept {}
  void SetUp() override {
    StateMachineTest::SetUp();
    submit(createProposal(1, 1, "project"));
    auto small = transaction(2, {update("refs/heads/main", 0, 1), update("refs/heads/side", 0, 2)});
    small.objects.push_back(blob("small\n"));
    push(std::move(small));
    auto large = transaction(3, {update("refs/tags/v1", 0, 3)});
    large.pack = PackExtents{txnId(70), txnId(71), 1000, 3};
    push(std::move(large));
  }
  Status fork(uint64_t txn, uint64_t repository, const std::string& name, bool oneBranch = false) {
    return submit(forkProposal(txn, 1, repository, name, oneBranch)).status;
  }
  Status drop(uint64_t txn, uint64_t repository, std::vector<replicator::ExtentId> packs) {
    PruneRecord record;
    record.txn = txnId(txn);
    record.repository = repositoryId(repository);
    record.computedAt = log->last();
    record.packs = std::move(packs);
    replicator::Proposal proposal;
    proposal.txn = record.txn;
    proposal.kind = kPrune;
    proposal.payload = encodePrune(record);
    return submit(proposal).status;
  }
  void flush() { machine->flush().wait(loop.waitScope()); }
  bool linked() { return extents.linked.count(txnId(70)) > 0 && extents.linked.count(txnId(71)) > 0; }
  bool isHot(const std::string& name, const std::string& content) {
    const auto ids = view(name)->objects().hotObjects();
    return std::count(ids.begin(), ids.end(), blob(content).id) > 0;
  }
  std::vector<std::string> refsOf(const std::string& name) {
    std::vector<std::string> names;
    view(name)->forEachRef("", "", [&](const Ref& ref) {
      names.push_back(ref.name);
      return true;
    });
    return names;
  }
};

TEST_F(ForkRecordTest, HasWhatItsParentHas) {
  ASSERT_EQ(fork(4, 2, "team/fork"), Status::kDone);
  auto parent = view("project"), made = view("team/fork");
  EXPECT_EQ(refsOf("team/fork"), refsOf("project"));
  EXPECT_EQ(made->ref("refs/tags/v1")->id, oid(3));
  EXPECT_EQ(made->objects().hotObjects(), parent->objects().hotObjects());
  EXPECT_TRUE(made->objects().read(blob("small\n").id) != nullptr);
  EXPECT_EQ(made->info().forkedFrom, repositoryId(1));
  EXPECT_EQ(made->info().forkedFromName, "project");
  EXPECT_EQ(made->info().createdAtIndex, 4u);
  EXPECT_EQ(made->info().createdAtMs, 7000);
  EXPECT_TRUE(made->info().appendOnly);
  EXPECT_TRUE(parent->info().forkedFrom.isNull());
  const auto one = parent->statistics(), other = made->statistics();
  EXPECT_EQ(other.refs, 3u);
  EXPECT_EQ(std::tie(one.refs, one.hotObjects, one.hotBytes, one.packs, one.packBytes, one.packedObjects),
            std::tie(other.refs, other.hotObjects, other.hotBytes, other.packs, other.packBytes,
                     other.packedObjects));
  EXPECT_EQ(machine->repositoryCount(), 2u);
  const std::string before = dump();
  crash();
  EXPECT_EQ(dump(), before);
  EXPECT_EQ(machine->repositoryCount(), 2u);
}

TEST_F(ForkRecordTest, OfOneBranchIsNotClonedAsItLies) {
  ASSERT_EQ(fork(4, 2, "fork", true), Status::kDone);
  EXPECT_EQ(refsOf("fork"), std::vector<std::string>{"refs/heads/main"});
  EXPECT_EQ(view("fork")->statistics().refs, 1u);
  EXPECT_FALSE(view("fork")->info().appendOnly) << "the packs hold more than its ref reaches";
  submit(createProposal(5, 3, "unborn"));
  ASSERT_EQ(submit(forkProposal(6, 3, 4, "unborn", true)).status, Status::kExists);
  ASSERT_EQ(submit(forkProposal(7, 3, 4, "empty", true)).status, Status::kDone);
  EXPECT_TRUE(view("empty")->info().appendOnly);
}

TEST_F(ForkRecordTest, TakesItsParentsSettingsAndNothingLater) {
  RepositorySetRecord set;
  set.txn = txnId(4);
  set.repository = repositoryId(1);
  set.changes = {{"receive.denydeletes", {"true"}}, {kHeadSetting, {"refs/heads/side"}}};
  replicator::Proposal proposal;
  proposal.txn = set.txn;
  proposal.kind = kRepositorySet;
  proposal.payload = encodeRepositorySet(set);
  ASSERT_EQ(submit(proposal).status, Status::kDone);
  ASSERT_EQ(fork(5, 2, "fork", true), Status::kDone);
  EXPECT_EQ(view("fork")->info().head, "refs/heads/side");
  EXPECT_EQ(refsOf("fork"), std::vector<std::string>{"refs/heads/side"});
  EXPECT_EQ(view("fork")->info().settings.stored.size(), 1u);
  // From here on each is its own: objects, refs, settings.
  auto later = transaction(6, {update("refs/heads/later", 0, 4)});
  later.verifiedAt = RecordIndex(log->last());
  later.objects.push_back(blob("later\n"));
  ASSERT_EQ(push(std::move(later)).status, Status::kDone);
  EXPECT_FALSE(isHot("fork", "later\n"));
  EXPECT_TRUE(isHot("project", "later\n"));
  EXPECT_EQ(refsOf("fork").size(), 1u);
  auto own = transaction(7, {update("refs/heads/own", 0, 5)});
  own.objects.push_back(blob("own\n"));
  ASSERT_EQ(submit(pushProposal(2, std::move(own))).status, Status::kDone);
  EXPECT_TRUE(isHot("fork", "own\n"));
  EXPECT_FALSE(isHot("project", "own\n"));
}

TEST_F(ForkRecordTest, APackStaysForWhoNamesItLast) {
  for (const bool parentFirst : {true, false}) {
    SCOPED_TRACE(parentFirst);
    const uint64_t number = parentFirst ? 10 : 20, forked = number + 1;
    if (!parentFirst) {
      auto again = transaction(number + 5, {update("refs/tags/v2", 0, 3)});
      again.verifiedAt = RecordIndex(log->last());
      again.pack = PackExtents{txnId(70), txnId(71), 1000, 3};
      ASSERT_EQ(push(std::move(again)).status, Status::kDone);
    }
    ASSERT_EQ(fork(number, forked, "fork" + std::to_string(number)), Status::kDone);
    const uint64_t first = parentFirst ? 1 : forked, second = parentFirst ? forked : 1;
    ASSERT_EQ(drop(number + 1, first, {txnId(70)}), Status::kDone);
    flush();
    EXPECT_TRUE(linked()) << "the other one needs it";
    crash();  // who uses it is counted anew
    flush();
    EXPECT_TRUE(linked());
    ASSERT_EQ(drop(number + 2, second, {txnId(70)}), Status::kDone);
    EXPECT_TRUE(linked()) << "the state that drops it is not durable";
    flush();
    EXPECT_FALSE(linked());
    EXPECT_TRUE(extents.linked.empty());
  }
}

TEST_F(ForkRecordTest, OutlivesItsParentAndForksOfForksThemselves) {
  ASSERT_EQ(fork(4, 2, "child"), Status::kDone);
  ASSERT_EQ(submit(forkProposal(5, 2, 3, "grandchild")).status, Status::kDone);
  EXPECT_EQ(view("grandchild")->info().forkedFromName, "child");
  ASSERT_EQ(submit(deleteProposal(6, 1, "project")).status, Status::kDone);
  ASSERT_EQ(submit(deleteProposal(7, 2, "child")).status, Status::kDone);
  flush();
  EXPECT_TRUE(linked());
  EXPECT_EQ(refsOf("grandchild").size(), 3u);
  EXPECT_TRUE(view("grandchild")->objects().read(blob("small\n").id) != nullptr);
  const auto content = machine->makeCheckpoint("taken").wait(loop.waitScope());
  EXPECT_EQ(content.extents.size(), 2u);
  crash();
  EXPECT_TRUE(linked());
  ASSERT_EQ(submit(deleteProposal(8, 3, "grandchild")).status, Status::kDone);
  flush();
  EXPECT_TRUE(extents.linked.empty());
}

TEST_F(ForkRecordTest, ACheckpointNamesASharedPackOnce) {
  ASSERT_EQ(fork(4, 2, "fork"), Status::kDone);
  const auto content = machine->makeCheckpoint("taken").wait(loop.waitScope());
  EXPECT_EQ(content.extents, (std::vector<replicator::ExtentId>{txnId(70), txnId(71)}));
  // What it replaces had the pack in another repository too.
  const auto position = machine->applied();
  ASSERT_EQ(submit(deleteProposal(5, 1, "project")).status, Status::kDone);
  machine->stageCheckpoint("taken", position).wait(loop.waitScope());
  machine->switchToStaged(position).wait(loop.waitScope());
  EXPECT_TRUE(linked());
  EXPECT_EQ(machine->repositoryCount(), 2u);
}

TEST_F(ForkRecordTest, IsRefused) {
  EXPECT_EQ(fork(4, 2, "project"), Status::kExists);
  EXPECT_EQ(fork(5, 1, "new"), Status::kExists);
  EXPECT_EQ(fork(6, 2, "a..b.git"), Status::kRefused);
  EXPECT_EQ(submit(forkProposal(7, 9, 2, "new")).status, Status::kNotFound);
  RepositoryNamingRecord discard;
  discard.txn = txnId(8);
  discard.repository = repositoryId(1);
  discard.name = "project";
  replicator::Proposal proposal;
  proposal.txn = discard.txn;
  proposal.kind = kRepositoryDiscard;
  proposal.payload = encodeRepositoryNaming(discard);
  EXPECT_EQ(submit(proposal).status, Status::kDone);
  EXPECT_EQ(fork(9, 2, "new"), Status::kNotFound) << "it is deleted, and only kept";
  // Appended without being judged, as a newer primary's records are met: nothing comes of it.
  log->append(kRepositoryFork, forkProposal(10, 1, 2, "new").payload);
  log->applyAll(loop.waitScope());
  EXPECT_EQ(machine->repositoryCount(), 1u);
}

TEST_F(ForkRecordTest, JudgesBehindWhatIsInFlight) {
  auto verdict = [&](const replicator::Proposal& proposal) { return log->order(proposal); };
  EXPECT_TRUE(verdict(forkProposal(4, 1, 2, "fork")).accepted);
  EXPECT_FALSE(verdict(createProposal(5, 3, "fork")).accepted);
  EXPECT_FALSE(verdict(forkProposal(6, 2, 3, "grandchild")).accepted) << "what it has is not known";
  // A front that applies faster than the primary may know it already.
  const auto early = verdict(pushProposal(2, transaction(7, {update("refs/heads/main", 1, 5)})));
  EXPECT_FALSE(early.accepted);
  EXPECT_EQ(decodeResult(early.result).status, Status::kVerifyAgain);
  EXPECT_TRUE(verdict(pushProposal(1, transaction(8, {update("refs/heads/main", 1, 6)}))).accepted);
  EXPECT_TRUE(verdict(forkProposal(9, 1, 3, "later")).accepted);
  EXPECT_TRUE(verdict(deleteProposal(10, 1, "project")).accepted);
  EXPECT_FALSE(verdict(forkProposal(11, 1, 4, "late")).accepted);
  for (const auto& [index, result] : log->applyAll(loop.waitScope())) {
    EXPECT_EQ(decodeResult(result).status, Status::kDone) << index;
  }
  EXPECT_EQ(view("fork")->ref("refs/heads/main")->id, oid(1));
  EXPECT_EQ(view("later")->ref("refs/heads/main")->id, oid(6)) << "each as of its record";
  EXPECT_EQ(submit(pushProposal(2, transaction(12, {update("refs/heads/main", 1, 5)}))).status,
            Status::kDone);
  EXPECT_EQ(machine->repositoryCount(), 2u);
}

// Histories made by git, in real packs.
class ForkTest : public ::testing::TestWithParam<const char*> {
 public:
  ~ForkTest() noexcept override {}

 protected:
  static GitOptions eager() {
    GitOptions options;
    options.repackPacks = 2;
    return options;
  }
  TestCluster cluster{std::string(GetParam()) == "sim" ? simGround() : realGround(), 2, eager()};
  RepositoryInfo parent = cluster.create("parent");
  packmoor::test::TestGit git;

  RepositoryInfo fork(const std::string& from, const std::string& name, bool oneBranch = false) {
    auto made = cluster.node(1).forkRepository(from, name, oneBranch).wait(cluster.scope());
    EXPECT_EQ(made.problem, RepositoryProblem::kNone) << made.message;
    return made.info;
  }
  void settle(const RepositoryInfo& repository) {
    settleRepository(cluster.ground->env(0), cluster.extents(), cluster.volume(), cluster.machine(),
                     repository.id)
        .promise()
        .wait(cluster.scope());
  }
  GitNode::Pruned prune(const std::string& name) {
    GitNode::PruneRequest request;
    request.name = name;
    return cluster.node().pruneRepository(request).wait(cluster.scope());
  }
  void deleteRefs(const RepositoryInfo& repository) {
    auto view = cluster.view(repository.name);
    PushTransaction txn;
    txn.verifiedAt = view->index();
    view->forEachRef("", "", [&](const Ref& ref) {
      RefUpdate update;
      update.name = ref.name;
      update.oldId = ref.id;
      txn.updates.push_back(update);
      return true;
    });
    for (const auto& ref : cluster.push(repository, std::move(txn)).refs) ASSERT_EQ(ref.problem, "");
  }
  void flush() {
    for (size_t member = 0; member < 2; ++member) cluster.machine(member).flush().wait(cluster.scope());
  }
  // Two packs and hot objects on top.
  void fill() {
    git.commit("a", "first");
    importHot(cluster, parent, git);
    settle(parent);
    git.commit("b", std::string(3000, 'b'));
    importHot(cluster, parent, git);
    settle(parent);
    git.commit("c", "hot");
    importHot(cluster, parent, git);
  }
  void expectWhole(const std::vector<std::string>& names) {
    for (size_t member = 0; member < 2; ++member) {
      for (const auto& name : names) {
        EXPECT_EQ(wholeProblem(*cluster.view(name, member)), "") << name << " " << member;
      }
    }
    EXPECT_EQ(cluster.dump(0), cluster.dump(1));
    const auto digests = cluster.node().verifyVolume("main").wait(cluster.scope());
    ASSERT_EQ(digests.size(), 2u);
    EXPECT_EQ(digests[0].problem, "");
    EXPECT_EQ(digests[0].objects, digests[1].objects);
    EXPECT_EQ(digests[0].repositories, digests[1].repositories);
  }
};

TEST_P(ForkTest, LosesNothingToItsParentsPrune) {
  fill();
  const auto made = fork("parent", "fork");
  const auto objects = objectsOf(*cluster.view("fork"));
  EXPECT_EQ(objects, objectsOf(*cluster.view("parent")));
  deleteRefs(parent);
  const auto pruned = prune("parent");
  EXPECT_EQ(pruned.packs, 2u);
  EXPECT_GT(pruned.objects, 0u);
  flush();
  EXPECT_EQ(objectsOf(*cluster.view("parent")).size(), 0u);
  EXPECT_EQ(objectsOf(*cluster.view("fork")), objects);
  expectWhole({"parent", "fork"});
  cluster.restart(0);
  cluster.restart(1);
  EXPECT_EQ(objectsOf(*cluster.view("fork")), objects);
  // It settles and merges what it has for itself.
  settle(made);
  ASSERT_TRUE(repackRepository(cluster.node(), cluster.extents(), "main", made.id)
                  .promise()
                  .wait(cluster.scope()));
  flush();
  EXPECT_EQ(cluster.view("fork")->statistics().packs, 1u);
  EXPECT_EQ(objectsOf(*cluster.view("fork")), objects);
  expectWhole({"parent", "fork"});
}

TEST_P(ForkTest, TakesNothingFromItsParent) {
  fill();
  const auto made = fork("parent", "fork");
  const auto objects = objectsOf(*cluster.view("parent"));
  ASSERT_TRUE(repackRepository(cluster.node(), cluster.extents(), "main", made.id)
                  .promise()
                  .wait(cluster.scope()));
  flush();
  expectWhole({"parent", "fork"});
  deleteRefs(made);
  EXPECT_GT(prune("fork").packs, 0u);
  flush();
  EXPECT_EQ(objectsOf(*cluster.view("fork")).size(), 0u);
  EXPECT_EQ(objectsOf(*cluster.view("parent")), objects);
  ASSERT_EQ(cluster.node().deleteRepository("fork", true).wait(cluster.scope()).problem,
            RepositoryProblem::kNone);
  flush();
  EXPECT_EQ(objectsOf(*cluster.view("parent")), objects);
  expectWhole({"parent"});
}

TEST_P(ForkTest, OutlivesItsParent) {
  fill();
  fork("parent", "fork");
  fork("fork", "fork/of/fork");
  const auto objects = objectsOf(*cluster.view("fork"));
  ASSERT_EQ(cluster.node().deleteRepository("parent", true).wait(cluster.scope()).problem,
            RepositoryProblem::kNone);
  flush();
  cluster.restart(0);
  ASSERT_EQ(cluster.node().deleteRepository("fork", true).wait(cluster.scope()).problem,
            RepositoryProblem::kNone);
  flush();
  EXPECT_EQ(objectsOf(*cluster.view("fork/of/fork")), objects);
  expectWhole({"fork/of/fork"});
}

TEST_P(ForkTest, OfOneBranchIsPrunedOfTheOthers) {
  git.commit("a", "first");
  git.run({"branch", "-q", "side"});
  git.commit("b", "on main");
  git.run({"checkout", "-q", "side"});
  git.commit("c", "on the side");
  importHot(cluster, parent, git);
  fork("parent", "fork", true);
  EXPECT_EQ(cluster.view("fork")->statistics().refs, 1u);
  const auto pruned = prune("fork");
  EXPECT_EQ(pruned.objects, 3u) << "a commit, its tree and a file";
  expectWhole({"parent", "fork"});
}

TEST_P(ForkTest, SaysWhyNot) {
  auto why = [&](const char* from, const char* name) {
    return cluster.node().forkRepository(from, name, false).wait(cluster.scope()).message;
  };
  EXPECT_EQ(why("none", "fork"), "there is no repository with the name 'none'");
  EXPECT_EQ(why("parent", "parent"), "a repository with the name 'parent' exists");
  EXPECT_NE(why("parent", "../x"), "");
  cluster.node().renameRepository("parent", "p").wait(cluster.scope());
  EXPECT_NE(why("parent", "fork").find("it is called 'p' now"), std::string::npos);
  EXPECT_EQ(why("p", "fork"), "") << "an empty one is forked, too";
}

INSTANTIATE_TEST_SUITE_P(Grounds, ForkTest, ::testing::Values("sim", "real"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace packmoor::gitlayer
