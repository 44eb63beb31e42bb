// Goal: stock git clones, fetches and lists through Packmoor's upload-pack as it does through its
// own. Method: git runs the program upload_pack_stdio as the server's side of file:// URLs, over
// repositories that git itself made and packed; results are compared with git's.
#include "upload_git_harness.h"

namespace packmoor::gitlayer::test {
namespace {

TEST_P(UploadGitTest, ClonesWhatIsLooseAndWhatIsPacked) {
  TestGit git;
  grow(git);
  cloneAndCompare(git, work_.path() + "/loose", "");
  git.run({"repack", "-q", "-a", "-d", "--depth=50"});
  cloneAndCompare(git, work_.path() + "/packed", "");
  cloneAndCompare(git, work_.path() + "/whole", "--append-only");
  git.commit("more", "more\n");
  git.run({"repack", "-q", "-d"});
  git.commit("top", "hot\n");
  cloneAndCompare(git, work_.path() + "/mixed", "");
  cloneAndCompare(git, work_.path() + "/mixed-whole", "--append-only");
  cloneAndCompare(git, work_.path() + "/mirror", "--append-only", {"--mirror"});
}

TEST_P(UploadGitTest, ClonesPacksThatShareObjects) {
  TestGit git;
  grow(git);
  std::string some = git.run({"rev-list", "--objects", "main~2"});
  std::string all = git.run({"rev-list", "--objects", "--all"});
  auto packOf = [&](const std::string& objects, const char* window) {
    std::string names;
    std::istringstream in(objects);
    for (std::string line; std::getline(in, line);) names += line.substr(0, 40) + "\n";
    git.run({"pack-objects", "-q", std::string("--window=") + window,
             git.path() + "/.git/objects/pack/pack"}, names);
  };
  packOf(some, "10");
  packOf(all, "0");
  git.commit("a/b/file", std::string(3000, 'x') + "3\n");
  cloneAndCompare(git, work_.path() + "/clone", "--append-only");
}

TEST_P(UploadGitTest, ClonesAnEmptyRepository) {
  TestGit git;
  must(ask(work_.path(), {"clone", "-q", "--bare", url(git), "clone"}));
  EXPECT_EQ(in(work_.path() + "/clone", {"for-each-ref"}), "");
}

TEST_P(UploadGitTest, ListsRefsAsGitDoes) {
  TestGit git;
  grow(git);
  for (Arguments extra : std::vector<Arguments>{{}, {"main"}, {"refs/tags/*"}, {"HEAD", "side"}}) {
    Arguments command = {"ls-remote", "--symref", url(git)};
    command.insert(command.end(), extra.begin(), extra.end());
    auto ours = ask(work_.path(), command);
    must(ours);
    command.insert(command.begin(), "git");
    EXPECT_EQ(ours.out, packmoor::test::runProcess(command, work_.path()).out);
  }
}

TEST_P(UploadGitTest, FetchesOnlyWhatIsNew) {
  TestGit git;
  for (int i = 0; i < 30; ++i) {
    for (int j = 0; j < 20; ++j) {
      git.write("d" + std::to_string(i) + "/f" + std::to_string(j), std::to_string(i * 100 + j));
    }
  }
  grow(git);
  git.run({"repack", "-q", "-a", "-d"});
  std::string clone = work_.path() + "/clone";
  cloneAndCompare(git, clone, "", {});
  for (int round = 0; round < 4; ++round) {
    std::string before = git.line({"rev-parse", "main"});
    git.commit("d3/f7", "round " + std::to_string(round));
    if (round > 1) git.commit("d5/new" + std::to_string(round), "new");
    if (round == 3) git.run({"repack", "-q", "-a", "-d"});
    std::string expected = git.run({"rev-list", "--objects", "main", "--not", before});
    size_t had = lines(in(clone, {"cat-file", "--batch-all-objects", "--batch-check"}));
    must(ask(clone, {"fetch", "-q", "origin"}));
    size_t has = lines(in(clone, {"cat-file", "--batch-all-objects", "--batch-check"}));
    EXPECT_EQ(has - had, lines(expected));
    EXPECT_EQ(in(clone, {"rev-parse", "origin/main"}), git.run({"rev-parse", "main"}));
    expectSound(clone);
  }
}

TEST_P(UploadGitTest, FetchesIntoRepositoriesThatWentTheirOwnWay) {
  TestGit git;
  grow(git);
  std::string clone = work_.path() + "/clone";
  cloneAndCompare(git, clone, "", {});
  in(clone, {"config", "user.name", "T"});
  in(clone, {"config", "user.email", "t@example.com"});
  // Far more commits than go into one round of a negotiation.
  for (int i = 0; i < 100; ++i) in(clone, {"commit", "-q", "--allow-empty", "-m", "own"});
  git.commit("top", "theirs\n");
  git.run({"checkout", "-q", "-b", "topic", "v1"});
  git.commit("topic", "topic\n");
  git.run({"checkout", "-q", "main"});
  must(ask(clone, {"fetch", "-q", "origin"}));
  expectSound(clone);
  EXPECT_EQ(in(clone, {"rev-parse", "origin/main", "origin/topic"}),
            git.run({"rev-parse", "main", "topic"}));
  // Nothing in common at all.
  TestGit stranger;
  stranger.commit("x", "x");
  must(ask(stranger.path(), {"fetch", "-q", url(git), "main"}));
  expectSound(stranger.path());
}

TEST_P(UploadGitTest, FetchesTags) {
  TestGit git;
  grow(git);
  std::string clone = work_.path() + "/clone";
  cloneAndCompare(git, clone, "", {});
  git.commit("tagged", "1\n");
  git.run({"tag", "-a", "-m", "followed", "v2"});
  git.run({"tag", "-a", "-m", "of a tag", "v2-again", "v2"});
  must(ask(clone, {"fetch", "-q", "origin"}));
  EXPECT_EQ(in(clone, {"rev-parse", "v2", "v2-again"}), git.run({"rev-parse", "v2", "v2-again"}));
  git.run({"tag", "-a", "-m", "old", "v0", "v1~2"});
  git.run({"tag", "blob", git.line({"rev-parse", "main:top"})});
  git.run({"tag", "-a", "-m", "a tree", "tree", "main^{tree}"});
  must(ask(clone, {"fetch", "-q", "--tags", "origin"}));
  EXPECT_EQ(in(clone, {"for-each-ref", "refs/tags"}), git.run({"for-each-ref", "refs/tags"}));
  expectSound(clone);
}

TEST_P(UploadGitTest, FetchesAReachableCommitByName) {
  TestGit git;
  grow(git);
  std::string old = git.line({"rev-parse", "v1^{commit}~1"});
  TestGit client;
  must(ask(client.path(), {"fetch", "-q", url(git), old}));
  EXPECT_EQ(client.line({"rev-parse", "FETCH_HEAD"}), old);
  std::string lost = git.line({"commit-tree", "-m", "lost", "main^{tree}"});
  auto result = ask(client.path(), {"fetch", "-q", url(git), lost});
  EXPECT_NE(result.exitCode, 0);
  EXPECT_NE(result.err.find("not our ref " + lost), std::string::npos) << result.err;
}

TEST_P(UploadGitTest, TellsWhatIsCommon) {
  TestGit git;
  grow(git);
  std::string clone = work_.path() + "/clone";
  cloneAndCompare(git, clone, "", {});
  in(clone, {"config", "user.name", "T"});
  in(clone, {"config", "user.email", "t@example.com"});
  in(clone, {"commit", "-q", "--allow-empty", "-m", "own"});
  git.commit("top", "theirs\n");
  auto result = ask(clone, {"fetch", "--negotiate-only", "--negotiation-tip=main", "origin"});
  if (std::string(GetParam()) != "2") {
    EXPECT_NE(result.exitCode, 0);   // git itself wants protocol 2 for it
    return;
  }
  must(result);
  EXPECT_EQ(result.out, in(clone, {"fetch", "--negotiate-only", "--negotiation-tip=main", "origin"}));
  EXPECT_NE(result.out, "");
}

TEST_P(UploadGitTest, SaysWhatIsDamaged) {
  TestGit git;
  grow(git);
  std::string blob = git.line({"rev-parse", "main:top"});
  std::string file = git.path() + "/.git/objects/" + blob.substr(0, 2) + "/" + blob.substr(2);
  ASSERT_EQ(remove(file.c_str()), 0);
  auto result = ask(work_.path(), {"clone", "-q", "--bare", url(git), "clone"});
  EXPECT_NE(result.exitCode, 0);
  EXPECT_NE(result.err.find("the pack could not be built: object is missing"), std::string::npos)
      << result.err;
}

INSTANTIATE_TEST_SUITE_P(Protocol, UploadGitTest, ::testing::Values("0", "1", "2"),
                         protocolName);

}  // namespace
}  // namespace packmoor::gitlayer::test
