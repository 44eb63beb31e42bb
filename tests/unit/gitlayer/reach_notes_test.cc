// Goal: after a ref was deleted or moved back, a clone is given packs as they are again once a clone has seen
// that refs still reach everything, and never when they do not. Method: a real state machine, clones as
// upload-pack plans them.
#include "reach_notes.h"

#include "fetch_work.h"
#include "test_import.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;

class ReachNotesTest : public ::testing::Test {
 public:
  ~ReachNotesTest() noexcept override {}

 protected:
  struct Clone {
    size_t wholePacks = 0;
    uint32_t objects = 0;
  };

  Clone clone(const SharedView& view, uint32_t budget = 3) {
    FetchRequest request;
    request.ofsDelta = true;
    request.done = true;
    (*view)->forEachRef("", [&](const Ref& ref) {
      request.wants.add(ref.id);
      return true;
    });
    FetchWork work(view, std::move(request));
    while (!work.stepWants(budget)) {
    }
    EXPECT_EQ(work.refusedWant(), std::nullopt);
    while (!work.stepPlan(budget)) {
    }
    return {work.wholePacks(), work.builder->statistics().objects};
  }
  Clone clone() { return clone(view()); }
  SharedView view() { return std::make_shared<kj::Own<RepositoryView>>(cluster.view("project")); }

  void deleteRef(const std::string& name) {
    auto before = cluster.view("project");
    PushTransaction txn;
    txn.verifiedAt = before->index();
    RefUpdate update;
    update.name = name;
    update.oldId = before->ref(name)->id;
    txn.updates.push_back(update);
    ASSERT_EQ(cluster.push(repository, std::move(txn)).refs.at(0).problem, "");
  }

  TestCluster cluster{realGround(), 1};
  RepositoryInfo repository = cluster.create("project");
  packmoor::test::TestGit git;
};

TEST_F(ReachNotesTest, ACloneThatReachesAllIsNoted) {
  git.commit("a", "first");
  git.run({"branch", "-q", "start"});
  for (int i = 0; i < 5; ++i) git.commit("f" + std::to_string(i), std::string(100, 'x'));
  importPack(cluster, repository, git, {"main"});
  importHot(cluster, repository, git);
  const Clone first = clone();
  EXPECT_EQ(first.wholePacks, 1u) << "no ref was ever deleted";
  git.run({"checkout", "-q", "-b", "side"});
  git.commit("b", "on the side");
  importHot(cluster, repository, git);

  deleteRef("refs/heads/start");
  const SharedView old = view();
  const uint64_t rewoundAt = (*old)->info().rewoundAt;
  EXPECT_EQ(rewoundAt, (*old)->index().value);
  EXPECT_FALSE((*old)->refsReachAll());
  git.commit("c", "more on the side");
  importHot(cluster, repository, git);
  EXPECT_EQ((*view())->info().rewoundAt, rewoundAt);

  const Clone walked = clone();
  EXPECT_EQ(walked.wholePacks, 0u) << "nobody knew";
  EXPECT_TRUE((*view())->refsReachAll());
  EXPECT_FALSE((*old)->refsReachAll()) << "of a state before the one that was looked at nothing is known";
  const Clone again = clone();
  EXPECT_EQ(again.wholePacks, 1u);
  EXPECT_EQ(again.objects, walked.objects);
  git.commit("d", "forward does no harm");
  importHot(cluster, repository, git);
  EXPECT_EQ(clone().wholePacks, 1u);

  // Now there is something that nothing reaches.
  deleteRef("refs/heads/side");
  EXPECT_FALSE((*view())->refsReachAll());
  for (int i = 0; i < 2; ++i) {
    const Clone without = clone();
    EXPECT_EQ(without.wholePacks, 0u);
    EXPECT_EQ(without.objects, first.objects);
  }
  EXPECT_FALSE((*view())->refsReachAll());
  // And then not any more.
  GitNode::PruneRequest request;
  request.name = "project";
  request.graceMs = 0;
  EXPECT_GT(cluster.node().pruneRepository(request).wait(cluster.scope()).objects, 0u);
  EXPECT_EQ(clone().wholePacks, 0u);
  EXPECT_EQ(clone().wholePacks, 1u);
}

// More in the pack than refs reach is more than a first look at the number tells.
TEST_F(ReachNotesTest, APackWithMoreThanRefsReachIsNotGivenWhole) {
  git.commit("a", "first");
  git.run({"checkout", "-q", "-b", "side"});
  git.commit("b", "on the side");
  git.run({"checkout", "-q", "main"});
  importPack(cluster, repository, git, {"main", "side"});
  git.commit("c", "on main");
  git.commit("d", "more on main");
  importHot(cluster, repository, git);
  deleteRef("refs/heads/side");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(clone().wholePacks, 0u);
  EXPECT_EQ(clone().objects, 9u);
  EXPECT_FALSE((*view())->refsReachAll());
}

}  // namespace
}  // namespace packmoor::gitlayer
