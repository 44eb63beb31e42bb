// Stock git as the client of Packmoor's upload-pack: the program upload_pack_stdio serves file:// URLs
// of repositories that git itself made, and git's own server beside it. A test's parameter is the protocol's version.
#pragma once

#include <gtest/gtest.h>
#include <support/git_process.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>
#include <sstream>

namespace packmoor::gitlayer::test {

using packmoor::test::ProcessResult;
using packmoor::test::TempFolder;
using packmoor::test::TestGit;
using Arguments = std::vector<std::string>;

class UploadGitTest : public ::testing::TestWithParam<const char*> {
 protected:
  // A git command with the protocol's version of this test, served by the program.
  ProcessResult ask(const std::string& folder, Arguments command, const std::string& option = "") {
    Arguments all = {"git", "-C", folder, "-c", std::string("protocol.version=") + GetParam(), "-c",
                     "transfer.fsckObjects=true"};
    all.push_back(command[0]);
    std::string server = UPLOAD_PACK_STDIO;
    if (!option.empty()) server += " " + option;
    all.push_back("--upload-pack=" + server);
    all.insert(all.end(), command.begin() + 1, command.end());
    return packmoor::test::runProcess(all, folder);
  }
  void must(const ProcessResult& result) { ASSERT_EQ(result.exitCode, 0) << result.err; }

