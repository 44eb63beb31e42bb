#include "sha1_kernel.h"

#include "sha1_relations.h"

#include <kernelio/check.h>

#include <kj/debug.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace packmoor::gitlayer {

#if defined(__x86_64__)

namespace {

#define PACKMOOR_SHA_TARGET "sha,sse4.1,avx2"

// ---- the relations, eight at a time --------------------------------------------------------------

// The words that relations name are kept in four registers: 36 to 63 as the instructions for SHA-1 hold
// them, each four steps in reverse order; 35 and 64 where there is room.
constexpr size_t kLanes = 8;
constexpr uint32_t placeOf(uint32_t step) {
  if (step == 35) return 0;
  if (step == 64) return 3;
  return (step - 32) / 4 * 4 + 3 - step % 4;
}
static_assert(kRelatedFirst == 35 && kRelatedLast == 64);

// Relations that are looked at together, each in a lane of its own, are between the same two registers.
struct RegisterPair {
  uint32_t a, b;
};
constexpr RegisterPair kPairs[] = {{0, 0}, {0, 1}, {0, 1}, {0, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1},
                                   {1, 1}, {1, 1}, {1, 2}, {1, 2}, {2, 2}, {2, 2}, {2, 2}, {2, 2},
                                   {2, 3}, {2, 3}, {3, 0}, {3, 3}, {3, 3}, {3, 3}};
constexpr size_t kGroups = std::size(kPairs);

// A lane chooses a word of each register and shifts the bits to the top. The top bit is set where the
// relation does not hold.
struct alignas(32) Group {
  uint32_t placeA[kLanes] = {}, placeB[kLanes] = {};
  uint32_t shiftA[kLanes] = {}, shiftB[kLanes] = {};
  uint32_t flip[kLanes] = {};
  uint32_t vectors[kLanes] = {};   // none in a lane that is not used
};
using Groups = std::array<Group, kGroups>;

Groups makeGroups() {
  Groups groups;
  size_t used[kGroups] = {};
  for (const BitRelation& relation : deriveRelations()) {
    uint32_t a = placeOf(relation.stepA), b = placeOf(relation.stepB);
    size_t at = 0;
    while (at < kGroups &&
           (kPairs[at].a != a / kLanes || kPairs[at].b != b / kLanes || used[at] == kLanes)) {
      ++at;
    }
    PACKMOOR_CHECK(at < kGroups, "a relation has a lane", relation.stepA, relation.stepB);
    const size_t lane = used[at]++;
    Group& group = groups[at];
    group.placeA[lane] = a % kLanes;
    group.placeB[lane] = b % kLanes;
    group.shiftA[lane] = 31u - relation.bitA;
    group.shiftB[lane] = 31u - relation.bitB;
    group.flip[lane] = relation.differ ? 0x80000000u : 0;
    group.vectors[lane] = relation.vectors;
  }
  return groups;
}

#define PACKMOOR_SHA_INLINE [[gnu::always_inline, gnu::target(PACKMOOR_SHA_TARGET)]] inline

PACKMOOR_SHA_INLINE __m256i eight(const uint32_t* values) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
}

// Adds the vectors that have a relation which does not hold, from group kGroup on.
template <size_t kGroup>
PACKMOOR_SHA_INLINE __m256i clear(__m256i cleared, const Groups& groups, const __m256i (&kept)[4]) {
  if constexpr (kGroup < kGroups) {
    const Group& group = groups[kGroup];
    __m256i a = _mm256_permutevar8x32_epi32(kept[kPairs[kGroup].a], eight(group.placeA));
    __m256i b = _mm256_permutevar8x32_epi32(kept[kPairs[kGroup].b], eight(group.placeB));
    __m256i wrong = _mm256_xor_si256(_mm256_sllv_epi32(a, eight(group.shiftA)),
                                     _mm256_sllv_epi32(b, eight(group.shiftB)));
    wrong = _mm256_srai_epi32(_mm256_xor_si256(wrong, eight(group.flip)), 31);
    cleared = _mm256_or_si256(cleared, _mm256_and_si256(wrong, eight(group.vectors)));
    return clear<kGroup + 1>(cleared, groups, kept);
  } else {
    return cleared;
  }
}

