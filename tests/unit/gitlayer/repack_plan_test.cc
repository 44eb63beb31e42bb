// Goal: the packs that are merged are few enough to be worth it, small enough to be bounded, and leave a
// geometric progression. Method: the pure function, on sizes.
#include "repack_plan.h"

#include "test_log.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace packmoor::gitlayer::test {
namespace {

std::vector<PackRow> packsOf(const std::vector<uint64_t>& sizes) {
  std::vector<PackRow> rows;
  for (const uint64_t size : sizes) {
    PackRow row;
    row.pack = txnId(rows.size());
    row.packBytes = size;
    rows.push_back(row);
  }
  return rows;
}

std::vector<uint64_t> chosen(const std::vector<uint64_t>& sizes, uint32_t packsMin = 2,
                             uint64_t bytesMax = 1'000'000) {
  std::vector<uint64_t> result;
  for (const auto& row : chooseRepack(packsOf(sizes), {packsMin, bytesMax})) {
    result.push_back(row.packBytes);
  }
  std::sort(result.begin(), result.end());
  return result;
}

using Sizes = std::vector<uint64_t>;

TEST(RepackPlanTest, LeavesAGeometricProgressionAlone) {
  EXPECT_EQ(chosen({}), Sizes());
  EXPECT_EQ(chosen({100}), Sizes());
  EXPECT_EQ(chosen({100, 10, 20, 50}), Sizes());
}

TEST(RepackPlanTest, MergesUntilItIsOne) {
  EXPECT_EQ(chosen({10, 10}), Sizes({10, 10}));
  EXPECT_EQ(chosen({10, 10, 100}), Sizes({10, 10}));
  EXPECT_EQ(chosen({100, 10, 30, 12, 1000}), Sizes({10, 12, 30, 100})) << "52 and 100 would not do";
  EXPECT_EQ(chosen({10, 30, 40, 161}), Sizes({10, 30, 40}));
  EXPECT_EQ(chosen({10, 30, 40, 159}), Sizes({10, 30, 40, 159}));
}

TEST(RepackPlanTest, KeepsItsBounds) {
  EXPECT_EQ(chosen({10, 10, 10}, 4), Sizes());
  EXPECT_EQ(chosen({10, 10, 10, 10}, 4), Sizes({10, 10, 10, 10}));
  EXPECT_EQ(chosen({10, 10, 500, 600}, 2, 550), Sizes({10, 10})) << "one is too large for itself";
  EXPECT_EQ(chosen({10, 10, 20, 40}, 2, 45), Sizes({10, 10, 20})) << "together they are";
  EXPECT_EQ(chosen({10, 10}, 0), Sizes({10, 10})) << "one pack is never merged";
}

}  // namespace
}  // namespace packmoor::gitlayer::test
