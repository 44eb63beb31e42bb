// Goal: partial clones get what git's own server gives them, and later what they were promised.
// Method: the same commands for two clients, one served by Packmoor and one by git; selections are
// compared with `git rev-list --filter` over random histories.
#include "upload_git_harness.h"

namespace packmoor::gitlayer::test {
namespace {

class UploadFilterTest : public UploadGitTest {
 protected:
  // Names of all objects that rev-list selects for a clone.
  std::set<std::string> selected(TestGit& git, const std::string& filter) {
    std::set<std::string> names;
    for (const std::string& line :
         sorted(git.run({"rev-list", "--objects", "--all", "--filter=" + filter}))) {
      names.insert(line.substr(0, 40));
    }
    return names;
  }
  std::set<std::string> ownedBy(const std::string& folder) {
    std::set<std::string> names;
    for (const std::string& line : objectsIn(folder)) names.insert(line.substr(0, 40));
    return names;
  }
  // Lazy fetches of a clone go to Packmoor from now on.
  void serveLater(const std::string& folder, const std::string& option = "") {
    in(folder, {"config", "remote.origin.uploadpack",
                UPLOAD_PACK_STDIO + (option.empty() ? "" : " " + option)});
    in(folder, {"config", "protocol.version", GetParam()});
  }
};

const std::vector<std::string> kFilters = {
    "blob:none", "blob:limit=1k", "blob:limit=0", "tree:0", "tree:1", "tree:2", "tree:3",
    "object:type=commit", "object:type=tree", "object:type=blob", "object:type=tag",
    "combine:tree:2+blob:none", "combine:object:type=blob+blob:limit=100"};

TEST_P(UploadFilterTest, ClonesWithEveryFilter) {
  TestGit git;
  grow(git);
  for (const std::string& filter : kFilters) {
    SCOPED_TRACE(filter);
    ASSERT_TRUE(cloneBoth(git, {"--filter=" + filter}));
    EXPECT_EQ(objectsIn(ours()), objectsIn(theirs()));
    EXPECT_EQ(ownedBy(ours()), selected(git, filter));
  }
}

TEST_P(UploadFilterTest, SelectsInRandomHistoriesAsRevListDoes) {
  for (uint64_t seed = 1; seed <= rounds(3); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TestGit git;
    growRandomly(git, seed, 40);
    if (seed % 2 == 0) git.run({"repack", "-q", "-a", "-d"});
    for (size_t i = seed % 3; i < kFilters.size(); i += 3) {
      SCOPED_TRACE(kFilters[i]);
      ASSERT_TRUE(cloneBoth(git, {"--filter=" + kFilters[i]}, "--append-only"));
      EXPECT_EQ(ownedBy(ours()), selected(git, kFilters[i]));
    }
  }
}

// Both by random patterns. Where filters are combined git leaves out some objects that lie in several
// places, though each of its filters takes them.
TEST_P(UploadFilterTest, SelectsBySparseSpecificationsAsRevListDoes) {
  static const char* const kPatterns[] = {
      "/*", "!/*/", "d0/", "/d1/*", "!f2", "**/d1/f*", "f[0-2]", "d?/**", "*", "d0/**/f1", "f3  ",
      "[!f]*", "*1", "/d0/d1/", "!d2/", "d1/d*/f?", "/**/d2/f4", "f\\1", "#f1", "!/d0/**", "[[:digit:]]",
      "d[0-", "/f0", "d2/d0"};
  for (uint64_t seed = 1; seed <= rounds(12); ++seed) {
    std::mt19937_64 random(seed);
    TestGit git;
    growRandomly(git, seed, 12);
    std::string text;
    for (size_t count = 1 + random() % 4; count > 0; --count) {
      text += std::string(kPatterns[random() % std::size(kPatterns)]) + "\n";
    }
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    std::string blob = git.line({"hash-object", "-w", "--stdin"}, text);
    git.run({"tag", "sparse", blob});
    std::string sparse = "sparse:oid=" + (seed % 2 == 0 ? blob : "sparse");
    ASSERT_TRUE(cloneBoth(git, {"--filter=" + sparse}));
    EXPECT_EQ(ownedBy(ours()), selected(git, sparse));
    if (seed % 4 != 0) continue;
    std::string both = "combine:" + sparse + "+tree:3";
    ASSERT_TRUE(cloneBoth(git, {"--filter=" + both}));
    auto owned = ownedBy(ours());
    for (const std::string& name : selected(git, both)) EXPECT_EQ(owned.count(name), 1u) << name;
    auto one = selected(git, sparse), other = selected(git, "tree:3");
    for (const std::string& name : owned) {
      EXPECT_EQ(one.count(name) + other.count(name), 2u) << name;
    }
  }
}

TEST_P(UploadFilterTest, GivesLaterWhatWasPromised) {
  TestGit git;
  grow(git);
  for (const char* option : {"", "--append-only"}) {
    for (const char* filter : {"blob:none", "tree:0", "blob:limit=100"}) {
      SCOPED_TRACE(std::string(filter) + option);
      ASSERT_TRUE(cloneBoth(git, {std::string("--filter=") + filter}, option));
      serveLater(ours(), option);
      in(ours(), {"checkout", "-q", "main~1"});
      in(ours(), {"checkout", "-q", "main"});
      EXPECT_EQ(in(ours(), {"status", "--porcelain"}), "");
      EXPECT_EQ(packmoor::test::readFile(ours() + "/a/b/file"),
                packmoor::test::readFile(git.path() + "/a/b/file"));
      in(ours(), {"log", "--all", "-p"});
      EXPECT_EQ(in(ours(), {"rev-list", "--objects", "--all"}),
                in(git.path(), {"rev-list", "--objects", "--all"}));
      expectSound(ours());
    }
  }
}

TEST_P(UploadFilterTest, RefusesObjectsThatNothingReaches) {
  TestGit git;
  grow(git);
  std::string lost = git.line({"hash-object", "-w", "--stdin"}, "lost");
  TestGit client;
  auto result = ask(client.path(), {"fetch", "-q", url(git), lost});
  EXPECT_NE(result.exitCode, 0);
  EXPECT_NE(result.err.find("not our ref " + lost), std::string::npos) << result.err;
  must(ask(client.path(), {"fetch", "-q", url(git), lost}, "--any"));
  EXPECT_EQ(client.run({"cat-file", "-p", lost}), "lost");
  std::string blob = git.line({"rev-parse", "v1:a/b/file"});
  must(ask(client.path(), {"fetch", "-q", url(git), blob}));
}

TEST_P(UploadFilterTest, FetchesIntoPartialAndShallowClones) {
  TestGit git;
  grow(git);
  for (Arguments how : std::vector<Arguments>{
           {"--filter=blob:none"}, {"--filter=tree:1"}, {"--filter=blob:limit=1k", "--depth=2"}}) {
    SCOPED_TRACE(how[0]);
    ASSERT_TRUE(cloneBoth(git, how));
    EXPECT_EQ(objectsIn(ours()), objectsIn(theirs()));
    git.commit("a/b/file", std::string(2000, 'y') + how[0]);
    git.commit("a/new/file", "new " + how[0]);
    ASSERT_TRUE(fetchBoth({"origin"}));
    EXPECT_EQ(objectsIn(ours()), objectsIn(theirs()));
    ASSERT_TRUE(fetchBoth({"--depth=2", "origin"}));
    EXPECT_EQ(objectsIn(ours()), objectsIn(theirs()));
    serveLater(ours());
    in(ours(), {"checkout", "-q", "origin/main"});
    expectSound(ours());
  }
}

INSTANTIATE_TEST_SUITE_P(Protocol, UploadFilterTest, ::testing::Values("0", "1", "2"),
                         protocolName);

}  // namespace
}  // namespace packmoor::gitlayer::test