// The vectors of whose relations all hold.
PACKMOOR_SHA_INLINE uint32_t suspectVectors(const Groups& groups, const __m128i (&words)[20]) {
  const __m256i kept[4] = {
      _mm256_set_m128i(words[9], _mm_blend_epi16(words[8], words[16], 0xc0)),
      _mm256_set_m128i(words[11], words[10]), _mm256_set_m128i(words[13], words[12]),
      _mm256_set_m128i(words[15], words[14])};
  __m256i cleared = clear<0>(_mm256_setzero_si256(), groups, kept);
  __m128i half = _mm_or_si128(_mm256_castsi256_si128(cleared), _mm256_extracti128_si256(cleared, 1));
  half = _mm_or_si128(half, _mm_shuffle_epi32(half, 0x4e));
  half = _mm_or_si128(half, _mm_shuffle_epi32(half, 0xb1));
  _mm256_zeroupper();   // the instructions for SHA-1 are slower with them in use
  return ~static_cast<uint32_t>(_mm_cvtsi128_si32(half));
}

// ---- the compression -----------------------------------------------------------------------------

struct Registers {
  __m128i abcd, e;
};

// Four steps, and all behind them.
template <int kFour>
PACKMOOR_SHA_INLINE void steps(__m128i (&words)[20], Registers& registers, const __m128i* block) {
  if constexpr (kFour < 4) {
    const __m128i order = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
    words[kFour] = _mm_shuffle_epi8(_mm_loadu_si128(block + kFour), order);
  } else {
    __m128i part = _mm_sha1msg1_epu32(words[kFour - 4], words[kFour - 3]);
    words[kFour] = _mm_sha1msg2_epu32(_mm_xor_si128(part, words[kFour - 2]), words[kFour - 1]);
  }
  __m128i sum = kFour == 0 ? _mm_add_epi32(registers.e, words[0])
                           : _mm_sha1nexte_epu32(registers.e, words[kFour]);
  registers.e = registers.abcd;
  registers.abcd = _mm_sha1rnds4_epu32(registers.abcd, sum, kFour / 5);
  if constexpr (kFour + 1 < 20) steps<kFour + 1>(words, registers, block);
}

PACKMOOR_SHA_INLINE Registers compress(const Registers& before, const kj::byte* block,
                                       __m128i (&words)[20]) {
  Registers after = before;
  steps<0>(words, after, reinterpret_cast<const __m128i*>(block));
  after.e = _mm_sha1nexte_epu32(after.e, before.e);
  after.abcd = _mm_add_epi32(after.abcd, before.abcd);
  return after;
}

PACKMOOR_SHA_INLINE Registers load(const Sha1State& state) {
  const auto* words = reinterpret_cast<const __m128i*>(state.words.data());
  return {_mm_shuffle_epi32(_mm_loadu_si128(words), 0x1b),
          _mm_set_epi32(static_cast<int>(state.words[4]), 0, 0, 0)};
}

PACKMOOR_SHA_INLINE void store(const Registers& registers, Sha1State& state) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state.words.data()),
                   _mm_shuffle_epi32(registers.abcd, 0x1b));
  state.words[4] = static_cast<uint32_t>(_mm_extract_epi32(registers.e, 3));
}

}  // namespace

bool hasSha1Kernel() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 &&
           (b >> 29 & 1) != 0;
  }();
  return has;
}

[[gnu::target(PACKMOOR_SHA_TARGET)]] size_t runSha1(Sha1State& state, const kj::byte* blocks,
                                                    size_t count, Sha1Suspect* suspects) {
  static const Groups groups = makeGroups();
  Registers registers = load(state);
  size_t found = 0;
  for (; count > 0; --count, blocks += kSha1BlockBytes) {
    // Written in any case, so that nothing has to be predicted.
    Sha1Suspect& suspect = suspects[found];
    suspect.block = blocks;
    store(registers, suspect.before);
    __m128i words[20];
    registers = compress(registers, blocks, words);
    store(registers, suspect.after);
    suspect.vectors = suspectVectors(groups, words);
    found += suspect.vectors != 0;
  }
  store(registers, state);
  return found;
}

#else

bool hasSha1Kernel() { return false; }

size_t runSha1(Sha1State&, const kj::byte*, size_t, Sha1Suspect*) {
  KJ_FAIL_REQUIRE("this processor has no instructions for SHA-1");
}

#endif

}  // namespace packmoor::gitlayer
