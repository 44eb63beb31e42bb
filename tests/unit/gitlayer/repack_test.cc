// Goal: merging packs changes where objects lie and nothing else, on every member alike, in any order
// with pushes, settles, prunes and deletions, and after any restart. Method: members with real state
// machines and extents; records in every order, judged in flight and appended without being judged;
// stock git reads what was merged.
#include "repacker.h"

#include "git_state_machine.h"
#include "settle.h"
#include "settler.h"
#include "test_import.h"
#include "test_log.h"
#include "whole_repository.h"

#include <support/git_process.h>

#include <gtest/gtest.h>

namespace packmoor::gitlayer::test {
namespace {

using Status = ApplyResult::Status;
using replicator::RecordIndex;

// A repository "project" of two members, in which small pushes are settled at once.
class RepackTest : public ::testing::TestWithParam<const char*> {
 public:
  ~RepackTest() noexcept override {}

 protected:
  static GitOptions eager() {
    GitOptions options;
    options.repackPacks = 2;
    return options;
  }
  static kj::Own<Ground> groundOf(const std::string& name) {
    return name == "sim" ? simGround() : realGround();
  }

  TestCluster cluster{groundOf(GetParam()), 2, eager()};
  RepositoryInfo repository = cluster.create("project");
  uint64_t nextTxn = 1000;

  // Moves "refs/heads/<ref>" to the last of the blobs.
  void push(const std::string& ref, const std::vector<std::string>& contents) {
    PushTransaction txn;
    txn.verifiedAt = RecordIndex(cluster.log.size());
    for (const auto& content : contents) txn.objects.push_back(blob(content));
    RefUpdate update;
    update.name = "refs/heads/" + ref;
    auto now = cluster.view("project")->ref(update.name);
    if (now.has_value()) update.oldId = now->id;
    update.newId = blob(contents.back()).id;
    update.forward = true;
    txn.updates.push_back(update);
    ASSERT_EQ(cluster.push(repository, std::move(txn)).refs.at(0).problem, "");
  }
  void settle() {
    ASSERT_TRUE(settleRepository(cluster.ground->env(0), cluster.extents(), cluster.volume(),
                                 cluster.machine(), repository.id)
                    .promise()
                    .wait(cluster.scope()));
  }
  // Packs of three blobs, one of which the pack before has too.
  void makePacks(size_t count) {
    for (size_t i = 0; i < count; ++i, ++packsMade) {
      const std::string number = std::to_string(packsMade);
      push("main", {"a" + number, std::string(packsMade * 50, 'x') + number,
                    "shared " + std::to_string(packsMade / 2)});
      settle();
    }
  }
  kj::Own<Repacker> repacker(size_t member = 0) {
    return kj::heap<Repacker>(cluster.node(member), cluster.extents(member), "main", repository.id);
  }
  kj::Own<Repacker> built() {
    auto result = repacker();
    EXPECT_TRUE(result->build().promise().wait(cluster.scope()));
    return result;
  }
  bool propose(Repacker& repacker) { return repacker.propose().promise().wait(cluster.scope()); }
  bool repack() {
    return repackRepository(cluster.node(), cluster.extents(), "main", repository.id)
        .promise()
        .wait(cluster.scope());
  }
  Status submit(replicator::RecordKind kind, kj::Array<const kj::byte> payload) {
    replicator::Proposal proposal;
    proposal.txn = txnId(nextTxn);
    proposal.kind = kind;
    proposal.payload = kj::mv(payload);
    auto answer = cluster.propose(kj::mv(proposal)).wait(cluster.scope());
    return decodeResult(answer.result).status;
  }
  PruneRecord pruneOf(std::vector<replicator::ExtentId> packs, uint64_t computedAt) {
    PruneRecord record;
    record.txn = txnId(++nextTxn);
    record.repository = repository.id;
    record.computedAt = computedAt;
    record.packs = std::move(packs);
    return record;
  }
  std::vector<PackRow> rows(size_t member = 0) {
    return packRows(*cluster.machine(member).snapshot(), repository.id);
  }
  void expectSame(const std::set<ObjectId>& ids) {
    for (size_t member = 0; member < 2; ++member) {
      auto view = cluster.view("project", member);
      EXPECT_EQ(objectsOf(*view), ids) << member;
      EXPECT_EQ(wholeProblem(*view), "") << member;
      for (const auto& id : ids) {
        auto object = view->objects().read(id);
        ASSERT_TRUE(object != nullptr);
        EXPECT_EQ(hashObject(ObjectType::kBlob, KJ_ASSERT_NONNULL(object).data), id);
      }
    }
    EXPECT_EQ(cluster.dump(0), cluster.dump(1));
  }
  // One that no ref needs.
  PackRow prunable() {
    const ObjectId needed = cluster.view("project")->ref("refs/heads/main")->id;
    for (const auto& row : rows()) {
      if (!cluster.machine().openPacks({row}).at(0)->exists(needed)) return row;
    }
    KJ_FAIL_ASSERT("every pack has the ref's object");
  }
  // A repack of all packs, whose own pack is nowhere: for what is decided before that matters.
  replicator::Proposal repackOf(uint64_t computedAt) {
    RepackRecord record;
    record.txn = txnId(++nextTxn);
    record.repository = repository.id;
    for (const auto& row : rows()) record.replaced.push_back(row.pack);
    record.pack.pack = txnId(++nextTxn);
    record.pack.index = txnId(++nextTxn);
    record.computedAt = computedAt;
    replicator::Proposal proposal;
    proposal.txn = record.txn;
    proposal.kind = kRepack;
    proposal.extents = {record.pack.pack, record.pack.index};
    proposal.payload = encodeRepack(record);
    return proposal;
  }
  replicator::Proposal pruneProposal(const PruneRecord& record) {
    replicator::Proposal proposal;
    proposal.txn = record.txn;
    proposal.kind = kPrune;
    proposal.payload = encodePrune(record);
    return proposal;
  }
  // What the primary says of it, behind everything in flight; nullopt: it is ordered.
  std::optional<Status> judge(const replicator::Proposal& proposal, uint64_t index) {
    auto verdict = cluster.machine().validate(proposal, RecordIndex(index));
    if (verdict.accepted) return std::nullopt;
    return decodeResult(verdict.result).status;
  }
  // As if a primary had ordered it that does not judge: apply alone decides.
  Status append(const replicator::Proposal& proposal) {
    cluster.log.push_back(replicator::makeRecord(
        RecordIndex(cluster.log.size() + 1), replicator::Epoch(1), cluster.log.back()->hash,
        proposal.kind, proposal.extents,
        kj::heapArray<const kj::byte>(proposal.payload.begin(), proposal.payload.size())));
    Status status = Status::kDone;
    for (size_t member = 0; member < 2; ++member) {
      auto applied = cluster.machine(member).apply({cluster.log.back()}).wait(cluster.scope());
      status = decodeResult(applied.at(0)).status;
    }
    EXPECT_EQ(cluster.dump(0), cluster.dump(1));
    return status;
  }
  std::set<ObjectId> objects() { return objectsOf(*cluster.view("project")); }

