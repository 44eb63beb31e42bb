// Goal: objects that are named piece by piece get the names that they have as a whole.
#include "object_hasher.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace packmoor::gitlayer {
namespace {

TEST(ObjectHasher, NamesAsHashObjectDoesInPiecesOfAnySize) {
  if (!ObjectHasher::available()) GTEST_SKIP() << "this processor has no instructions for SHA-1";
  std::mt19937_64 random(1);
  std::vector<kj::byte> data(1u << 20);
  for (auto& byte : data) byte = static_cast<kj::byte>(random());
  for (size_t size : {0, 1, 50, 51, 52, 53, 54, 55, 56, 63, 64, 65, 1000, 100'000, 1 << 20}) {
    const auto whole = kj::arrayPtr(data.data(), size);
    for (size_t most : {1, 7, 64, 65, 4096, 1 << 20}) {
      if (most == 1 && size > 1000) continue;
      ObjectHasher hasher(ObjectType::kBlob, size);
      for (size_t at = 0; at < size;) {
        const size_t piece = std::min<size_t>(size - at, random() % (most + 1));
        ASSERT_TRUE(hasher.update(whole.slice(at, at + piece)));
        at += piece;
      }
      ObjectId id;
      ASSERT_TRUE(hasher.finish(id));
      EXPECT_EQ(id, hashObject(ObjectType::kBlob, whole)) << size << " in pieces of " << most;
    }
  }
}

}  // namespace
}  // namespace packmoor::gitlayer
