// anyHasPartner() of sha1_attacks.h, for eight suspects at a time, each in a lane of its own.
#include "sha1_attacks.h"

#include <bit>

namespace packmoor::gitlayer {

namespace {

#if defined(__x86_64__)
#define PACKMOOR_LANES_TARGET gnu::target("avx2")
#else
#define PACKMOOR_LANES_TARGET
#endif
#define PACKMOOR_LANES_INLINE [[PACKMOOR_LANES_TARGET, gnu::always_inline]] inline

constexpr size_t kLanes = 8;
using Lanes = uint32_t __attribute__((vector_size(4 * kLanes)));

struct LaneState {
  Lanes a, b, c, d, e;
};

struct Job {
  const Sha1Suspect* suspect = nullptr;
  size_t vector = 0;
};

// Steps before which the messages of an attack have the same state. Each vector has one of them within
// its quiet part.
constexpr size_t kMeetings[] = {58, 65};
constexpr size_t meetingOf(const DisturbanceVector& vector) {
  return vector.type == 1 || vector.step < 50 ? 0 : 1;
}

PACKMOOR_LANES_INLINE Lanes rotate(const Lanes& x, int bits) {
  return x << bits | x >> (32 - bits);
}

// In sums, so that what depends on `d` comes last: going back, it is the newest word.
template <size_t kRound>
PACKMOOR_LANES_INLINE Lanes roundPart(const Lanes& b, const Lanes& c, const Lanes& d) {
  if constexpr (kRound == 0) return (b & c) + 0x5a827999u + (~b & d);
  if constexpr (kRound == 1) return ((b ^ c) ^ d) + 0x6ed9eba1u;
  if constexpr (kRound == 2) return (b & c) + 0x8f1bbcdcu + (d & (b ^ c));
  return ((b ^ c) ^ d) + 0xca62c1d6u;
}

// The state before step `to`, from that before step `from`, both of one round.
template <size_t kRound>
PACKMOOR_LANES_INLINE void stepBack(LaneState& state, size_t from, size_t to, const Lanes* words) {
  auto [a, b, c, d, e] = state;
  while (from-- > to) {
    Lanes next = a;
    a = b;
    b = rotate(c, 2);
    c = d;
    d = e;
    e = next - rotate(a, 5) - words[from] - roundPart<kRound>(b, c, d);
  }
  state = {a, b, c, d, e};
}

template <size_t kRound>
PACKMOOR_LANES_INLINE void stepForward(LaneState& state, size_t from, size_t to, const Lanes* words) {
  auto [a, b, c, d, e] = state;
  for (; from < to; ++from) {
    Lanes next = rotate(a, 5) + roundPart<kRound>(b, c, d) + e + words[from];
    e = d;
    d = c;
    c = rotate(b, 30);
    b = a;
    a = next;
  }
  state = {a, b, c, d, e};
}

PACKMOOR_LANES_INLINE void expand(Lanes* words) {
  for (size_t i = 16; i < kSha1Steps; ++i) {
    words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
  }
}

// From the end back to where the two messages meet, along the given one; from there in both directions
// along its partner, which must lead to the same end.
[[PACKMOOR_LANES_TARGET]] bool anyOf(const Job* jobs, size_t count, size_t meeting) {
  alignas(sizeof(Lanes)) Lanes words[kSha1Steps], partner[kSha1Steps];
  alignas(sizeof(Lanes)) Lanes before[5], after[5];
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const Job& job = jobs[lane < count ? lane : 0];
    const Sha1Message& differences = messageDifferences(job.vector);
    for (size_t i = 0; i < 16; ++i) {
      words[i][lane] = sha1Word(job.suspect->block, i);
      partner[i][lane] = words[i][lane] ^ differences[i];
    }
    for (size_t i = 0; i < 5; ++i) {
      before[i][lane] = job.suspect->before.words[i];
      after[i][lane] = job.suspect->after.words[i];
    }
  }
  expand(words);
  expand(partner);
  LaneState met = {after[0] - before[0], after[1] - before[1], after[2] - before[2],
                   after[3] - before[3], after[4] - before[4]};
  LaneState begin, end;
  if (meeting >= 60) {
    stepBack<3>(met, 80, meeting, words);
    begin = end = met;
    stepForward<3>(end, meeting, 80, partner);
    stepBack<3>(begin, meeting, 60, partner);
    stepBack<2>(begin, 60, 40, partner);
  } else {
    stepBack<3>(met, 80, 60, words);
    stepBack<2>(met, 60, meeting, words);
    begin = end = met;
    stepForward<2>(end, meeting, 60, partner);
    stepForward<3>(end, 60, 80, partner);
    stepBack<2>(begin, meeting, 40, partner);
  }
  stepBack<1>(begin, 40, 20, partner);
  stepBack<0>(begin, 20, 0, partner);
  Lanes differ = (begin.a + end.a) ^ after[0];
  differ |= (begin.b + end.b) ^ after[1];
  differ |= (begin.c + end.c) ^ after[2];
  differ |= (begin.d + end.d) ^ after[3];
  differ |= (begin.e + end.e) ^ after[4];
  for (size_t lane = 0; lane < kLanes; ++lane) {
    if (differ[lane] == 0) return true;
  }
  return false;
}

}  // namespace

bool anyHasPartner(kj::ArrayPtr<const Sha1Suspect> suspects) {
  Job jobs[std::size(kMeetings)][kLanes];
  size_t counts[std::size(kMeetings)] = {};
  for (const Sha1Suspect& suspect : suspects) {
    for (uint32_t left = suspect.vectors; left != 0; left &= left - 1) {
      auto vector = static_cast<size_t>(std::countr_zero(left));
      size_t which = meetingOf(kDisturbanceVectors[vector]);
      jobs[which][counts[which]++] = {&suspect, vector};
      if (counts[which] < kLanes) continue;
      if (anyOf(jobs[which], kLanes, kMeetings[which])) return true;
      counts[which] = 0;
    }
  }
  for (size_t which = 0; which < std::size(kMeetings); ++which) {
    if (counts[which] > 0 && anyOf(jobs[which], counts[which], kMeetings[which])) return true;
  }
  return false;
}

}  // namespace packmoor::gitlayer
