// Goal: a repository goes to a volume by weight, and to none that is short of room or without a quorum
// while there is another; the same for the same inputs. Method: the pure function, on tables.
#include "placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace packmoor::rpc {
namespace {

constexpr uint64_t kGiB = 1ull << 30;

PlacementVolume volume(const char* name, uint32_t weight = 100, uint64_t repositories = 0) {
  PlacementVolume result;
  result.name = name;
  result.weight = weight;
  result.repositories = repositories;
  result.writeQuorum = 2;
  result.connected = 3;
  result.availableBytes = 100 * kGiB;
  result.totalBytes = 200 * kGiB;
  return result;
}

TEST(Placement, NothingTakesARepositoryWithoutAVolumeOrWithoutWeight) {
  EXPECT_EQ(placeRepository({}), "");
  EXPECT_EQ(placeRepository({volume("a", 0), volume("b", 0)}), "");
}

TEST(Placement, RepositoriesAreSpreadByWeight) {
  std::vector<PlacementVolume> volumes{volume("a", 100), volume("b", 300), volume("c", 0)};
  std::map<std::string, int> got;
  for (int i = 0; i < 400; ++i) {
    const std::string name = placeRepository(volumes);
    ++got[name];
    for (auto& v : volumes) v.repositories += v.name == name;
  }
  EXPECT_EQ(got, (std::map<std::string, int>{{"a", 100}, {"b", 300}}));
}

TEST(Placement, AVolumeThatIsShortOfSpaceIsAvoided) {
  auto full = volume("a"), other = volume("b", 100, 1000);
  full.availableBytes = kGiB - 1;
  EXPECT_FALSE(hasRoom(full));
  EXPECT_EQ(placeRepository({full, other}), "b");
  full.availableBytes = 9 * kGiB;   // of 200: less than 5 in a hundred
  EXPECT_EQ(placeRepository({full, other}), "b");
  full.availableBytes = 10 * kGiB;
  EXPECT_EQ(placeRepository({full, other}), "a");
  full.availableBytes = 0;
  EXPECT_EQ(placeRepository({full}), "a");   // there is no other
}

TEST(Placement, AVolumeWithoutAQuorumIsAvoidedMoreThanAFullOne) {
  auto headless = volume("a"), full = volume("b", 100, 7);
  headless.connected = 1;
  full.availableBytes = 0;
  EXPECT_EQ(placeRepository({headless, full}), "b");
  EXPECT_EQ(placeRepository({headless}), "a");
}

TEST(Placement, RoomDecidesBetweenEquals) {
  auto a = volume("a"), b = volume("b");
  EXPECT_EQ(placeRepository({b, a}), "a");
  b.availableBytes = 150 * kGiB;
  EXPECT_EQ(placeRepository({a, b}), "b");
  b.availableBytes = *a.availableBytes + 1000;   // no difference that matters
  EXPECT_EQ(placeRepository({a, b}), "a");
}

TEST(Placement, AMemberThatDidNotTellIsTakenToHaveRoom) {
  auto a = volume("a"), b = volume("b");
  a.availableBytes.reset();
  a.totalBytes.reset();
  EXPECT_TRUE(hasRoom(a));
  EXPECT_EQ(placeRepository({a, volume("b", 100, 1)}), "a");
}

TEST(Placement, TheOrderOfTheInputsDoesNotMatter) {
  std::vector<PlacementVolume> volumes{volume("a", 7, 3), volume("b", 14, 6), volume("c", 21, 9),
                                       volume("d", 1, 1)};
  const std::string chosen = placeRepository(volumes);
  EXPECT_EQ(chosen, "a");
  std::sort(volumes.begin(), volumes.end(), [](auto& x, auto& y) { return x.name < y.name; });
  do {
    EXPECT_EQ(placeRepository(volumes), chosen);
  } while (std::next_permutation(volumes.begin(), volumes.end(),
                                 [](auto& x, auto& y) { return x.name < y.name; }));
}

}  // namespace
}  // namespace packmoor::rpc
