#include "sha1_attacks.h"

#include <bit>

namespace packmoor::gitlayer {

namespace {

using Differences = std::array<Sha1Message, kDisturbanceVectors.size()>;

using Disturbances = std::array<uint32_t, kVectorLead + kSha1Steps>;

constexpr Disturbances follow(const DisturbanceVector& vector) {
  Disturbances bits = {};
  auto at = [&bits](int step) -> uint32_t& { return bits[step + kVectorLead]; };
  const int first = vector.step;
  at(first + 15) = std::rotl(uint32_t(1), vector.bit);
  if (vector.type == 2) at(first + 1) = at(first + 3) = std::rotl(uint32_t(1), vector.bit + 31);
  for (int i = first + 16; i < int(kSha1Steps); ++i) {
    at(i) = std::rotl(at(i - 3) ^ at(i - 8) ^ at(i - 14) ^ at(i - 16), 1);
  }
  for (int i = first - 1; i >= -int(kVectorLead); --i) {
    at(i) = std::rotr(at(i + 16), 1) ^ at(i + 13) ^ at(i + 8) ^ at(i + 2);
  }
  return bits;
}

// Each disturbance begins a local collision: a difference that the five steps behind it take back.
constexpr Sha1Message differencesOf(const DisturbanceVector& vector) {
  const Disturbances bits = follow(vector);
  Sha1Message result = {};
  for (size_t i = 0; i < kSha1Steps; ++i) {
    const uint32_t* at = bits.data() + kVectorLead + i;
    result[i] = at[0] ^ std::rotl(at[-1], 5) ^ at[-2] ^ std::rotl(at[-3] ^ at[-4] ^ at[-5], 30);
  }
  return result;
}

constexpr Differences allDifferences() {
  Differences result = {};
  for (size_t i = 0; i < result.size(); ++i) result[i] = differencesOf(kDisturbanceVectors[i]);
  return result;
}
constexpr Differences kDifferences = allDifferences();

}  // namespace

Disturbances disturbancesOf(const DisturbanceVector& vector) { return follow(vector); }

Sha1Message expandMessage(const kj::byte* block) {
  Sha1Message words;
  for (size_t i = 0; i < 16; ++i) words[i] = sha1Word(block, i);
  for (size_t i = 16; i < kSha1Steps; ++i) {
    words[i] = std::rotl(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
  }
  return words;
}

const Sha1Message& messageDifferences(size_t vector) { return kDifferences[vector]; }

}  // namespace packmoor::gitlayer
