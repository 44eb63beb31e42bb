// Goal: what git fsck calls broken is refused with its message id, and every name is found.
// Method: objects written by hand.
#include "gitlayer/object_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using ::testing::StartsWith;

const std::string kA(40, 'a'), kB(40, 'b');

const char* check(ObjectType type, const std::string& text, std::vector<ObjectLink>* links = nullptr) {
  std::vector<ObjectLink> own;
  return checkObject(type,
                     kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()),
                     links != nullptr ? *links : own);
}

std::string entry(const std::string& mode, const std::string& name, char id = '\x11') {
  return mode + " " + name + std::string(1, '\0') + std::string(20, id);
}

TEST(ObjectCheck, Commits) {
  std::string rest = "author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nmessage";
  std::vector<ObjectLink> links;
  EXPECT_EQ(check(ObjectType::kCommit,
                  "tree " + kA + "\nparent " + kB + "\nparent " + kA + "\n" + rest, &links),
            nullptr);
  ASSERT_EQ(links.size(), 3u);
  EXPECT_EQ(links[0].type, ObjectType::kTree);
  EXPECT_EQ(links[1].type, ObjectType::kCommit);
  EXPECT_EQ(links[1].id.bytes[0], 0xbb);
  EXPECT_EQ(check(ObjectType::kCommit, "tree " + kA + "\n" + rest), nullptr);
  EXPECT_THAT(check(ObjectType::kCommit, ""), StartsWith("unterminatedHeader"));
  EXPECT_THAT(check(ObjectType::kCommit, rest), StartsWith("missingTree"));
  EXPECT_THAT(check(ObjectType::kCommit, "tree " + kA.substr(1) + "\n" + rest),
              StartsWith("badTreeSha1"));
  EXPECT_THAT(check(ObjectType::kCommit, "tree " + kA + "\nparent x\n" + rest),
              StartsWith("badParentSha1"));
  EXPECT_THAT(check(ObjectType::kCommit, "tree " + kA + "\ncommitter A <a@b> 1 +0000\n\n"),
              StartsWith("missingAuthor"));
  EXPECT_THAT(check(ObjectType::kCommit, "tree " + kA + "\nauthor A <a> 1 +0000\n\n"),
              StartsWith("missingCommitter"));
  EXPECT_THAT(check(ObjectType::kCommit, "tree " + kA + "\nauthor A <a> 1 +0000\nauthor A <a> 1 +0000\n\n"),
              StartsWith("multipleAuthors"));
  EXPECT_THAT(check(ObjectType::kCommit, "tree " + kA + "\n" + rest + std::string(1, '\0')),
              StartsWith("nulInCommit"));
  EXPECT_THAT(check(ObjectType::kCommit, "tree " + kA + "\nauthor " + std::string(1, '\0') +
                                             "\ncommitter x\n\n"),
              StartsWith("nulInHeader"));
}

