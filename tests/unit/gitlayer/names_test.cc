// Goal: repository and ref names are accepted and refused as documented, ref names exactly as
// git check-ref-format does. Method: tables, and git itself over generated names.
#include "gitlayer/repository.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace packmoor::gitlayer {
namespace {

TEST(RepositoryName, AcceptsPathsOfPlainParts) {
  for (const char* name : {"a", "team/project", "a.b-c_D9/x", "x.gitx", "lock", "a-"}) {
    EXPECT_EQ(repositoryNameProblem(name), std::nullopt) << name;
  }
  EXPECT_EQ(repositoryNameProblem(std::string(255, 'a')), std::nullopt);
}

TEST(RepositoryName, SaysWhatIsWrong) {
  for (const char* name : {"", "/a", "a/", "a//b", ".", "..", "../etc", "a/../b", ".a", "a/.b",
                           "a.lock", "a.lock/b", "a.git", "a.git/b", "a b", "a\\b", "a:b",
                           "caf\xc3\xa9", "a\nb"}) {
    EXPECT_NE(repositoryNameProblem(name), std::nullopt) << name;
  }
  EXPECT_NE(repositoryNameProblem(std::string(256, 'a')), std::nullopt);
  EXPECT_EQ(*repositoryNameProblem("a/.b"), "a part of the repository name starts with '.'");
}

TEST(RefName, Table) {
  for (const char* name : {"refs/heads/main", "refs/a", "refs/tags/v1.0", "refs/heads/a/b/c",
                           "refs/heads/@", "refs/heads/a@b", "refs/heads/{x}", "refs/heads/-x",
                           "refs/heads/a.locker", "refs/heads/\xc3\xa9"}) {
    EXPECT_TRUE(isValidRefName(name)) << name;
  }
  for (const char* name : {"", "HEAD", "main", "refs", "refs/", "refs//a", "/refs/a", "refs/a/",
                           "refs/.a", "refs/a.lock", "refs/a.lock/b", "refs/a..b", "refs/a.",
                           "refs/a@{b", "refs/a b", "refs/a~b", "refs/a^b", "refs/a:b", "refs/a?b",
                           "refs/a*b", "refs/a[b", "refs/a\\b", "refs/a\x7f", "refs/a\tb",
                           "heads/a"}) {
    EXPECT_FALSE(isValidRefName(name)) << name;
  }
  EXPECT_TRUE(isValidRefName("HEAD", true));
  EXPECT_TRUE(isValidRefName("refs/" + std::string(kRefNameBytesMax - 5, 'a')));
  EXPECT_FALSE(isValidRefName("refs/" + std::string(kRefNameBytesMax - 4, 'a')));
}

TEST(RefName, AgreesWithGit) {
  const std::vector<std::string> pieces = {"a", ".", "/", "@", "{", ".lock", "~"};
  std::vector<std::string> names = {"refs/"};
  for (size_t begin = 0, round = 0; round < 2; ++round) {
    const size_t end = names.size();
    for (size_t i = begin; i < end; ++i) {
      for (const auto& piece : pieces) names.push_back(names[i] + piece);
    }
    begin = end;
  }
  for (const auto& name : names) {
    const std::string command = "git check-ref-format '" + name + "'";
    EXPECT_EQ(isValidRefName(name), std::system(command.c_str()) == 0) << name;
  }
}

}  // namespace
}  // namespace packmoor::gitlayer
