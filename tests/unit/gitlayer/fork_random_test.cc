// Goal: whatever the order of pushes, settles, merges, prunes, deletions, forks of forks and restarts, every
// repository has what was done to it, on every member, and a pack's file is there just as long as one of them
// names it. Method: members in the simulator, whose clock the test moves; everything follows from the seed.
#include "repacker.h"
#include "settler.h"
#include "test_cluster.h"
#include "test_log.h"
#include "whole_repository.h"

#include <gtest/gtest.h>

#include <random>

namespace packmoor::gitlayer::test {
namespace {

using replicator::RecordIndex;

// What is in the repositories by what was done to them; everything follows from the seed.
class ForkStorm {
 public:
  explicit ForkStorm(uint64_t seed) : random_(seed), cluster_(simGround(seed), 2, options()) {
    create();
  }

  void step() {
    Repository& one = repositories_[below(repositories_.size())];
    switch (below(10)) {
      case 0: case 1: push(one); break;
      case 2: settle(one); break;
      case 3: merge(one); break;
      case 4: prune(one); break;
      case 5: deleteRef(one); break;
      case 6: case 7: fork(one); break;
      case 8: remove(one); break;
      default: cluster_.restart(below(2)); break;
    }
  }

  // Everything that nothing names goes from the disks first.
  void check() {
    for (size_t member = 0; member < 2; ++member) {
      cluster_.machine(member).flush().wait(cluster_.scope());
      cluster_.extents(member).startExpiry();
      cluster_.ground->env(member).timer.afterDelay(3 * kj::HOURS).wait(cluster_.scope());
      std::set<replicator::ExtentId> named;
      for (const Repository& one : repositories_) {
        auto view = cluster_.view(one.info.name, member);
        ASSERT_EQ(wholeProblem(*view), "") << one.info.name;
        std::map<std::string, ObjectId> refs;
        view->forEachRef("", "", [&](const Ref& ref) {
          refs[ref.name] = ref.id;
          return true;
        });
        ASSERT_EQ(refs, one.refs) << one.info.name;
        for (const auto& row : packRows(*cluster_.machine(member).snapshot(), one.info.id)) {
          named.insert({row.pack, row.index});
        }
      }
      for (const auto& extent : named) ASSERT_TRUE(cluster_.extents(member).isSealed(extent)) << member;
      ASSERT_EQ(cluster_.extents(member).list().size(), named.size()) << "more than is named is kept";
    }
    ASSERT_EQ(cluster_.dump(0), cluster_.dump(1));
  }

  size_t forks = 0, shared = 0, pruned = 0, merged = 0;

 private:
  struct Repository {
    RepositoryInfo info;
    std::map<std::string, ObjectId> refs;
  };
  static constexpr size_t kRepositoriesMax = 6;

  static GitOptions options() {
    GitOptions options;
    options.repackPacks = 2;
    return options;
  }
  size_t below(size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(random_); }
  std::string newName() { return "r" + std::to_string(names_++); }
  void create() { repositories_.push_back({cluster_.create(newName()), {}}); }

  void update(Repository& one, const std::string& name, std::optional<NewObject> object) {
    PushTransaction txn;
    txn.verifiedAt = RecordIndex(cluster_.log.size());
    RefUpdate update;
    update.name = name;
    auto before = one.refs.find(name);
    if (before != one.refs.end()) update.oldId = before->second;
    if (object.has_value()) update.newId = object->id;
    one.refs.erase(name);
    if (object.has_value()) {
      one.refs[name] = object->id;
      txn.objects.push_back(std::move(*object));
    }
    txn.updates.push_back(update);
    ASSERT_EQ(cluster_.push(one.info, std::move(txn)).refs.at(0).problem, "");
  }
  void push(Repository& one) {
    update(one, "refs/heads/b" + std::to_string(below(4)), blob("content " + std::to_string(contents_++)));
  }
  void deleteRef(Repository& one) {
    if (one.refs.empty()) return;
    const std::string name = std::next(one.refs.begin(), below(one.refs.size()))->first;
    update(one, name, std::nullopt);
  }
  void settle(Repository& one) {
    settleRepository(cluster_.ground->env(0), cluster_.extents(), cluster_.volume(), cluster_.machine(),
                     one.info.id)
        .promise()
        .wait(cluster_.scope());
  }
  void merge(Repository& one) {
    merged += repackRepository(cluster_.node(), cluster_.extents(), "main", one.info.id)
                  .promise()
                  .wait(cluster_.scope());
  }
  void prune(Repository& one) {
    GitNode::PruneRequest request;
    request.name = one.info.name;
    pruned += cluster_.node().pruneRepository(request).wait(cluster_.scope()).packs;
  }
  void fork(Repository& one) {
    if (repositories_.size() == kRepositoriesMax) return;
    Repository made;
    made.refs = one.refs;
    auto changed = cluster_.node(1).forkRepository(one.info.name, newName(), false).wait(cluster_.scope());
    ASSERT_EQ(changed.problem, RepositoryProblem::kNone) << changed.message;
    made.info = changed.info;
    shared += changed.statistics.packs;
    ++forks;
    repositories_.push_back(std::move(made));
  }
  void remove(Repository& one) {
    ASSERT_EQ(cluster_.node().deleteRepository(one.info.name, true).wait(cluster_.scope()).problem,
              RepositoryProblem::kNone);
    repositories_.erase(repositories_.begin() + (&one - repositories_.data()));
    if (repositories_.empty()) create();
  }

  std::mt19937_64 random_;
  TestCluster cluster_;
  std::vector<Repository> repositories_;
  size_t names_ = 0, contents_ = 0;
};

TEST(ForkStormTest, NothingIsLostAndNothingIsLeft) {
  size_t forks = 0, shared = 0, pruned = 0, merged = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ForkStorm storm(seed);
    for (int round = 0; round < 8; ++round) {
      for (int i = 0; i < 15; ++i) storm.step();
      storm.check();
      if (HasFatalFailure()) return;
    }
    forks += storm.forks;
    shared += storm.shared;
    pruned += storm.pruned;
    merged += storm.merged;
  }
  EXPECT_GT(forks, 100u);
  EXPECT_GT(shared, 50u);
  EXPECT_GT(pruned, 50u);
  EXPECT_GT(merged, 20u);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