TEST(ObjectCheck, People) {
  auto person = [](const std::string& text) {
    const char* tag = check(ObjectType::kTag, "object " + kA + "\ntype tree\ntag v1\ntagger " + text +
                                                  "\n\nm");
    const char* commit = check(ObjectType::kCommit, "tree " + kA + "\nauthor A <a> 1 +0000\ncommitter " +
                                                        text + "\n\nm");
    EXPECT_STREQ(tag, commit);
    return tag;
  };
  for (const char* good : {"A <a@b> 1 +0000", " <> 0 -1200", "A  <a b>  7 +0000", "A <a> +5 +0000",
                           "A <a> 9223372036854775807 +0000"}) {
    EXPECT_EQ(person(good), nullptr) << good;
  }
  EXPECT_THAT(person("<a> 1 +0000"), StartsWith("missingNameBeforeEmail"));
  EXPECT_THAT(person("A > <a> 1 +0000"), StartsWith("badName"));
  EXPECT_THAT(person("A 1 +0000"), StartsWith("missingEmail"));
  EXPECT_THAT(person(""), StartsWith("missingEmail"));
  EXPECT_THAT(person("A<a> 1 +0000"), StartsWith("missingSpaceBeforeEmail"));
  EXPECT_THAT(person("A <a 1 +0000"), StartsWith("badEmail"));
  EXPECT_THAT(person("A <a<b> 1 +0000"), StartsWith("badEmail"));
  EXPECT_THAT(person("A <a>1 +0000"), StartsWith("missingSpaceBeforeDate"));
  EXPECT_THAT(person("A <a>"), StartsWith("missingSpaceBeforeDate"));
  EXPECT_THAT(person("A <a> 01 +0000"), StartsWith("zeroPaddedDate"));
  EXPECT_THAT(person("A <a> -1 +0000"), StartsWith("badDateOverflow"));
  EXPECT_THAT(person("A <a> 9223372036854775808 +0000"), StartsWith("badDateOverflow"));
  EXPECT_THAT(person("A <a> 99999999999999999999 +0000"), StartsWith("badDateOverflow"));
  EXPECT_THAT(person("A <a> x +0000"), StartsWith("badDate:"));
  EXPECT_THAT(person("A <a> 1"), StartsWith("badDate:"));
  for (const char* zone : {"", "0000", "+000", "+00000", "+0a00", " +0000", "+0000 "}) {
    EXPECT_THAT(person(std::string("A <a> 1 ") + zone), StartsWith("badTimezone")) << zone;
  }
}

TEST(ObjectCheck, Tags) {
  std::vector<ObjectLink> links;
  EXPECT_EQ(check(ObjectType::kTag,
                  "object " + kA + "\ntype tree\ntag v1\ntagger A <a@b> 1 +0000\n\nm", &links),
            nullptr);
  ASSERT_EQ(links.size(), 1u);
  EXPECT_EQ(links[0].type, ObjectType::kTree);
  EXPECT_EQ(check(ObjectType::kTag, "object " + kA + "\ntype commit\ntag v0.99\n\nold"), nullptr);
  // git forgets what is wrong with a tagger when another header follows.
  const std::string badTagger = "object " + kA + "\ntype tree\ntag v1\ntagger A <a@b> x +0000\n";
  EXPECT_EQ(check(ObjectType::kTag, badTagger + "more x\n\nm"), nullptr);
  EXPECT_THAT(check(ObjectType::kTag, badTagger + "\nm"), StartsWith("badDate"));
  EXPECT_THAT(check(ObjectType::kTag, badTagger), StartsWith("badDate"));
  EXPECT_THAT(check(ObjectType::kTag, "type tree\n\n"), StartsWith("missingObject"));
  EXPECT_THAT(check(ObjectType::kTag, "object x\n\n"), StartsWith("badObjectSha1"));
  EXPECT_THAT(check(ObjectType::kTag, "object " + kA + "\n\n"), StartsWith("missingTypeEntry"));
  EXPECT_THAT(check(ObjectType::kTag, "object " + kA + "\ntype x\ntag y\n\n"),
              StartsWith("badType"));
  EXPECT_THAT(check(ObjectType::kTag, "object " + kA + "\ntype blob\n\n"),
              StartsWith("missingTagEntry"));
}

