// Goal: sparse specifications choose what gitignore(5) says. Method: a table of patterns and paths;
// random ones against git itself are in upload_filter_git_test.
#include "path_pattern.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer::test {
namespace {

// '+' chosen, '-' not chosen, '0' undecided.
char decide(const std::string& specification, const std::string& path) {
  PathPatterns patterns;
  uint64_t work = 0;
  EXPECT_EQ(patterns.parse(specification), std::nullopt);
  const bool isFolder = !path.empty() && path.back() == '/';
  auto decided =
      patterns.decide(isFolder ? path.substr(0, path.size() - 1) : path, isFolder, work);
  return !decided ? '0' : *decided ? '+' : '-';
}

TEST(PathPatternTest, DecidesAsGitignoreSays) {
  struct Case {
    const char *specification, *path;
    char expected;
  };
  const Case kCases[] = {
      {"a", "a", '+'}, {"a", "b/a", '+'}, {"a", "ab", '0'}, {"/a", "b/a", '0'}, {"/a", "a", '+'},
      {"a/", "a", '0'}, {"a/", "a/", '+'}, {"a/", "b/a/", '+'}, {"a/b", "a/b", '+'},
      {"a/b", "x/a/b", '0'}, {"*", "a/b", '+'}, {"/*", "a/b", '0'}, {"a*", "abc", '+'},
      {"a*c", "a/c", '0'}, {"x/a*c", "x/a/c", '0'}, {"x/a*c", "x/abc", '+'}, {"?", "a", '+'},
      {"?", "ab", '0'}, {"x/?y", "x//y", '0'}, {"[a-c]x", "bx", '+'}, {"[!a-c]x", "bx", '0'},
      {"[^a-c]x", "dx", '+'}, {"[]]", "]", '+'}, {"[a\\]]", "]", '+'}, {"[[:upper:]]", "Q", '+'},
      {"[[:upper:]]", "q", '0'}, {"[[:odd:]]", "q", '0'}, {"[a", "a", '0'}, {"a\\", "a", '0'},
      {"\\*", "*", '+'}, {"\\*", "a", '0'}, {"**/b", "b", '+'}, {"**/b", "a/x/b", '+'},
      {"**/b", "a/xb", '0'}, {"a/**", "a/x/y", '+'}, {"a/**", "a/", '0'}, {"a/**/b", "a/b", '+'},
      {"a/**/b", "a/x/y/b", '+'}, {"a/**/b", "a/x/yb", '0'}, {"a/**b", "a/x/b", '0'},
      {"a/**b", "a/xb", '+'}, {"!a", "a", '-'}, {"a\n!a", "a", '-'}, {"!a\na", "a", '+'},
      {"a\n!a/", "a", '+'}, {"# a", "# a", '0'}, {"\\#a", "#a", '+'}, {"\\!a", "!a", '+'},
      {"a  ", "a", '+'}, {"a\\ ", "a ", '+'}, {"a\r\n", "a", '+'}, {"\xef\xbb\xbf" "a", "a", '+'},
      {"/*", "", '+'}, {"*", "", '+'}, {"a", "", '0'}, {"\n\n", "a", '0'}};
  for (const Case& one : kCases) {
    EXPECT_EQ(decide(one.specification, one.path), one.expected)
        << "'" << one.specification << "' of '" << one.path << "'";
  }
}

// Backtracking would take ages.
TEST(PathPatternTest, TakesTimeInProportionWhateverThePattern) {
  std::string pattern = "x/", path = "x/";
  for (int i = 0; i < 300; ++i) pattern += "*a";
  path += std::string(4000, 'a') + "b";
  PathPatterns patterns;
  EXPECT_EQ(patterns.parse(pattern), std::nullopt);
  uint64_t work = 0;
  EXPECT_EQ(patterns.decide(path, false, work), std::nullopt);
  EXPECT_LE(work, 2 * pattern.size() * path.size());
  EXPECT_GE(work, path.size());
  std::string folders = "x/";
  for (int i = 0; i < 100; ++i) folders += "**/a/";
  std::string deep = "x";
  for (int i = 0; i < 500; ++i) deep += "/a";
  EXPECT_EQ(decide(folders + "b", deep), '0');
}

TEST(PathPatternTest, RefusesWhatIsTooMuch) {
  PathPatterns patterns;
  EXPECT_NE(patterns.parse(std::string(PathPatterns::kBytesMax + 1, '\n')), std::nullopt);
  EXPECT_NE(patterns.parse(std::string(PathPatterns::kPatternBytesMax + 1, 'a')), std::nullopt);
  std::string many;
  for (size_t i = 0; i <= PathPatterns::kPatternsMax; ++i) many += "a\n";
  EXPECT_NE(PathPatterns().parse(many), std::nullopt);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
