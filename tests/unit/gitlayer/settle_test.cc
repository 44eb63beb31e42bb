// Goal: settled packs are the same on every member, readable by stock git, prove differences
// instead of hiding them, and survive being applied again. Digests are equal on equal members
// and tell of damage. Method: members with real state machines and extents, in the simulator and
// on real files; git reads what was settled.
#include "settle.h"

#include "digest_keeper.h"
#include "push_verifier.h"
#include "record_codec.h"
#include "settler.h"
#include "test_cluster.h"
#include "test_import.h"
#include "test_log.h"

#include <support/git_process.h>

#include <gtest/gtest.h>

#include <filesystem>

namespace packmoor::gitlayer {
namespace {

using namespace test;

// Pushes `count` blobs in transactions of `each`, moving one ref.
std::vector<ObjectId> pushBlobs(TestCluster& cluster, const RepositoryInfo& repository,
                                size_t count, size_t each, const std::string& what = "blob") {
  std::vector<ObjectId> ids;
  for (size_t done = 0; done < count;) {
    PushTransaction txn;
    txn.verifiedAt = replicator::RecordIndex(cluster.log.size());
    for (size_t i = 0; i < each && done < count; ++i, ++done) {
      txn.objects.push_back(blob(what + " " + std::to_string(done) + std::string(done * 7, 'x')));
      ids.push_back(txn.objects.back().id);
    }
    const std::string name = "refs/heads/" + what;
    RefUpdate update;
    update.name = name;
    auto now = cluster.view(repository.name)->ref(name);
    if (now.has_value()) update.oldId = now->id;
    update.newId = ids.back();
    update.forward = true;
    txn.updates.push_back(update);
    const auto outcome = cluster.push(repository, std::move(txn));
    EXPECT_EQ(outcome.refs.at(0).problem, "");
  }
  return ids;
}

bool settle(TestCluster& cluster, const RepositoryInfo& repository) {
  return settleRepository(cluster.ground->env(0), cluster.extents(), cluster.volume(),
                          cluster.machine(), repository.id)
      .promise()
      .wait(cluster.scope());
}

void expectReadable(TestCluster& cluster, const std::string& name,
                    const std::vector<ObjectId>& ids, size_t member) {
  auto view = cluster.view(name, member);
  for (const auto& id : ids) {
    auto object = view->objects().read(id);
    ASSERT_TRUE(object != nullptr) << member;
    EXPECT_EQ(hashObject(ObjectType::kBlob, KJ_ASSERT_NONNULL(object).data), id);
  }
}

class SettleTest : public ::testing::TestWithParam<const char*> {
 public:
  ~SettleTest() noexcept {}

