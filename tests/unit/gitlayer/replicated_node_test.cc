// Goal: the git layer holds under the real replicator: what was acknowledged is there after the
// node is killed at any time, pushes are exactly-once, settling and verification work while pushes
// go on. Method: one node, W=1, on real files: journal, extents, local coordinator.
#include "gitlayer/git_node.h"

#include "git_state_machine.h"
#include "test_log.h"

#include <kernelio/real_env.h>
#include <replicator/local_coordinator.h>
#include <replicator/replicator.h>
#include <support/temp_dir.h>

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;

constexpr kj::StringPtr kNode = "alone"_kj;

// A node without others.
class NoPeers final : public replicator::Peers {
 public:
  const replicator::NodeId& self() override { return self_; }
  replicator::Peer& peer(const replicator::NodeId&) override { KJ_FAIL_REQUIRE("no peers"); }
  kj::Promise<void> connectivityChanged() override { return kj::NEVER_DONE; }

 private:
  replicator::NodeId self_ = kNode.cStr();
};

class ReplicatedNodeTest : public ::testing::Test {
 public:
  ~ReplicatedNodeTest() noexcept {}

 protected:
  struct Life {
    kj::Own<kernelio::RealEnv> env;
    kj::Own<replicator::Journal> journal;
    replicator::RecoveryReport recovered;
    kj::Own<replicator::ExtentStore> extents;
    kj::Own<replicator::Coordinator> coordinator;
    NoPeers peers;
    kj::Own<GitNode> node;
    kj::Own<replicator::Replicator> replicator;
    kj::Promise<void> running = nullptr;
    kj::Promise<void> maintenance = nullptr;
  };

  packmoor::testing::TempDir folder;
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::WaitScope& scope = io.waitScope;
  GitOptions options;
  replicator::ReplicatorOptions replication;
  kj::Own<Life> life;
  std::map<std::string, ObjectId> attempted;  // the newest push of each ref

  void SetUp() override {
    options.settleObjects = 150;
    replication.checkpointBytes = 256 << 10;
    replication.checkpointIntervalMs = 200;
    start();
  }
  void TearDown() override { stop(); }

