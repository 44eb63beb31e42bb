// Goal: a walk finds every object that the client lacks, and few that it has; readiness and
// reachability are what they are by definition. Method: random histories with random wants and
// haves, compared with plain reachability; and histories in which the work done is counted.
#include "gitlayer/object_walk.h"

#include "random_history.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace packmoor::gitlayer::test {
namespace {

PackPlan walk(ObjectSource& source, const std::vector<ObjectId>& wants,
              const std::vector<ObjectId>& haves, uint32_t budget) {
  CommitTable commits(source);
  ObjectWalk walk(commits, wants, haves);
  while (!walk.step(budget)) {
  }
  return walk.take();
}

struct Totals {
  size_t needed = 0, extra = 0, extraCommits = 0;
};

void checkWalk(uint64_t seed, RandomHistory::Shape shape, Totals& totals) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  RandomHistory history(seed, shape);
  auto wants = history.pick(4);
  if (wants.empty()) wants.push_back(history.commits.back());
  auto haves = history.pick(5);
  auto wanted = history.reached(wants), had = history.reached(haves);
  auto asked = haves;
  asked.push_back(ObjectId::fromBytes("an unknown object !!"));

  PackPlan plan = walk(history, wants, asked, 1'000'000);
  for (const ObjectId& id : wanted) {
    if (had.count(id) > 0) continue;
    ++totals.needed;
    ASSERT_TRUE(plan.objects.contains(id)) << id.hex().cStr();
  }
  for (const ObjectId& id : plan.objects.names()) {
    ASSERT_TRUE(wanted.count(id) > 0) << id.hex().cStr();
    if (had.count(id) == 0) continue;
    ++totals.extra;
    if (history.typeOf(id) == ObjectType::kCommit) ++totals.extraCommits;
  }
  for (const ObjectId& id : plan.clientHas.names()) {
    ASSERT_TRUE(had.count(id) > 0) << id.hex().cStr();
  }
  EXPECT_EQ(walk(history, wants, asked, 1).objects.names(), plan.objects.names());
}

TEST(ObjectWalkTest, FindsWhatIsMissingInRandomHistories) {
  Totals totals;
  for (uint64_t seed = 1; seed <= 400; ++seed) checkWalk(seed, {}, totals);
  EXPECT_EQ(totals.extraCommits, 0u);
  EXPECT_LT(totals.extra * 10, totals.needed) << totals.extra << " of " << totals.needed;
}

TEST(ObjectWalkTest, FindsWhatIsMissingWhenClocksLie) {
  Totals totals;
  RandomHistory::Shape shape;
  shape.clocksLie = true;
  for (uint64_t seed = 1; seed <= 400; ++seed) checkWalk(seed, shape, totals);
  EXPECT_LT(totals.extra * 4, totals.needed) << totals.extra << " of " << totals.needed;
}

TEST(ObjectWalkTest, FindsWhatIsMissingInDeepHistories) {
  Totals totals;
  RandomHistory::Shape shape;
  shape.commits = 600;
  shape.foldersMax = 8;
  shape.filesMax = 12;
  for (uint64_t seed = 1; seed <= 15; ++seed) checkWalk(seed, shape, totals);
  EXPECT_LT(totals.extra * 5, totals.needed) << totals.extra << " of " << totals.needed;
}

TEST(ObjectWalkTest, TellsWhetherWantsAreReached) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomHistory history(seed, {});
    auto tips = history.pick(3);
    auto reached = history.reached(tips);
    std::vector<ObjectId> wants;
    for (int i = 0; i < 3; ++i) wants.push_back(history.commits[history.below(60)]);
    CommitTable commits(history);
    ObjectWalk walk(commits, wants, tips);
    walk.commitsOnly();
    while (!walk.step(7)) {
    }
    for (const ObjectId& want : wants) EXPECT_EQ(walk.sends(want), reached.count(want) == 0);
  }
}

// By definition, with dates that tell the truth: when every want has a have among its ancestors
// or is one, a negotiation may end; and only when each has at least a parent of a have.
TEST(ObjectWalkTest, TellsWhetherANegotiationMayEnd) {
  size_t ready = 0, notYet = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomHistory history(seed, {});
    CommitTable commits(history);
    ReachTest test(commits);
    std::vector<uint32_t> wants;
    std::vector<std::set<ObjectId>> ancestors;
    for (size_t count = 1 + history.below(3); count > 0; --count) {
      ObjectId want = history.commits[history.below(60)];
      wants.push_back(commits.add(want));
      ancestors.push_back(history.reached({want}));
    }
    std::set<ObjectId> had, hadOrParent;
    auto allReach = [&](const std::set<ObjectId>& some) {
      return std::all_of(ancestors.begin(), ancestors.end(), [&](const std::set<ObjectId>& of) {
        return std::any_of(some.begin(), some.end(),
                           [&](const ObjectId& id) { return of.count(id) > 0; });
      });
    };
    for (int round = 0; round < 4; ++round) {
      ObjectId have = history.commits[history.below(60)];
      uint32_t number = commits.add(have);
      auto& node = commits.load(number);
      had.insert(have);
      hadOrParent.insert(have);
      for (uint32_t i = 0; i < node.parentCount; ++i) {
        hadOrParent.insert(commits.id(commits.parent(node, i)));
      }
      test.addHave(number);
      test.restart();
      while (!test.step(wants, 3)) {
      }
      if (allReach(had)) { EXPECT_TRUE(test.reached()); }
      if (!allReach(hadOrParent)) { EXPECT_FALSE(test.reached()); }
      ++(test.reached() ? ready : notYet);
    }
  }
  EXPECT_GT(ready, 100u);
  EXPECT_GT(notYet, 100u);
}

// One new commit in a wide history: the folders that changed are read, and nothing else.
TEST(ObjectWalkTest, ReadsOnlyWhatChanged) {
  RandomHistory::Shape shape;
  shape.commits = 2000;
  shape.foldersMax = 10;
  shape.filesMax = 20;
  RandomHistory history(7, shape);
  CommitTable commits(history);
  auto& node = commits.load(commits.add(history.commits.back()));
  std::vector<ObjectId> haves;
  for (uint32_t i = 0; i < node.parentCount; ++i) {
    haves.push_back(commits.id(commits.parent(node, i)));
  }
  ASSERT_FALSE(haves.empty());
  history.reads = 0;
  walk(history, {history.commits.back()}, haves, 1000);
  EXPECT_LT(history.reads, 40u);
}

TEST(ObjectWalkTest, IncludesTagsOfWhatIsSent) {
  RandomHistory history(3, {});
  CommitTable commits(history);
  ObjectWalk walk(commits, {history.commits.back()}, {});
  while (!walk.step(100)) {
  }
  auto sent = history.reached({history.commits.back()});
  std::set<ObjectId> expected;
  ASSERT_FALSE(history.tags.empty());
  for (const ObjectId& tag : history.tags) {
    std::vector<ObjectId> chain{tag};
    while (history.typeOf(chain.back()) == ObjectType::kTag) {
      chain.push_back(history.linksOf(chain.back())[0]);
    }
    walk.includeTag(tag, chain.back());
    if (sent.count(chain.back()) > 0) expected.insert(chain.begin(), chain.end());
  }
  expected.insert(sent.begin(), sent.end());
  auto names = walk.take().objects.names();
  EXPECT_EQ(std::set<ObjectId>(names.begin(), names.end()), expected);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