 protected:
  kj::Own<Ground> ground() {
    return std::string(GetParam()) == "sim" ? simGround() : realGround();
  }
};

TEST_P(SettleTest, MovesHotObjectsIntoOnePackEverywhere) {
  TestCluster cluster(ground(), 3);
  const auto repository = cluster.create("project");
  const auto ids = pushBlobs(cluster, repository, 50, 7);
  EXPECT_TRUE(settle(cluster, repository));
  for (size_t member = 0; member < 3; ++member) {
    auto view = cluster.view("project", member);
    const auto statistics = view->statistics();
    EXPECT_EQ(statistics.hotObjects, 0u);
    EXPECT_EQ(statistics.hotBytes, 0u);
    EXPECT_EQ(statistics.packs, 1u);
    EXPECT_EQ(statistics.packedObjects, 50u);
    EXPECT_EQ(view->objects().packs().size(), 1u);
    EXPECT_EQ(view->objects().packs()[0].bytes.size(), statistics.packBytes);
    EXPECT_TRUE(view->objects().hotObjects().empty());
    expectReadable(cluster, "project", ids, member);
    EXPECT_EQ(cluster.dump(member), cluster.dump(0));
    EXPECT_EQ(cluster.extents(member).statistics().pinned, 0u);
  }
  EXPECT_FALSE(settle(cluster, repository)) << "nothing is left to settle";
  const auto more = pushBlobs(cluster, repository, 10, 10, "more");
  EXPECT_TRUE(settle(cluster, repository));
  for (size_t member = 0; member < 3; ++member) {
    expectReadable(cluster, "project", ids, member);
    expectReadable(cluster, "project", more, member);
  }
}

TEST_P(SettleTest, SurvivesACrashBeforeItsFlush) {
  TestCluster cluster(ground(), 2);
  const auto repository = cluster.create("project");
  const auto ids = pushBlobs(cluster, repository, 20, 5);
  cluster.machine(1).flush().wait(cluster.scope());
  EXPECT_TRUE(settle(cluster, repository));
  const auto more = pushBlobs(cluster, repository, 5, 5, "more");
  for (size_t member = 0; member < 2; ++member) {
    const std::string before = cluster.dump(member);
    cluster.restart(member);
    EXPECT_EQ(cluster.dump(member), before);
    expectReadable(cluster, "project", ids, member);
    expectReadable(cluster, "project", more, member);
  }
  for (size_t member = 0; member < 2; ++member) {
    cluster.machine(member).flush().wait(cluster.scope());
    cluster.restart(member);
    expectReadable(cluster, "project", ids, member);
  }
}

TEST(SettleOnAFullDiskTest, WaitsUntilThereIsRoom) {
  TestCluster cluster(simGround(), 2);
  const auto repository = cluster.create("project");
  const auto ids = pushBlobs(cluster, repository, 30, 10);
  cluster.ground->setCapacity(1, 0);
  auto settling = settleRepository(cluster.ground->env(0), cluster.extents(), cluster.volume(),
                                   cluster.machine(), repository.id).promise();
  auto second = cluster.ground->env(0).timer.afterDelay(3 * kj::SECONDS);
  second.wait(cluster.scope());
  EXPECT_FALSE(settling.poll(cluster.scope()));
  EXPECT_NE(cluster.machine(1).problem().find("disk is full"), std::string::npos)
      << cluster.machine(1).problem();
  // Nor can what was applied be made durable, which may be tried again.
  auto flushed = cluster.machine(1).flush().then(
      [](auto) { return std::string(); },
      [](kj::Exception&& e) {
        EXPECT_EQ(e.getType(), kj::Exception::Type::OVERLOADED);
        return std::string(e.getDescription().cStr());
      });
  EXPECT_NE(flushed.wait(cluster.scope()), "");
  cluster.ground->setCapacity(1, UINT64_MAX);
  EXPECT_TRUE(settling.wait(cluster.scope()));
  EXPECT_EQ(cluster.machine(1).problem(), "");
  EXPECT_EQ(cluster.dump(1), cluster.dump(0));
  cluster.machine(1).flush().wait(cluster.scope());
  expectReadable(cluster, "project", ids, 1);
}

TEST_P(SettleTest, IsVoidAfterAnotherSettle) {
  TestCluster cluster(ground(), 1);
  const auto repository = cluster.create("project");
  pushBlobs(cluster, repository, 10, 5);
  SettleRecord late;
  late.txn = txnId(800);
  late.repository = repository.id;
  late.computedAt = cluster.log.size();
  late.upto = cluster.log.size();
  late.pack = txnId(801);
  late.index = txnId(802);
  late.objectCount = 10;
  EXPECT_TRUE(settle(cluster, repository));
  replicator::Proposal proposal;
  proposal.txn = late.txn;
  proposal.kind = kSettle;
  proposal.payload = encodeSettle(late);
  auto answer = cluster.propose(kj::mv(proposal)).wait(cluster.scope());
  EXPECT_EQ(decodeResult(answer.result).status, ApplyResult::Status::kRefused);
  // In the log of a primary that did not know of the first, it changes nothing.
  const std::string before = cluster.view("project")->info().name;
  cluster.log.push_back(replicator::makeRecord(
      replicator::RecordIndex(cluster.log.size() + 1), replicator::Epoch(2),
      cluster.log.back()->hash, kSettle, {}, encodeSettle(late)));
  auto results = cluster.machine().apply({cluster.log.back()}).wait(cluster.scope());
  EXPECT_EQ(decodeResult(results[0]).status, ApplyResult::Status::kRefused);
  EXPECT_EQ(cluster.view("project")->statistics().packs, 1u);
}

TEST_P(SettleTest, StopsAMemberThatDiffers) {
  TestCluster cluster(ground(), 2);
  const auto repository = cluster.create("project");
  pushBlobs(cluster, repository, 10, 5);
  // The second member has one object that the first has not.
  auto extra = transaction(900, {});
  extra.objects.push_back(blob("only here"));
  const size_t at = cluster.log.size();
  cluster.log.push_back(replicator::makeRecord(
      replicator::RecordIndex(at + 1), replicator::Epoch(1), cluster.log.back()->hash,
      kRefTransaction, {}, encodeRefTransaction(repository.id, extra, 1)));
  cluster.machine(1).apply({cluster.log.back()}).wait(cluster.scope());
  extra.objects[0] = blob("only there");
  cluster.log.back() = replicator::makeRecord(
      replicator::RecordIndex(at + 1), replicator::Epoch(1), cluster.log[at - 1]->hash,
      kRefTransaction, {}, encodeRefTransaction(repository.id, extra, 1));
  cluster.machine(0).apply({cluster.log.back()}).wait(cluster.scope());
  auto error = kj::runCatchingExceptions([&]() { settle(cluster, repository); });
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(error).getDescription().cStr()).find("differ"),
            std::string::npos);
}

