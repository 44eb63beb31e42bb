// Goal: filters decide by size, depth, type and path, and patterns that take too long are refused.
// What whole walks select is in upload_filter_git_test, what is wrong with a filter in
// upload_partial_test.
#include "object_filter.h"

#include <gtest/gtest.h>
#include <kj/exception.h>

namespace packmoor::gitlayer::test {
namespace {

ObjectFilter::Place at(uint32_t depth, const std::string& path = "") {
  return {depth, 0, path};
}

TEST(ObjectFilterTest, DecidesByDepthAndType) {
  ObjectFilter filter;
  ASSERT_EQ(filter.parse("combine:tree:2+object:type=tree"), std::nullopt);
  EXPECT_FALSE(filter.sendsCommits());
  EXPECT_TRUE(filter.byDepth());
  EXPECT_TRUE(filter.omitsTrees());
  auto root = at(0), below = at(1), deep = at(2);
  EXPECT_TRUE(filter.sendsTree(root));
  EXPECT_TRUE(filter.opensTree(root));
  EXPECT_TRUE(filter.sendsTree(below));
  EXPECT_FALSE(filter.opensTree(below));
  EXPECT_FALSE(filter.sendsTree(deep));
}

TEST(ObjectFilterTest, FoldersHandDownWhetherTheyAreChosen) {
  ObjectFilter filter;
  ASSERT_EQ(filter.parse("sparse:oid=x"), std::nullopt);
  ASSERT_EQ(filter.setSparse(0, "/a/\n!/a/b/\n"), std::nullopt);
  auto a = at(1, "a"), b = at(2, "a/b");
  EXPECT_TRUE(filter.sendsTree(a));
  EXPECT_EQ(a.inherited, 1);
  b.inherited = a.inherited;
  EXPECT_TRUE(filter.sendsTree(b));
  EXPECT_EQ(b.inherited, 0);
}

TEST(ObjectFilterTest, RefusesPatternsThatTakeTooLong) {
  ObjectFilter filter;
  ASSERT_EQ(filter.parse("sparse:oid=x"), std::nullopt);
  ASSERT_EQ(filter.setSparse(0, "/a*b*c\n"), std::nullopt);
  filter.setWorkMax(1000);
  auto place = at(1, "a" + std::string(50, 'b'));
  auto refused = kj::runCatchingExceptions([&]() {
    for (int i = 0; i < 1000; ++i) filter.sendsTree(place);
  });
  KJ_IF_MAYBE(exception, refused) {
    EXPECT_NE(std::string(exception->getDescription().cStr()).find("take too long"),
              std::string::npos);
  } else {
    FAIL() << "not refused";
  }
  EXPECT_LT(filter.work(), 2000u);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