  void start() {
    life = kj::heap<Life>();
    kernelio::RealEnvOptions envOptions;
    envOptions.dataFolder = folder.path().c_str();
    envOptions.workerThreads = 2;
    life->env = kernelio::makeRealEnv(io, envOptions);
    auto& env = life->env->env();
    replicator::JournalOptions journalOptions;
    journalOptions.segmentBytes = 1 << 20;
    auto opened = replicator::Journal::open(env, journalOptions, [](kj::StringPtr why) {
                    KJ_FAIL_REQUIRE("the journal failed", why);
                  }).wait(scope);
    life->journal = kj::mv(opened.journal);
    life->recovered = kj::mv(opened.report);
    life->extents = replicator::ExtentStore::open(env, {}).wait(scope);
    life->coordinator = replicator::openLocalCoordinator(env, kj::str("coordinator")).wait(scope);
    life->node = GitNode::create(env, *life->extents, options);
    replicator::NodeParts parts{env,
                                kNode.cStr(),
                                *life->journal,
                                life->recovered,
                                *life->extents,
                                *life->coordinator,
                                life->peers};
    life->replicator = replicator::Replicator::create(
        parts, replication,
        [this](const replicator::VolumeRecord& volume) {
          return life->node->makeStateMachine(volume);
        },
        [](std::string, kj::Array<const kj::byte>) -> kj::Promise<kj::Array<kj::byte>> {
          return kj::heapArray<kj::byte>(0);
        });
    life->node->attach(*life->replicator);
    replicator::NodeRegistration self;
    self.node = kNode.cStr();
    self.journal = life->journal->uuid();
    life->coordinator->registerNode(self).wait(scope);
    life->running = life->replicator->run().eagerlyEvaluate([](kj::Exception&& exception) {
      ADD_FAILURE() << kj::str(exception).cStr();
    });
    if (life->coordinator->listVolumes().wait(scope).empty()) {
      life->replicator->createVolume("main", {kNode.cStr()}, 1).wait(scope);
    }
    life->replicator->whenOpen("main", 20'000).wait(scope);
    life->maintenance = life->node->run().eagerlyEvaluate([](kj::Exception&& exception) {
      ADD_FAILURE() << kj::str(exception).cStr();
    });
  }
  // As a kill: nothing is flushed or said goodbye to.
  void stop() {
    if (life.get() == nullptr) return;
    life->maintenance = nullptr;
    life->running = nullptr;
    life->replicator = nullptr;
    life = nullptr;
  }

  GitNode& node() { return *life->node; }
  RepositoryInfo create(const std::string& name) {
    auto changed = node().createRepository(name, "", "", "").wait(scope);
    KJ_REQUIRE(changed.problem == RepositoryProblem::kNone, changed.message.c_str());
    return changed.info;
  }
  kj::Own<RepositoryView> view(const std::string& name) {
    auto found = node().view(name, true).wait(scope);
    return kj::mv(KJ_REQUIRE_NONNULL(found));
  }

  // Pushes one blob after the other to a ref of its own; each counts once acknowledged.
  Co<void> pushMany(RepositoryInfo repository, std::string ref, size_t count,
                    std::map<std::string, ObjectId>& acknowledged) {
    ObjectId before = acknowledged[ref];
    for (size_t i = 0; i < count; ++i) {
      PushTransaction txn;
      txn.objects.push_back(blob(ref + " " + std::to_string(i) + kj::str(before).cStr()));
      RefUpdate update;
      update.name = ref;
      update.oldId = before;
      update.newId = txn.objects.back().id;
      update.forward = true;
      txn.updates.push_back(update);
      attempted[ref] = update.newId;
      auto pushed = node().push(repository.id, std::move(txn));
      auto outcome = co_await kj::mv(pushed);
      KJ_REQUIRE(outcome.refs.at(0).problem.empty(), outcome.refs.at(0).problem.c_str());
      before = update.newId;
      acknowledged[ref] = before;
    }
  }
  kj::Promise<void> load(const RepositoryInfo& repository, size_t streams, size_t each,
                         std::map<std::string, ObjectId>& acknowledged) {
    kj::Vector<kj::Promise<void>> pushing;
    for (size_t i = 0; i < streams; ++i) {
      pushing.add(
          pushMany(repository, "refs/heads/" + std::to_string(i), each, acknowledged));
    }
    return kj::joinPromises(pushing.releaseAsArray());
  }
};

TEST_F(ReplicatedNodeTest, KeepsWhatItAcknowledged) {
  const auto repository = create("project");
  std::map<std::string, ObjectId> acknowledged;
  for (int round = 0; round < 3; ++round) {
    load(repository, 8, 25, acknowledged).wait(scope);
    stop();
    start();
    auto now = view("project");
    for (const auto& [ref, id] : acknowledged) {
      ASSERT_TRUE(now->ref(ref).has_value()) << ref;
      EXPECT_EQ(now->ref(ref)->id, id) << ref;
      EXPECT_TRUE(now->objects().read(id) != nullptr) << ref;
    }
  }
  auto digests = node().verifyVolume("main").wait(scope);
  ASSERT_EQ(digests.size(), 1u);
  EXPECT_EQ(digests[0].problem, "");
  EXPECT_EQ(digests[0].refCount, 8u);
  EXPECT_EQ(digests[0].objectCount, 8u * 25 * 3);
  EXPECT_GT(view("project")->statistics().packs, 0u) << "it settled meanwhile";
}

TEST_F(ReplicatedNodeTest, KilledWhilePushing) {
  const auto repository = create("project");
  std::map<std::string, ObjectId> acknowledged;
  for (int round = 0; round < 4; ++round) {
    auto pushing = load(repository, 8, 100'000, acknowledged);
    pushing.exclusiveJoin(io.provider->getTimer().afterDelay(300 * kj::MILLISECONDS)).wait(scope);
    pushing = nullptr;
    stop();
    start();
    auto now = view("project");
    for (auto& [ref, id] : acknowledged) {
      if (id.isZero()) continue;
      ASSERT_TRUE(now->ref(ref).has_value()) << ref;
      // The push that was under way may have been ordered or not.
      const ObjectId found = now->ref(ref)->id;
      EXPECT_TRUE(found == id || found == attempted[ref]) << ref;
      id = found;
      EXPECT_TRUE(now->objects().read(id) != nullptr) << ref;
    }
  }
  EXPECT_EQ(node().verifyVolume("main").wait(scope).at(0).problem, "");
}

}  // namespace
}  // namespace packmoor::gitlayer
