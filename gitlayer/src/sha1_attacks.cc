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

// A step before which both messages have the same state: the last one where no local collision of the
// vector's quiet part is under way.
constexpr size_t meetingStep(const DisturbanceVector& vector) { return vector.step + 15; }

// Sums, so that what depends on `d` comes last: going back, it is the newest word.
template <size_t kRound>
uint32_t roundPart(uint32_t b, uint32_t c, uint32_t d) {
  if constexpr (kRound == 0) return (b & c) + 0x5a827999 + (~b & d);
  if constexpr (kRound == 1) return ((b ^ c) ^ d) + 0x6ed9eba1;
  if constexpr (kRound == 2) return (b & c) + 0x8f1bbcdc + (d & (b ^ c));
  return ((b ^ c) ^ d) + 0xca62c1d6;
}

// The state before step `to`, from that before step `from`; none of the two is outside the round.
template <size_t kRound>
void stepBack(Sha1State& state, size_t from, size_t to, const Sha1Message& words,
              const Sha1Message& differences) {
  auto [a, b, c, d, e] = state.words;
  while (from-- > to) {
    uint32_t next = a;
    a = b;
    b = std::rotr(c, 30);
    c = d;
    d = e;
    e = next - std::rotl(a, 5) - (words[from] ^ differences[from]) - roundPart<kRound>(b, c, d);
  }
  state.words = {a, b, c, d, e};
}

template <size_t kRound>
void stepForward(Sha1State& state, size_t from, size_t to, const Sha1Message& words,
                 const Sha1Message& differences) {
  auto [a, b, c, d, e] = state.words;
  for (; from < to; ++from) {
    uint32_t next =
        std::rotl(a, 5) + roundPart<kRound>(b, c, d) + e + (words[from] ^ differences[from]);
    e = d;
    d = c;
    c = std::rotl(b, 30);
    b = a;
    a = next;
  }
  state.words = {a, b, c, d, e};
}

}  // namespace

Disturbances disturbancesOf(const DisturbanceVector& vector) { return follow(vector); }

Sha1Message expandMessage(const kj::byte* block) {
  Sha1Message words;
  for (size_t i = 0; i < 16; ++i, block += 4) {
    words[i] = uint32_t(block[0]) << 24 | uint32_t(block[1]) << 16 | uint32_t(block[2]) << 8 | block[3];
  }
  for (size_t i = 16; i < 32; ++i) {
    words[i] = std::rotl(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
  }
  // The same recurrence twice over: four words do not depend on each other.
  for (size_t i = 32; i < kSha1Steps; i += 4) {
    for (size_t j = i; j < i + 4; ++j) {
      words[j] = std::rotl(words[j - 6] ^ words[j - 16] ^ words[j - 28] ^ words[j - 32], 2);
    }
  }
  return words;
}

const Sha1Message& messageDifferences(size_t vector) { return kDifferences[vector]; }

bool hasPartner(const Sha1State& before, const kj::byte* block, const Sha1State& after,
                uint32_t suspects) {
  static constexpr Sha1Message kNoDifferences = {};
  const Sha1Message words = expandMessage(block);
  Sha1State last;
  for (size_t i = 0; i < 5; ++i) last.words[i] = after.words[i] - before.words[i];
  for (; suspects != 0; suspects &= suspects - 1) {
    auto number = static_cast<size_t>(std::countr_zero(suspects));
    const Sha1Message& differences = kDifferences[number];
    const size_t meeting = meetingStep(kDisturbanceVectors[number]);
    // From the end back to where the two meet, and from there in both directions along the partner.
    Sha1State begin = last;
    if (meeting >= 60) {
      stepBack<3>(begin, 80, meeting, words, kNoDifferences);
    } else {
      stepBack<3>(begin, 80, 60, words, kNoDifferences);
      stepBack<2>(begin, 60, meeting, words, kNoDifferences);
    }
    Sha1State end = begin;
    if (meeting >= 60) {
      stepForward<3>(end, meeting, 80, words, differences);
      stepBack<3>(begin, meeting, 60, words, differences);
      stepBack<2>(begin, 60, 40, words, differences);
    } else {
      stepForward<2>(end, meeting, 60, words, differences);
      stepForward<3>(end, 60, 80, words, differences);
      stepBack<2>(begin, meeting, 40, words, differences);
    }
    stepBack<1>(begin, 40, 20, words, differences);
    stepBack<0>(begin, 20, 0, words, differences);
    for (size_t i = 0; i < 5; ++i) end.words[i] += begin.words[i];
    if (end == after) return true;
  }
  return false;
}

}  // namespace packmoor::gitlayer
