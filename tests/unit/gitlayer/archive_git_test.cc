// Goal: archives are byte for byte those of git's own server, whatever is in the tree. Method: stock git
// asks upload_pack_stdio --archive and git itself for the same, in every form, and the bytes are compared; the
// archives that git's bytes cannot be compared with are unpacked.
#include "upload_git_harness.h"

#include <cstdlib>

namespace packmoor::gitlayer::test {
namespace {

class ArchiveGitTest : public ::testing::Test {
 protected:
  // Times in zip archives are those of the server's zone, which is UTC here.
  ArchiveGitTest() { setenv("TZ", "UTC", 1); }
  ~ArchiveGitTest() override { unsetenv("TZ"); }

  ProcessResult archive(const std::string& server, Arguments words) {
    Arguments all = {"git", "archive", "--remote=file://" + git_.path()};
    if (!server.empty()) all.push_back("--exec=" + server);
    all.insert(all.end(), words.begin(), words.end());
    return packmoor::test::runProcess(all, work_.path());
  }
  ProcessResult ours(const Arguments& words, const std::string& option = "") {
    return archive(std::string(UPLOAD_PACK_STDIO) + " --archive" + option, words);
  }
  void expectSame(const Arguments& words) {
    SCOPED_TRACE(::testing::PrintToString(words));
    auto mine = ours(words), other = archive("", words);
    EXPECT_EQ(mine.exitCode, 0) << mine.err;
    EXPECT_EQ(other.exitCode, 0) << other.err;
    ASSERT_EQ(mine.out.size(), other.out.size()) << mine.err;
    EXPECT_TRUE(mine.out == other.out) << "differs at byte " << firstDifference(mine.out, other.out);
    EXPECT_EQ(mine.err, toldBy(other));
  }
  // What git tells but for its advice on names and patterns.
  static std::string toldBy(const ProcessResult& git) {
    std::istringstream lines(git.err);
    std::string told;
    for (std::string line; std::getline(lines, line);) {
      const bool advice = line.find("is not valid UTF-8") != line.npos ||
                          line.find("Negative patterns are ignored") != line.npos ||
                          line.find("Use '\\!' for literal") != line.npos;
      if (!advice) told += line + "\n";
    }
    return told;
  }
  void expectSameInAllForms(const Arguments& words) {
    for (const char* form : {"tar", "tar.gz", "tgz", "zip"}) {
      Arguments all = {std::string("--format=") + form};
      all.insert(all.end(), words.begin(), words.end());
      expectSame(all);
    }
  }
  static size_t firstDifference(const std::string& a, const std::string& b) {
    return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  }
  void run(const std::string& script) {
    auto done = packmoor::test::runProcess({"sh", "-ec", script}, git_.path());
    ASSERT_EQ(done.exitCode, 0) << done.err;
  }
  // Files of all kinds: modes, links, long and odd names, a submodule, empty and binary ones.
  void fill() {
    run("mkdir -p src/deep/er docs; printf 'int x;\\n' > src/a.c; : > empty; printf '#!/bin/sh\\n' > run.sh;"
        "chmod +x run.sh; ln -s src/a.c link; printf 'a\\0b' > src/deep/bin; echo t > src/deep/er/t.txt;"
        "echo d > docs/d.md; seq 3000 > docs/numbers;"
        "long=$(printf 'n%.0s' $(seq 90)); mkdir -p $long/$long; echo l > $long/$long/$long.txt;"
        "mkdir -p $long/p; echo q > $long/p/$long; ln -s $long/$long/$long.txt $long/link;"
        "printf x > \"$(printf 'na\\303\\257ve')\"; printf y > \"$(printf 'b\\377d')\"");
    git_.run({"add", "-A"});
    git_.run({"update-index", "--add", "--cacheinfo",
              "160000,1111111111111111111111111111111111111111,lib/module"});
    git_.run({"commit", "-q", "-m", "files"});
    git_.run({"tag", "-a", "-m", "one", "v1"});
  }

