// Relations between bits of an expanded SHA-1 message that hold in every message of a known attack.
//
// They are derived from the disturbance vectors, and follow from signs. A disturbance changes one bit of
// the state up or down; the message words of the next five steps must take back what becomes of it, so
// that the directions in which their bits change, and with them the bits themselves, depend on each
// other. In detail, step i adds rotl(Q[i], 5), a function of Q[i-1], rotl(Q[i-2], 30) and
// rotl(Q[i-3], 30), and rotl(Q[i-4], 30) to the message's word to make Q[i+1], and at each bit all
// changes add up to nothing:
//   - one change alone: the message's bit goes the other way (or the same, for Q[i+1]);
//   - two changes, and none of the message: opposite directions;
//   - the parity function passes a change on in any direction, the majority in the same direction, and
//     two changes only if they are opposite.
// Left out is what does not hold for certain: where carries may run into a neighbouring disturbance, bit
// 31, whose direction nobody sees, and the steps long before a vector's quiet part, where an attack may
// take other ways. Fewer relations than there are only mean that more blocks are looked at closely; git's
// list has all of these, and a few more.
#pragma once

#include "sha1_attacks.h"

#include <vector>

namespace packmoor::gitlayer {

// Bit `bitA` of word `stepA` and bit `bitB` of word `stepB`, a later one, are equal, or differ.
struct BitRelation {
  uint8_t stepA, bitA, stepB, bitB;
  bool differ;
  uint32_t vectors;   // for whose attacks it holds
};

// Words before and behind these take no part.
constexpr size_t kRelatedFirst = 35, kRelatedLast = 64;

// In the order of their steps. What follows from others is left out.
std::vector<BitRelation> deriveRelations();

}  // namespace packmoor::gitlayer
