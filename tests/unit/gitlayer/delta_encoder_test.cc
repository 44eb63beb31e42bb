// Goal: a delta gives its target back, and is small where the two are alike. Method: random texts and
// random changes; applyDelta.
#include "gitlayer/delta_encoder.h"

#include "gitlayer/pack_format.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace packmoor::gitlayer::test {
namespace {

kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

// The delta's size; 0 when there is none.
size_t check(const std::string& base, const std::string& target, size_t bytesMax = SIZE_MAX) {
  auto made = makeDelta(bytesOf(base), bytesOf(target), bytesMax);
  KJ_IF_MAYBE(delta, made) {
    EXPECT_LE(delta->size(), bytesMax);
    auto result = kj::heapArray<kj::byte>(target.size());
    EXPECT_TRUE(applyDelta(bytesOf(base), *delta, result));
    EXPECT_EQ(result, bytesOf(target));
    return delta->size();
  }
  return 0;
}

std::string noise(std::mt19937_64& random, size_t bytes, unsigned letters) {
  std::string text;
  while (text.size() < bytes) text += static_cast<char>(random() % letters);
  return text;
}

TEST(DeltaEncoderTest, GivesBackWhatItWasMadeFrom) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    unsigned letters = seed % 3 == 0 ? 2 : 256;
    std::string base = noise(random, 16 + random() % 5000, letters), target = base;
    for (size_t changes = random() % 8; changes > 0; --changes) {
      size_t at = random() % (target.size() + 1);
      size_t bytes = std::min<size_t>(random() % 300, target.size() - at);
      switch (random() % 3) {
        case 0: target.erase(at, bytes); break;
        case 1: target.insert(at, noise(random, random() % 300, letters)); break;
        default: target.insert(random() % (target.size() + 1), target.substr(at, bytes));
      }
    }
    size_t bytes = check(base, target);
    if (target.size() >= 16) { EXPECT_GT(bytes, 0u); }
    if (letters == 256) { EXPECT_LT(bytes, 2500u); }
  }
}

TEST(DeltaEncoderTest, IsSmallWhereTheTwoAreAlike) {
  std::mt19937_64 random(1);
  std::string base = noise(random, 1'000'000, 256), target = base;
  target.insert(500'000, "in the middle");
  target[7] = 'x';
  EXPECT_LT(check(base, target), 300u);
  EXPECT_LT(check(base, base), 200u);
}

TEST(DeltaEncoderTest, MakesNoneWhereItIsNotWorthIt) {
  std::mt19937_64 random(2);
  std::string base = noise(random, 100'000, 256), target = noise(random, 100'000, 256);
  EXPECT_EQ(check(base, target, 50'000), 0u);
  EXPECT_GT(check(base, target), 100'000u);
  EXPECT_EQ(check("short", target), 0u);
  EXPECT_EQ(check(base, "short"), 0u);
  std::string large(kDeltaObjectBytesMax + 1, 'x');
  EXPECT_EQ(check(large, large), 0u);
}

// Each block of the base is like any other, and like none of the target's but for its beginning.
TEST(DeltaEncoderTest, IsFastWhereEverythingIsAlike) {
  std::string base(1 << 20, 'a'), target;
  while (target.size() < 1u << 20) target += std::string(16, 'a') + "b";
  EXPECT_GT(check(base, target), 0u);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