TEST_P(SettleTest, DigestsAreEqualOnEqualMembers) {
  TestCluster cluster(ground(), 3);
  const auto repository = cluster.create("project");
  cluster.create("empty");
  pushBlobs(cluster, repository, 20, 5);
  settle(cluster, repository);
  pushBlobs(cluster, repository, 5, 5, "hot");
  auto digests = cluster.node(1).verifyVolume("main").wait(cluster.scope());
  ASSERT_EQ(digests.size(), 3u);
  for (const auto& digest : digests) {
    EXPECT_EQ(digest.problem, "") << digest.node;
    EXPECT_EQ(digest.index.value, cluster.log.size());
    EXPECT_EQ(digest.refs, digests[0].refs);
    EXPECT_EQ(digest.repositories, digests[0].repositories);
    EXPECT_EQ(digest.objects, digests[0].objects);
    EXPECT_EQ(digest.refCount, 2u);
    EXPECT_EQ(digest.repositoryCount, 2u);
    EXPECT_EQ(digest.objectCount, 25u);
  }
  const auto before = digests[0];
  pushBlobs(cluster, repository, 1, 1, "next");
  digests = cluster.node(0).verifyVolume("main").wait(cluster.scope());
  EXPECT_NE(digests[0].refs, before.refs);
  EXPECT_NE(digests[0].objects, before.objects);
}

TEST_P(SettleTest, DigestsSayWhatIsWrong) {
  TestCluster cluster(ground(), 3);
  const auto repository = cluster.create("project");
  auto txn = transaction(700, {update("refs/heads/main", 0, 5)});
  cluster.push(repository, std::move(txn));
  cluster.stop(2);
  auto digests = cluster.node(0).verifyVolume("main").wait(cluster.scope());
  ASSERT_EQ(digests.size(), 3u);
  EXPECT_NE(digests[0].problem.find("names object"), std::string::npos) << digests[0].problem;
  EXPECT_EQ(digests[0].refs, digests[1].refs);
  EXPECT_NE(digests[2].problem.find("cannot be asked"), std::string::npos) << digests[2].problem;
  cluster.start(2);
}