TEST(ObjectCheck, Trees) {
  std::vector<ObjectLink> links;
  EXPECT_EQ(check(ObjectType::kTree,
                  entry("100644", "a") + entry("100644", "a.c") +
                      entry("40000", "b", '\x22') + entry("160000", "c", '\x33') +
                      entry("120000", "d", '\x44'),
                  &links),
            nullptr);
  ASSERT_EQ(links.size(), 4u);  // the submodule is not among them
  EXPECT_EQ(links[2].type, ObjectType::kTree);
  EXPECT_EQ(links[3].type, ObjectType::kBlob);
  EXPECT_EQ(check(ObjectType::kTree, ""), nullptr);
  // A tree sorts as if its name ended in '/'.
  EXPECT_EQ(check(ObjectType::kTree, entry("100644", "a-b") + entry("40000", "a")), nullptr);
  EXPECT_THAT(check(ObjectType::kTree, entry("40000", "a") + entry("100644", "a-b")),
              StartsWith("treeNotSorted"));
  EXPECT_THAT(check(ObjectType::kTree, entry("100644", "b") + entry("100644", "a")),
              StartsWith("treeNotSorted"));
  EXPECT_THAT(check(ObjectType::kTree, entry("100644", "a") + entry("40000", "a")),
              StartsWith("duplicateEntries"));
  EXPECT_THAT(check(ObjectType::kTree, entry("100644", "")), StartsWith("emptyName"));
  EXPECT_THAT(check(ObjectType::kTree, entry("100644", "a/b")), StartsWith("fullPathname"));
  EXPECT_THAT(check(ObjectType::kTree, entry("40000", ".")), StartsWith("hasDot:"));
  EXPECT_THAT(check(ObjectType::kTree, entry("40000", "..")), StartsWith("hasDotdot"));
  EXPECT_THAT(check(ObjectType::kTree, entry("40000", ".Git")), StartsWith("hasDotgit"));
  for (const char* name : {".git ", ".GIT. .", "git~1", "GIT~1.", "x\\.git", ".git:x", ".git\xff",
                           ".g\u200cit", "\ufeff.git"}) {
    EXPECT_THAT(check(ObjectType::kTree, entry("100644", name)), StartsWith("hasDotgit")) << name;
  }
  for (const char* name : {".gitx", "git~2", "git", ".g\u200bit", ".gi", "\xff.git", ".gitmodules"}) {
    EXPECT_EQ(check(ObjectType::kTree, entry("100644", name)), nullptr) << name;
  }
  EXPECT_THAT(check(ObjectType::kTree, entry("120000", ".GitModules")),
              StartsWith("gitmodulesSymlink"));
  EXPECT_EQ(check(ObjectType::kTree, entry("100644", ".gitignore")), nullptr);
  EXPECT_THAT(check(ObjectType::kTree, entry("100644", "a") + entry("100644", "a-") +
                                           entry("100644", "a-.b") + entry("100644", "a.c") +
                                           entry("40000", "a")),
              StartsWith("duplicateEntries"));
  links.clear();
  EXPECT_EQ(check(ObjectType::kTree, entry("20000", "a") + entry("170000", "b"), &links), nullptr);
  EXPECT_EQ(links.size(), 0u);  // git has them for submodules
  EXPECT_THAT(check(ObjectType::kTree, entry("040000", "a")), StartsWith("zeroPaddedFilemode"));
  EXPECT_THAT(check(ObjectType::kTree, entry("100644", "a", '\0')), StartsWith("nullSha1"));
  std::string good = entry("100644", "name");
  for (size_t n = 1; n < good.size(); ++n) {
    EXPECT_THAT(check(ObjectType::kTree, good.substr(0, n)), StartsWith("badTree")) << n;
  }
  EXPECT_THAT(check(ObjectType::kTree, entry("", "a")), StartsWith("badTree"));
  // git reads modes of any length; the last 32 bits count.
  links.clear();
  EXPECT_EQ(check(ObjectType::kTree, entry("7100644", "a") + entry("40000000000", "b") +
                                         entry("70000000000040000", "c"), &links), nullptr);
  ASSERT_EQ(links.size(), 2u);
  EXPECT_EQ(links[0].type, ObjectType::kBlob);
  EXPECT_EQ(links[1].type, ObjectType::kTree);
  EXPECT_THAT(check(ObjectType::kTree, entry("10064x", "a")), StartsWith("badTree"));
}

TEST(ObjectCheck, CommitterSeconds) {
  auto seconds = [](const std::string& text) {
    return committerSeconds(
        kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()));
  };
  EXPECT_EQ(seconds("tree x\nauthor A <a> 5 +0\ncommitter A <a@b> 17 +0000\n\n"), 17);
  EXPECT_EQ(seconds("tree x\ncommitter A\n\n"), 0);
  EXPECT_EQ(seconds("tree x\ncommitter A <a> -5\n\n"), 0);
  EXPECT_EQ(seconds("tree x\n\ncommitter A <a> 5\n"), 0);
  EXPECT_EQ(seconds(""), 0);
}

}  // namespace
}  // namespace packmoor::gitlayer
