// SeededRandom: a generator whose whole output follows from its seed.
//
// Why: one seed must give one run on every machine, so the algorithm is fixed here
// (xoshiro256** by Blackman and Vigna, seeded through splitmix64) and not left to a library.
// It is for simulations and tests; it must never make keys, tokens or identifiers.
#pragma once

#include "kernelio/env.h"

namespace packmoor::kernelio {

class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed);

  void fill(kj::ArrayPtr<kj::byte> bytes) override;

  // True in `perMillion` of a million calls.
  bool chance(uint32_t perMillion);
  // A generator for a part of the simulation, so that one part's draws do not shift another's.
  SeededRandom split();

 private:
  uint64_t step();

  uint64_t state_[4];
};

}  // namespace packmoor::kernelio