INSTANTIATE_TEST_SUITE_P(Both, SettleTest, ::testing::Values("sim", "real"),
                         [](const auto& info) { return std::string(info.param); });

// Files that stock git can read, where it looks for them.
TEST(SettledPacks, AreReadByStockGit) {
  packmoor::testing::TempDir work;
  TestCluster cluster(realGround(), 1);
  const auto repository = cluster.create("project");
  const auto ids = pushBlobs(cluster, repository, 30, 10);
  ASSERT_TRUE(settle(cluster, repository));
  cluster.machine().links().whenIdle().wait(cluster.scope());
  EXPECT_EQ(cluster.machine().links().lastError(), "");
  const std::string root = cluster.ground->env(0).disk.root().cStr();
  const std::string objects = root + "/volumes/" + repositoryId(99).text().cStr() +
                              "/repositories/" + repository.id.text().cStr() + "/objects";
  ASSERT_TRUE(std::filesystem::exists(objects + "/pack"));
  packmoor::test::TestGit git;
  std::filesystem::create_directories(git.path() + "/.git/objects/info");
  packmoor::test::writeFile(git.path() + "/.git/objects/info/alternates", objects + "\n");
  for (const auto& id : ids) {
    EXPECT_EQ(git.line({"cat-file", "-t", id.hex().cStr()}), "blob");
  }
  for (const auto& entry : std::filesystem::directory_iterator(objects + "/pack")) {
    if (entry.path().extension() == ".idx") {
      git.run({"verify-pack", entry.path().string()});
    }
  }
  // The folder goes with the repository.
  EXPECT_EQ(cluster.node().deleteRepository("project", true).wait(cluster.scope()).problem,
            RepositoryProblem::kNone);
  cluster.machine().flush().wait(cluster.scope());
  cluster.machine().links().whenIdle().wait(cluster.scope());
  EXPECT_FALSE(std::filesystem::exists(objects));
}

TEST(SettledPacks, LinksAreMadeAgainAndStrangersRemoved) {
  TestCluster cluster(realGround(), 1);
  const auto repository = cluster.create("project");
  pushBlobs(cluster, repository, 5, 5);
  ASSERT_TRUE(settle(cluster, repository));
  cluster.machine().links().whenIdle().wait(cluster.scope());
  cluster.machine().flush().wait(cluster.scope());
  const std::string folder = std::string(cluster.ground->env(0).disk.root().cStr()) + "/volumes/" +
                             repositoryId(99).text().cStr() + "/repositories/";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder + "00112233445566778899aabbccddeeff/objects");
  std::filesystem::create_directories(folder + "stranger");
  // Of a pack that was dropped, and a crash came before its names.
  const std::string packs = folder + repository.id.text().cStr() + "/objects/pack/";
  std::filesystem::create_directories(packs);
  for (const char* suffix : {".idx", ".pack"}) {
    packmoor::test::writeFile(packs + "pack-00112233445566778899aabbccddeeff" + suffix, "old");
  }
  cluster.restart(0);
  cluster.machine().links().whenIdle().wait(cluster.scope());
  size_t entries = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    ++entries;
    EXPECT_EQ(entry.path().filename().string(), repository.id.text().cStr());
  }
  EXPECT_EQ(entries, 1u);
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(packs)) {
    ++files;
    EXPECT_EQ(entry.path().string().find("00112233"), std::string::npos) << entry.path();
  }
  EXPECT_EQ(files, 2u) << "a pack and its index";
}

