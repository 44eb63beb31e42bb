// What the known collision attacks on SHA-1 leave behind in a message block.
//
// Why: objects are named by SHA-1, and somebody may try to make two of one name. All practical attacks
// follow one of 32 disturbance vectors: differences between two colliding messages that are known
// whichever message one has. So from one block alone its partner can be computed, and if both lead to
// the same state the block was made by an attack. (M. Stevens, "Counter-cryptanalysis", CRYPTO 2013.)
// Computing partners is slow, but most blocks can be seen to have none: for each vector there are
// relations between bits of the expanded message without which no attack works. About one block in
// seventeen fulfils all of some vector. (M. Stevens, D. Shumow, "Speeding up detection of SHA-1
// collision attacks using unavoidable attack conditions", USENIX Security 2017.) These are the vectors
// that git and libgit2 look for.
//
// A set of disturbance vectors is a bit set of 32 bits. Thread-safe.
#pragma once

#include <kj/common.h>

#include <array>
#include <cstdint>

namespace packmoor::gitlayer {

constexpr size_t kSha1BlockBytes = 64;
constexpr size_t kSha1Steps = 80;

struct Sha1State {
  std::array<uint32_t, 5> words;
  bool operator==(const Sha1State&) const = default;
};
constexpr Sha1State kSha1Start = {{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
using Sha1Message = std::array<uint32_t, kSha1Steps>;   // expanded

// Type and place as in the first paper: I(43, 0) is {1, 43, 0}.
struct DisturbanceVector {
  uint8_t type, step, bit;
};
constexpr std::array<DisturbanceVector, 32> kDisturbanceVectors = {{
    {1, 43, 0}, {1, 44, 0}, {1, 45, 0}, {1, 46, 0}, {1, 46, 2}, {1, 47, 0}, {1, 47, 2}, {1, 48, 0},
    {1, 48, 2}, {1, 49, 0}, {1, 49, 2}, {1, 50, 0}, {1, 50, 2}, {1, 51, 0}, {1, 51, 2}, {1, 52, 0},
    {2, 45, 0}, {2, 46, 0}, {2, 46, 2}, {2, 47, 0}, {2, 48, 0}, {2, 49, 0}, {2, 49, 2}, {2, 50, 0},
    {2, 50, 2}, {2, 51, 0}, {2, 51, 2}, {2, 52, 0}, {2, 53, 0}, {2, 54, 0}, {2, 55, 0}, {2, 56, 0},
}};

// The disturbances of steps -5 to 79: the expansion of messages, followed in both directions.
constexpr size_t kVectorLead = 5;
std::array<uint32_t, kVectorLead + kSha1Steps> disturbancesOf(const DisturbanceVector& vector);

inline uint32_t sha1Word(const kj::byte* block, size_t i) {
  uint32_t word;
  __builtin_memcpy(&word, block + 4 * i, sizeof word);
  return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap32(word) : word;
}
Sha1Message expandMessage(const kj::byte* block);
// The differences between the two messages of an attack, by number of its vector.
const Sha1Message& messageDifferences(size_t vector);

// A block that leads from `before` to `after`, and may be of an attack by one of `vectors`.
struct Sha1Suspect {
  Sha1State before, after;
  const kj::byte* block;
  uint32_t vectors;
};
// Whether one of the blocks has a partner. Eight are looked at for little more than one.
bool anyHasPartner(kj::ArrayPtr<const Sha1Suspect> suspects);

}  // namespace packmoor::gitlayer
