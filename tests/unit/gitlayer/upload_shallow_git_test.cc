// Goal: shallow clones and fetches into shallow clones give a client what git's own server gives it.
// Method: the same commands for two clients, one served by Packmoor and one by git; objects, refs and
// the shallow file are compared after each.
#include "upload_git_harness.h"

namespace packmoor::gitlayer::test {
namespace {

class UploadShallowTest : public UploadGitTest {};

TEST_P(UploadShallowTest, ClonesAndDeepensByDepth) {
  TestGit git;
  grow(git);
  for (const char* depth : {"1", "2", "4", "2147483647"}) {
    SCOPED_TRACE(depth);
    ASSERT_TRUE(cloneBoth(git, {std::string("--depth=") + depth}));
    expectTwins();
    ASSERT_TRUE(fetchBoth({"--depth=3", "origin"}));
    expectTwins();
    ASSERT_TRUE(fetchBoth({"--deepen=1", "origin"}));
    expectTwins();
    fetchBoth({"--unshallow", "origin"});  // refused by the client when it is whole
    expectTwins();
  }
}

TEST_P(UploadShallowTest, FetchesIntoShallowClones) {
  TestGit git;
  grow(git);
  ASSERT_TRUE(cloneBoth(git, {"--depth=2", "--no-single-branch"}));
  expectTwins();
  for (int round = 0; round < 3; ++round) {
    git.commit("a/b/file", "round " + std::to_string(round));
    git.commit("new" + std::to_string(round), "new");
    if (round == 1) git.run({"repack", "-q", "-a", "-d"});
    if (round == 2) git.run({"tag", "-a", "-m", "two", "v2"});
    ASSERT_TRUE(fetchBoth({"origin"}));
    expectTwins();
  }
  git.commit("top", "again");
  ASSERT_TRUE(fetchBoth({"--depth=1", "origin"}));
  expectTwins();
  // A branch that leaves history behind the cut.
  git.run({"checkout", "-q", "-b", "late", "v1~1"});
  git.commit("late", "late");
  ASSERT_TRUE(fetchBoth({"origin"}));
  expectTwins();
  ASSERT_TRUE(fetchBoth({"--unshallow", "origin"}));
  expectTwins();
}

TEST_P(UploadShallowTest, FetchesShallowIntoAWholeClone) {
  TestGit git;
  grow(git);
  ASSERT_TRUE(cloneBoth(git, {}));
  git.commit("top", "1");
  git.commit("top", "2");
  ASSERT_TRUE(fetchBoth({"--depth=1", "origin"}));
  expectTwins();
  ASSERT_TRUE(fetchBoth({"--deepen=1", "origin"}));
  expectTwins();
}

TEST_P(UploadShallowTest, CutsByTimeAndByRefs) {
  TestGit git;
  grow(git);
  std::string middle = git.line({"log", "-1", "--format=%ct", "main~2"});
  for (Arguments how : std::vector<Arguments>{
           {"--shallow-since=" + middle},
           {"--shallow-since=1"},
           {"--shallow-since=4000000000"},
           {"--shallow-exclude=v1"},
           {"--shallow-exclude=side"},
           {"--shallow-exclude=refs/tags/v1", "--shallow-since=" + middle},
           {"--shallow-exclude=none"},
           {"--shallow-exclude=main"}}) {
    SCOPED_TRACE(how[0]);
    if (!cloneBoth(git, how)) continue;
    expectTwins();
    // Git's own client stumbles over some cuts, whoever served them.
    fetchBoth({"--deepen=1", "origin"});
    expectTwins();
    fetchBoth({"--unshallow", "origin"});
    expectTwins();
  }
}

TEST_P(UploadShallowTest, SaysWhyNothingIsCut) {
  TestGit git;
  grow(git);
  auto result = ask(work_.path(), {"clone", "-q", "--shallow-exclude=none", url(git), "x"});
  EXPECT_NE(result.err.find("deepen-not is not the name of one ref: 'none'"), std::string::npos)
      << result.err;
  result = ask(work_.path(), {"clone", "-q", "--shallow-since=4000000000", url(git), "x"});
  EXPECT_NE(result.err.find("no commits selected for shallow requests"), std::string::npos)
      << result.err;
}

TEST_P(UploadShallowTest, CutsRandomHistories) {
  for (uint64_t seed = 1; seed <= rounds(4); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    auto below = [&](size_t bound) { return random() % bound; };
    TestGit git;
    growRandomly(git, seed, 50, seed % 3 == 0);
    if (seed % 2 == 0) git.run({"repack", "-q", "-a", "-d"});
    Arguments first = {"--depth=" + std::to_string(1 + below(6))};
    if (seed % 2 == 0) first = {"--shallow-since=" + std::to_string(1'600'000'000 + below(50'000))};
    if (below(2) == 0) first.push_back("--no-single-branch");
    const char* option = seed % 3 == 1 ? "--append-only" : "";
    if (!cloneBoth(git, first, option)) continue;
    expectTwins();
    for (int step = 0; step < 3; ++step) {
      Arguments how;
      size_t what = below(5);
      if (what == 0) how = {"--depth=" + std::to_string(1 + below(12))};
      if (what == 1) how = {"--deepen=" + std::to_string(1 + below(4))};
      if (what == 2) how = {"--shallow-exclude=b" + std::to_string(below(4))};
      if (what == 3) how = {"--shallow-since=" + std::to_string(1'600'000'000 + below(50'000))};
      how.push_back("origin");
      how.push_back("+refs/heads/b" + std::to_string(below(4)) + ":refs/remotes/origin/x");
      fetchBoth(how, option);
      expectTwins();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Protocol, UploadShallowTest, ::testing::Values("0", "1", "2"),
                         protocolName);

}  // namespace
}  // namespace packmoor::gitlayer::test