TEST(Settling, TakesWhatFitsTheBound) {
  TestCluster cluster(simGround(), 1);
  const auto repository = cluster.create("project");
  pushBlobs(cluster, repository, 40, 4);
  auto state = cluster.machine().snapshot();
  const uint64_t all = settleUpto(*state, repository.id);
  EXPECT_EQ(all, cluster.log.size());
  EXPECT_EQ(settledObjects(*state, repository.id, all).size(), 40u);
  const uint64_t some = settleUpto(*state, repository.id, 600);
  EXPECT_LT(some, all);
  EXPECT_GT(settledObjects(*state, repository.id, some).size(), 4u);
  const uint64_t least = settleUpto(*state, repository.id, 1);
  EXPECT_EQ(settledObjects(*state, repository.id, least).size(), 4u) << "at least one push";
  EXPECT_EQ(settleUpto(*state, repositoryId(1), 1), 0u);
}

// A client that does not look sends again what the repository has; it is not kept in two places.
TEST(Settling, LeavesOutWhatAPackHas) {
  TestCluster cluster(simGround(), 1);
  const auto repository = cluster.create("project");
  packmoor::test::TestGit git;
  git.commit("a", "first");
  importHot(cluster, repository, git);
  EXPECT_TRUE(settle(cluster, repository));
  auto newOf = [&](const std::vector<std::string>& revisions) {
    const std::string pack = git.pack(revisions);
    const auto bytes = bytesOf(pack);
    SmallPush push(kj::heapArray<const kj::byte>(bytes.begin(), bytes.size()),
                   shareView(cluster.view("project")));
    std::vector<ReceiveCommand> commands;
    EXPECT_FALSE(push.verify(commands).refusal.has_value());
    EXPECT_TRUE(push.connected());
    PushTransaction txn;
    push.addTo(txn);
    return txn.objects.size();
  };
  EXPECT_EQ(newOf({"HEAD"}), 0u);
  git.commit("b", "second");
  EXPECT_EQ(newOf({"HEAD"}), 3u) << "a commit, its tree and a file; not what came before";
}

TEST(Settling, HappensByItself) {
  GitOptions options;
  options.settleObjects = 30;
  TestCluster cluster(simGround(), 2, options);
  const auto repository = cluster.create("project");
  auto maintenance = cluster.node(0).run().eagerlyEvaluate(nullptr);
  auto idle = cluster.node(1).run().eagerlyEvaluate(nullptr);
  const auto ids = pushBlobs(cluster, repository, 100, 10);
  auto& env = cluster.ground->env(0);
  for (int i = 0; i < 200 && cluster.view("project")->statistics().hotObjects >= 30; ++i) {
    env.timer.afterDelay(100 * kj::MILLISECONDS).wait(cluster.scope());
  }
  EXPECT_LT(cluster.view("project")->statistics().hotObjects, 30u);
  EXPECT_GT(cluster.view("project")->statistics().packs, 0u);
  expectReadable(cluster, "project", ids, 0);
  expectReadable(cluster, "project", ids, 1);
  EXPECT_EQ(cluster.dump(0), cluster.dump(1));
}

TEST(Digests, ReportDamage) {
  TestCluster cluster(realGround(), 2);
  const auto repository = cluster.create("project");
  pushBlobs(cluster, repository, 30, 10);
  settle(cluster, repository);
  const auto pack = cluster.extents(1).list();
  for (const auto& extent : pack) {
    const std::string path = std::string(cluster.ground->env(1).disk.root().cStr()) + "/" +
                             cluster.extents(1).path(extent.id).cStr();
    std::string content = packmoor::test::readFile(path);
    if (content.substr(0, 4) != "PACK") continue;
    content[100] = static_cast<char>(content[100] ^ 1);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    packmoor::test::writeFile(path, content);
  }
  auto digests = cluster.node(0).verifyVolume("main").wait(cluster.scope());
  EXPECT_EQ(digests[0].problem, "");
  EXPECT_NE(digests[1].problem.find("repository project: The pack"), std::string::npos)
      << digests[1].problem;
  EXPECT_NE(digests[1].problem.find("block 0"), std::string::npos) << digests[1].problem;
}

}  // namespace
}  // namespace packmoor::gitlayer
