// What a URL asks for: every path that git uses, and everything that must be refused.
#include "git_url.h"

#include <gtest/gtest.h>

namespace packmoor::rpc {
namespace {

using gitlayer::GitService;

TEST(GitUrl, AdvertisementsAndServices) {
  GitUrl url = parseGitUrl("/team/app.git/info/refs?service=git-upload-pack");
  EXPECT_EQ(url.target, GitTarget::kInfoRefs);
  EXPECT_EQ(url.repository, "team/app.git");
  EXPECT_EQ(url.service, GitService::kUploadPack);
  url = parseGitUrl("/a/info/refs?x=y&service=git-receive-pack&z");
  EXPECT_EQ(url.target, GitTarget::kInfoRefs);
  EXPECT_EQ(url.service, GitService::kReceivePack);
  url = parseGitUrl("/a/git-upload-pack");
  EXPECT_EQ(url.target, GitTarget::kService);
  EXPECT_EQ(url.repository, "a");
  url = parseGitUrl("/a.git/git-receive-pack");
  EXPECT_EQ(url.target, GitTarget::kService);
  EXPECT_EQ(url.service, GitService::kReceivePack);
}

TEST(GitUrl, PercentEncodingIsDecodedOnce) {
  EXPECT_EQ(parseGitUrl("/a%20b/git-upload-pack").repository, "a b");
  EXPECT_EQ(parseGitUrl("/a%2541/git-upload-pack").repository, "a%41");
  EXPECT_EQ(parseGitUrl("/a/info/refs?service=git%2Dupload-pack").target, GitTarget::kInfoRefs);
}

TEST(GitUrl, TraversalAndNonsenseAreRefused) {
  for (const char* path :
       {"/../etc/passwd", "/a/../b/git-upload-pack", "/%2e%2e/a/git-upload-pack",
        "/a/%2e%2e%2fb/git-upload-pack", "/a/./git-upload-pack", "//a/git-upload-pack",
        "/a//git-upload-pack", "/a%00b/git-upload-pack", "/a%0a/git-upload-pack",
        "/a\\b/git-upload-pack", "/a%5cb/git-upload-pack", "/a%2/git-upload-pack",
        "/a%zz/git-upload-pack", "/a/git-upload-pack/", "a/git-upload-pack", "", "*",
        "http://host/a/git-upload-pack", "/a/info/refs?service=git-evil"}) {
    GitUrl url = parseGitUrl(path);
    EXPECT_EQ(url.target, GitTarget::kBad) << path;
    EXPECT_FALSE(url.problem.empty()) << path;
  }
  EXPECT_EQ(parseGitUrl("/" + std::string(5000, 'a')).target, GitTarget::kBad);
}

TEST(GitUrl, OtherPaths) {
  EXPECT_EQ(parseGitUrl("/").target, GitTarget::kRoot);
  EXPECT_EQ(parseGitUrl("/?x").target, GitTarget::kRoot);
  EXPECT_EQ(parseGitUrl("/health").target, GitTarget::kHealth);
  EXPECT_EQ(parseGitUrl("/a/info/refs").target, GitTarget::kDumb);
  EXPECT_EQ(parseGitUrl("/a/HEAD").target, GitTarget::kDumb);
  EXPECT_EQ(parseGitUrl("/a/objects/info/packs").target, GitTarget::kDumb);
  EXPECT_EQ(parseGitUrl("/a").target, GitTarget::kUnknown);
  EXPECT_EQ(parseGitUrl("/info/refs?service=git-upload-pack").target, GitTarget::kUnknown);
  EXPECT_EQ(parseGitUrl("/git-upload-pack").target, GitTarget::kUnknown);
}

}  // namespace
}  // namespace packmoor::rpc