  size_t packsMade = 0;
};

INSTANTIATE_TEST_SUITE_P(, RepackTest, ::testing::Values("sim", "real"));

TEST_P(RepackTest, PutsOnePackInThePlaceOfMany) {
  makePacks(6);
  const auto before = objects();
  const auto old = rows();
  ASSERT_EQ(old.size(), 6u);
  ASSERT_TRUE(repack());
  expectSame(before);
  const auto statistics = cluster.view("project")->statistics();
  EXPECT_EQ(statistics.packs, 1u);
  EXPECT_EQ(statistics.packedObjects, before.size()) << "what lay in two packs is there once";
  EXPECT_EQ(statistics.lastRepack, cluster.log.size());
  const PackRow merged = rows().at(0);
  EXPECT_EQ(statistics.packBytes, merged.packBytes);
  uint64_t youngest = 0;
  for (const auto& pack : old) youngest = std::max(youngest, pack.addedAt);
  EXPECT_EQ(merged.addedAt, youngest) << "a prune goes by the age of what is in it";
  EXPECT_FALSE(repack()) << "there is nothing left to merge";
  // It grows on, and what was merged stays as it is while it is by far the largest.
  makePacks(2);
  const auto more = objects();
  ASSERT_TRUE(repack());
  expectSame(more);
}

TEST_P(RepackTest, SurvivesACrashBeforeItsFlush) {
  makePacks(4);
  const auto before = objects();
  for (size_t member = 0; member < 2; ++member) {
    cluster.machine(member).flush().wait(cluster.scope());
  }
  ASSERT_TRUE(repack());
  for (int round = 0; round < 2; ++round) {
    for (size_t member = 0; member < 2; ++member) {
      const std::string dump = cluster.dump(member);
      cluster.restart(member);
      EXPECT_EQ(cluster.dump(member), dump);
    }
    expectSame(before);
    for (size_t member = 0; member < 2; ++member) {
      cluster.machine(member).flush().wait(cluster.scope());
    }
  }
}

TEST_P(RepackTest, LetsTheOldPacksGoWhenThatIsDurable) {
  makePacks(3);
  auto old = cluster.view("project");
  const auto before = objectsOf(*old);
  ASSERT_TRUE(repack());
  cluster.machine().flush().wait(cluster.scope());
  EXPECT_EQ(cluster.extents().statistics().pinned, 0u);
  // Whoever began to read before goes on.
  for (const auto& id : before) EXPECT_TRUE(old->objects().read(id) != nullptr);
  old = nullptr;
  cluster.restart(0);
  expectSame(before);
}

TEST_P(RepackTest, ACutOffBuildLeavesNothing) {
  makePacks(3);
  const std::string dump = cluster.dump(0);
  const auto before = objects();
  {
    auto cut = repacker();
    auto building = cut->build().promise();
    building.poll(cluster.scope());
    building = nullptr;
  }
  EXPECT_EQ(cluster.dump(0), dump);
  { auto given = built(); }   // sealed, and never proposed
  cluster.restart(0);
  EXPECT_EQ(cluster.dump(0), dump);
  ASSERT_TRUE(repack());
  expectSame(before);
}

// ---- Orders ------------------------------------------------------------------------------------

TEST_P(RepackTest, BehindPushesAndSettles) {
  makePacks(3);
  auto merged = built();
  makePacks(1);
  push("hot", {"hot"});
  const auto before = objects();
  EXPECT_TRUE(propose(*merged));
  EXPECT_EQ(rows().size(), 2u);
  expectSame(before);
}

TEST_P(RepackTest, APushThatWasVerifiedBeforeIsTaken) {
  makePacks(3);
  const uint64_t seen = cluster.log.size();
  ASSERT_TRUE(repack());
  PushTransaction txn;
  txn.verifiedAt = RecordIndex(seen);
  RefUpdate update;
  update.name = "refs/heads/again";
  update.newId = blob("a0").id;
  txn.updates.push_back(update);
  const auto outcome = cluster.push(repository, std::move(txn));
  EXPECT_FALSE(outcome.verifyAgain);
  EXPECT_EQ(outcome.refs.at(0).problem, "");
}

TEST_P(RepackTest, BehindAPruneOfOneOfThePacks) {
  makePacks(3);
  auto merged = built();
  const PackRow gone = prunable();
  ASSERT_EQ(submit(kPrune, encodePrune(pruneOf({gone.pack}, cluster.log.size()))), Status::kDone);
  const auto before = objects();
  EXPECT_FALSE(propose(*merged));
  EXPECT_EQ(rows().size(), 2u);
  expectSame(before);
}

TEST_P(RepackTest, APruneThatDoesNotKnowOfItIsVoid) {
  makePacks(3);
  const auto prune = pruneOf({rows().at(0).pack}, cluster.log.size());
  ASSERT_TRUE(repack());
  const auto before = objects();
  EXPECT_EQ(submit(kPrune, encodePrune(prune)), Status::kVoid);
  expectSame(before);
}

TEST_P(RepackTest, TwoOfTheSamePacks) {
  makePacks(3);
  const auto before = objects();
  auto one = built(), other = built();
  EXPECT_TRUE(propose(*one));
  EXPECT_FALSE(propose(*other));
  expectSame(before);
}

TEST_P(RepackTest, OfARepositoryThatIsGone) {
  makePacks(3);
  auto merged = built();
  ASSERT_EQ(cluster.node().deleteRepository("project", true).wait(cluster.scope()).problem,
            RepositoryProblem::kNone);
  EXPECT_FALSE(propose(*merged));
  EXPECT_FALSE(repack());
  EXPECT_EQ(cluster.dump(0), cluster.dump(1));
}

TEST_P(RepackTest, AppliedWithoutBeingJudged) {
  makePacks(3);
  const uint64_t computed = cluster.log.size();
  const auto stale = repackOf(computed);
  const auto prune = pruneProposal(pruneOf({rows().at(0).pack}, computed));
  ASSERT_TRUE(repack());
  const auto before = objects();
  EXPECT_EQ(append(prune), Status::kVoid);
  EXPECT_EQ(append(stale), Status::kVoid);
  expectSame(before);
  makePacks(2);
  const auto other = repackOf(cluster.log.size());
  const PackRow gone = prunable();
  ASSERT_EQ(append(pruneProposal(pruneOf({gone.pack}, cluster.log.size()))), Status::kDone);
  EXPECT_EQ(append(other), Status::kVoid);
  EXPECT_EQ(rows().size(), 2u);
}

TEST_P(RepackTest, JudgedInFlight) {
  makePacks(3);
  const uint64_t last = cluster.log.size();
  const auto prune = pruneProposal(pruneOf({rows().at(0).pack}, last));
  EXPECT_EQ(judge(repackOf(last), last + 1), std::nullopt);
  EXPECT_EQ(judge(prune, last + 2), Status::kVoid) << "it took the packs one by one";
  EXPECT_EQ(judge(repackOf(last), last + 2), Status::kVoid) << "the packs are gone by then";
  cluster.machine().endSpeculation();   // the lead is lost, and that record with it
  EXPECT_EQ(judge(prune, last + 1), std::nullopt);
  EXPECT_EQ(judge(repackOf(last), last + 2), Status::kVoid);
  cluster.machine().endSpeculation();
  auto unnamed = repackOf(last);
  unnamed.extents = {};
  EXPECT_EQ(judge(unnamed, last + 1), Status::kRefused) << "rule 22 could not be kept";
  EXPECT_EQ(judge(repackOf(last), last + 1), std::nullopt);
}

// ---- Stock git ---------------------------------------------------------------------------------

TEST(RepackAndGitTest, ReadsWhatWasMerged) {
  GitOptions options;
  options.repackPacks = 2;
  TestCluster cluster(realGround(), 1, options);
  const auto repository = cluster.create("project");
  packmoor::test::TestGit git;
  std::string text;
  for (int i = 0; i < 12; ++i) {
    text += "line " + std::to_string(i) + "\n" + std::string(300, static_cast<char>('a' + i));
    git.commit("file" + std::to_string(i % 3), text);
    if (i % 4 == 0) {
      importPack(cluster, repository, git, {"HEAD"});   // with deltas, and what others have too
    } else {
      importHot(cluster, repository, git);
      settleRepository(cluster.ground->env(0), cluster.extents(), cluster.volume(),
                       cluster.machine(), repository.id).promise().wait(cluster.scope());
    }
  }
  const auto before = objectsOf(*cluster.view("project"));
  const uint64_t bytesBefore = cluster.view("project")->statistics().packBytes;
  Repacker repacker(cluster.node(), cluster.extents(), "main", repository.id);
  ASSERT_TRUE(repacker.build().promise().wait(cluster.scope()));
  ASSERT_TRUE(repacker.propose().promise().wait(cluster.scope()));
  auto view = cluster.view("project");
  EXPECT_EQ(objectsOf(*view), before);
  EXPECT_LT(view->statistics().packs, 4u);
  EXPECT_LT(view->statistics().packBytes, bytesBefore / 2) << "what lay whole are deltas now";
  for (const auto& pack : view->objects().packs()) {
    packmoor::test::TempFolder folder;
    const std::string path = folder.path() + "/p";
    packmoor::test::writeFile(path + ".pack", std::string(textOf(pack.bytes)));
    packmoor::test::writeFile(path + ".idx", std::string(textOf(pack.index)));
    git.run({"verify-pack", path + ".idx"});
    git.run({"index-pack", "-o", path + ".new", path + ".pack"});
    EXPECT_EQ(packmoor::test::readFile(path + ".new"), textOf(pack.index));
  }
}

}  // namespace
}  // namespace packmoor::gitlayer::test
