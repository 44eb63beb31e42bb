#include "kernelio/seeded_random.h"

#include <bit>

namespace packmoor::kernelio {

SeededRandom::SeededRandom(uint64_t seed) {
  for (uint64_t& word : state_) {  // splitmix64
    seed += 0x9e3779b97f4a7c15;
    uint64_t mixed = seed;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    word = mixed ^ (mixed >> 31);
  }
}

uint64_t SeededRandom::step() {  // xoshiro256**
  uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void SeededRandom::fill(kj::ArrayPtr<kj::byte> bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    uint64_t word = step();
    for (int shift = 56; shift >= 0 && at < bytes.size(); shift -= 8) {
      bytes[at++] = static_cast<kj::byte>(word >> shift);
    }
  }
}

bool SeededRandom::chance(uint32_t perMillion) {
  // No draw for what never happens: switching a fault off leaves the rest of the run alone.
  return perMillion > 0 && below(1'000'000) < perMillion;
}

SeededRandom SeededRandom::split() { return SeededRandom(next()); }

}  // namespace packmoor::kernelio