  TestGit git_;
  TempFolder work_;
};

TEST_F(ArchiveGitTest, IsGitsOwn) {
  fill();
  for (const char* what : {"main", "HEAD", "v1", "refs/heads/main"}) expectSameInAllForms({what});
  expectSameInAllForms({"--prefix=app-1.0/", "v1"});
  expectSameInAllForms({"--prefix=odd-", "v1"});
  expectSameInAllForms({"--prefix", "a//", "main", "--", "docs"});
  expectSame({"-v", "main"});
  for (const char* level : {"-0", "-1", "-9"}) {
    expectSame({"--format=zip", level, "main"});
    // What is not compressed is cut as it comes, by zlib.
    if (std::string(level) != "-0") expectSame({"--format=tgz", level, "main"});
  }
  auto plain = packmoor::test::runProcess({"gzip", "-dc"}, work_.path(), ours({"--format=tgz", "-0", "main"}).out);
  EXPECT_TRUE(plain.out == ours({"main"}).out) << plain.err;
  expectSame({"--list"});
  auto commit = git_.line({"rev-parse", "main"}) + "\n";
  EXPECT_EQ(git_.run({"get-tar-commit-id"}, ours({"main"}).out), commit);
}

TEST_F(ArchiveGitTest, HoldsThePathsThatAreAskedFor) {
  fill();
  const std::vector<Arguments> all = {
      {"src"},       {"src/"},          {"src/a.c", "empty"}, {"*.txt"},          {"src/*"},
      {"./docs"},    {"s*", "run.sh"},  {"[de]*"},            {":!src"},          {"src", ":^src/deep"},
      {"docs/*.md"}, {"lib/module"},    {"lib"},              {":(exclude)docs"}, {"*er/t.txt"},
      {"link"},      {"."}};
  for (Arguments paths : all) {
    paths.insert(paths.begin(), "main");
    expectSame(paths);
  }
  for (const char* none : {"nowhere", "src/a.c/", "sr", "*.none", "docs/nowhere"}) {
    auto mine = ours({"main", none});
    EXPECT_EQ(mine.exitCode, 1);
    EXPECT_NE(mine.err.find(std::string("pathspec '") + none + "' did not match any files"), std::string::npos)
        << mine.err;
    EXPECT_NE(archive("", {"main", none}).exitCode, 0);
  }
}

TEST_F(ArchiveGitTest, HeedsTheAttributesOfTheTree) {
  fill();
  packmoor::test::writeFile(git_.path() + "/.gitattributes",
                            "# comment\n.gitattributes export-ignore\n/docs/ export-ignore\n"
                            "*.c text eol=crlf\n\"src/deep/b\\151n\" export-ignore\n*.md internal\n"
                            "[attr]internal export-ignore\nkeep.md !export-ignore\n"
                            "auto* text=auto eol=crlf\nplain* -text eol=crlf\nnumbers diff\nempty -diff\n"
                            "blob binary\n!negative export-ignore\n");
  run("echo i > top.md; echo k > keep.md; printf 'a\\nb\\n' > auto1; printf 'a\\r\\nb\\n' > auto2;"
      "printf 'a\\nb\\0\\n' > auto3; printf 'a\\n' > plain1; printf 'a\\r\\nb\\nc\\r' > src/mixed.c;"
      "echo text > blob; echo '*.txt export-ignore\n/t.txt -export-ignore\nsub/** export-ignore' "
      "> src/deep/er/.gitattributes; mkdir src/deep/er/sub; echo s > src/deep/er/sub/s; echo u > src/u.txt;"
      "echo v > src/deep/er/v.txt");
  git_.run({"add", "-A"});
  git_.run({"commit", "-q", "-m", "attributes"});
  expectSameInAllForms({"main"});
  expectSame({"main", "src"});
  // Nothing is above the named tree, and its time is that of the request.
  EXPECT_EQ(ours({"-v", "main:src"}).err, toldBy(archive("", {"-v", "main:src"})));
  const std::string names = ours({"-v", "main"}).err;
  EXPECT_EQ(names.find("docs"), std::string::npos) << names;
  EXPECT_NE(names.find("keep.md"), std::string::npos) << names;
}

TEST_F(ArchiveGitTest, SaysWhichAttributesItDoesNotCarryOut) {
  packmoor::test::writeFile(git_.path() + "/.gitattributes", "version export-subst\nother export-subst\n");
  run("echo '$Format:%H$' > version; echo x > other");
  git_.commit("f", "1");
  auto mine = ours({"main"});
  EXPECT_EQ(mine.exitCode, 0);
  EXPECT_NE(mine.out.find("$Format:%H$"), std::string::npos);
  const std::string warning = "does not carry out the attribute export-subst, which 'other' has";
  EXPECT_NE(mine.err.find(warning), std::string::npos) << mine.err;
  EXPECT_EQ(mine.err.find("'version'"), std::string::npos) << "once is enough";
}

TEST_F(ArchiveGitTest, LargeFilesPassPieceByPiece) {
  std::mt19937 random(7);
  std::string noise, text;
  while (noise.size() < 20u << 20) noise += static_cast<char>(random());
  while (text.size() < 12u << 20) text += "line " + std::to_string(text.size()) + "\n";
  git_.write("noise", noise);
  git_.commit("text", text);
  git_.run({"repack", "-q", "-a", "-d"});
  expectSame({"main"});
  expectSame({"--format=tgz", "main"});
  // A zip tells sizes behind a large file; git does so from 512 MiB on.
  for (const char* level : {"-0", "-6"}) {
    auto mine = ours({"--format=zip", level, "main"});
    ASSERT_EQ(mine.exitCode, 0) << mine.err;
    packmoor::test::writeFile(work_.path() + "/a.zip", mine.out);
    auto unpacked = packmoor::test::runProcess(
        {"python3", "-c", "import zipfile; z = zipfile.ZipFile('a.zip'); assert z.testzip() is None; "
                          "z.extractall('out'); print(z.comment.decode(), end='')"}, work_.path());
    EXPECT_EQ(unpacked.exitCode, 0) << unpacked.err;
    EXPECT_EQ(unpacked.out, git_.line({"rev-parse", "main"}));
    EXPECT_TRUE(packmoor::test::readFile(work_.path() + "/out/noise") == noise);
    EXPECT_TRUE(packmoor::test::readFile(work_.path() + "/out/text") == text);
  }
}

TEST_F(ArchiveGitTest, GivesWhatRefsNameAndMoreOnlyWhereItIsSet) {
  fill();
  const std::string old = git_.line({"rev-parse", "main"});
  git_.run({"commit", "-q", "--amend", "-m", "other"});
  git_.run({"tag", "-d", "v1"});
  auto refused = ours({old});
  EXPECT_EQ(refused.exitCode, 1);
  EXPECT_EQ(refused.out, "");
  EXPECT_NE(refused.err.find("remote: git upload-archive: no such ref: " + old), std::string::npos)
      << refused.err;
  for (const char* none : {"nowhere", "main~1", "main^{tree}", "nowhere:src"}) {
    EXPECT_NE(ours({none}).err.find("no such ref: "), std::string::npos) << none;
    EXPECT_NE(archive("", {none}).err.find("no such ref: "), std::string::npos) << none;
  }
  EXPECT_NE(ours({"main:nowhere"}).err.find("not a valid object name: main:nowhere"), std::string::npos);
  EXPECT_NE(ours({"main:empty"}).err.find("not a tree object: "), std::string::npos);
  git_.run({"config", "uploadarchive.allowUnreachable", "true"});
  for (const std::string& name : {old, old + ":src"}) {
    auto mine = ours({name}, " --any"), other = archive("", {name});
    EXPECT_EQ(mine.exitCode, 0) << mine.err;
    EXPECT_EQ(mine.out.size(), other.out.size());
    EXPECT_TRUE(name != old || mine.out == other.out);   // a tree has the time of the request
  }
}

TEST_F(ArchiveGitTest, SaysWhatIsWrongWithWords) {
  fill();
  const std::vector<std::pair<Arguments, std::string>> all = {
      {{}, "name what is to be archived"},
      {{"--format=rar", "main"}, "Unknown archive format 'rar'"},
      {{"-9", "main"}, "Argument not supported for this format"},
      {{"--format=zip", "-12", "main"}, "Argument not supported for this format"},
      {{"--nonsense", "main"}, "does not know the option '--nonsense'"},
      {{"main", ":(icase)X"}, "pathspec magic of ':(icase)X'"},
      {{"main", "../x"}, "'../x' is outside repository"},
      {{"--list", "main"}, "extra command line parameter 'main'"}};
  for (const auto& [words, problem] : all) {
    auto mine = ours(words);
    EXPECT_EQ(mine.exitCode, 1);
    EXPECT_NE(mine.err.find(problem), std::string::npos) << mine.err;
  }
}

TEST_F(ArchiveGitTest, IsGitsOwnOfRandomTrees) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    TestGit git;
    growRandomly(git, seed, 40);
    for (const char* form : {"tar", "zip"}) {
      const Arguments words = {std::string("--format=") + form, "b0"};
      Arguments mine = {"git", "archive", "--remote=file://" + git.path()}, other = mine;
      mine.push_back(std::string("--exec=") + UPLOAD_PACK_STDIO + " --archive");
      mine.insert(mine.end(), words.begin(), words.end());
      other.insert(other.end(), words.begin(), words.end());
      auto a = packmoor::test::runProcess(mine, work_.path());
      EXPECT_TRUE(a.out == packmoor::test::runProcess(other, work_.path()).out) << seed << form << a.err;
    }
  }
}

}  // namespace
}  // namespace packmoor::gitlayer::test