  std::string url(TestGit& git) { return "file://" + git.path(); }
  std::string in(const std::string& folder, Arguments command) {
    command.insert(command.begin(), {"git", "-C", folder});
    auto result = packmoor::test::runProcess(command, folder);
    EXPECT_EQ(result.exitCode, 0) << result.err;
    return result.out;
  }
  static size_t lines(const std::string& text) {
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  void expectSound(const std::string& folder) {
    std::string found = in(folder, {"fsck", "--full", "--strict"});
    EXPECT_EQ(found.find("missing"), std::string::npos) << found;
  }
  // Clones into `into` and compares everything that refs reach.
  void cloneAndCompare(TestGit& source, const std::string& into, const std::string& option,
                       Arguments how = {"--bare"}) {
    Arguments command = {"clone", "-q"};
    command.insert(command.end(), how.begin(), how.end());
    command.insert(command.end(), {url(source), into});
    must(ask(work_.path(), command, option));
    expectSound(into);
    EXPECT_EQ(in(into, {"rev-list", "--objects", "--all"}),
              source.run({"rev-list", "--objects", "--all"}));
    EXPECT_EQ(in(into, {"symbolic-ref", "HEAD"}), source.run({"symbolic-ref", "HEAD"}));
  }
  // History with folders, a merge, an annotated tag, a submodule and a file that comes back.
  void grow(TestGit& git) {
    std::string first = git.commit("a/b/file", std::string(3000, 'x') + "1\n");
    git.commit("a/c/other", "other\n");
    git.commit("top", "top\n");
    git.run({"tag", "-a", "-m", "one", "v1"});
    git.run({"checkout", "-q", "-b", "side", first});
    git.commit("side/file", "side\n");
    git.run({"checkout", "-q", "main"});
    git.run({"merge", "-q", "-m", "merge", "side"});
    git.run({"update-index", "--add", "--cacheinfo", "160000," + first + ",module"});
    git.commit("a/b/file", std::string(3000, 'x') + "2\n");
    git.commit("a/b/file", std::string(3000, 'x') + "1\n");
    git.run({"tag", "light"});
  }

  // How many random rounds: what is selected does not hang on the protocol.
  uint64_t rounds(uint64_t most) { return std::string(GetParam()) == "2" ? most : 1 + most / 6; }

  // ---- The same for two clients: one served by Packmoor, one by git itself -----------------

  std::string ours() { return work_.path() + "/ours"; }
  std::string theirs() { return work_.path() + "/theirs"; }
  // Begins two clients anew. Their exit codes are equal; true: both succeeded.
  bool cloneBoth(TestGit& source, Arguments how, const std::string& option = "") {
    source.run({"config", "uploadpack.allowFilter", "true"});
    source.run({"config", "uploadpack.allowAnySHA1InWant", "true"});
    for (const std::string& folder : {ours(), theirs()}) std::filesystem::remove_all(folder);
    how.insert(how.begin(), {"clone", "-q", "--no-checkout"});
    how.push_back(url(source));
    Arguments mine = how, other = how;
    mine.push_back(ours());
    other.push_back(theirs());
    return sameEnd(ask(work_.path(), mine, option), askGit(work_.path(), other));
  }
  bool fetchBoth(Arguments how, const std::string& option = "") {
    how.insert(how.begin(), {"fetch", "-q"});
    return sameEnd(ask(ours(), how, option), askGit(theirs(), how));
  }
  ProcessResult askGit(const std::string& folder, Arguments command) {
    command.insert(command.begin(),
                   {"git", "-C", folder, "-c", std::string("protocol.version=") + GetParam()});
    return packmoor::test::runProcess(command, folder);
  }
  bool sameEnd(const ProcessResult& mine, const ProcessResult& other) {
    EXPECT_EQ(mine.exitCode, other.exitCode) << "here: " << mine.err << "git: " << other.err;
    return mine.exitCode == 0;
  }
  static std::vector<std::string> sorted(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    std::sort(lines.begin(), lines.end());
    return lines;
  }
  std::vector<std::string> objectsIn(const std::string& folder) {
    return sorted(in(folder, {"cat-file", "--batch-all-objects", "--batch-check"}));
  }
  // The same objects, refs and cuts; and ours is sound.
  void expectTwins() {
    EXPECT_EQ(objectsIn(ours()), objectsIn(theirs()));
    EXPECT_EQ(in(ours(), {"for-each-ref"}), in(theirs(), {"for-each-ref"}));
    EXPECT_EQ(sorted(packmoor::test::readFile(ours() + "/.git/shallow")),
              sorted(packmoor::test::readFile(theirs() + "/.git/shallow")));
    expectSound(ours());
  }

  TempFolder work_;
};

// A random history with merges, folders and tags, in branches b0, b1... Everything follows from the
// seed. With `clocksLie`, commit dates are in any order.
inline void growRandomly(TestGit& git, uint64_t seed, int commits, bool clocksLie = false) {
  std::mt19937_64 random(seed);
  auto below = [&](size_t bound) {
    return std::uniform_int_distribution<size_t>(0, bound - 1)(random);
  };
  std::ostringstream out;
  for (int i = 1; i <= commits; ++i) {
    int64_t date = 1'600'000'000 + (clocksLie ? int64_t(below(commits)) : i) * 1000;
    std::string text = "change " + std::to_string(i);
    std::string branch = "refs/heads/b" + std::to_string(i < 4 ? 0 : below(4));
    out << "commit " << branch << "\nmark :" << i << "\ncommitter T <t@example.com> " << date
        << " +0000\ndata " << text.size() << "\n" << text << "\n";
    int newest = i - 1;
    if (newest > 0) {
      int parent = 1 + static_cast<int>(below(newest));
      if (below(3) > 0) parent = newest;
      out << "from :" << parent << "\n";
      int other = 1 + static_cast<int>(below(newest));
      if (below(4) == 0 && other != parent) out << "merge :" << other << "\n";
    }
    for (size_t changes = 1 + below(4); changes > 0; --changes) {
      std::string file = "f" + std::to_string(below(5));
      for (size_t depth = below(4); depth > 0; --depth) {
        file = "d" + std::to_string(below(3)) + "/" + file;
      }
      std::string content = "text " + std::to_string(below(60));
      if (below(4) == 0) content += std::string(below(3000), 'x');
      out << "M 100644 inline " << file << "\ndata " << content.size() << "\n" << content << "\n";
    }
  }
  git.run({"fast-import", "--quiet", "--force"}, out.str());
  git.run({"symbolic-ref", "HEAD", "refs/heads/b0"});
  git.run({"tag", "-a", "-m", "t", "t1", "b0~1"});
  git.run({"tag", "-a", "-m", "t", "t2", "t1"});
}

inline std::string protocolName(const ::testing::TestParamInfo<const char*>& info) {
  return std::string("V") + info.param;
}

}  // namespace packmoor::gitlayer::test
