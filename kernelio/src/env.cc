#include "kernelio/env.h"

#include "kernelio/check.h"

namespace packmoor::kernelio {

uint64_t Random::next() {
  kj::byte bytes[8];
  fill(bytes);
  uint64_t value = 0;
  for (kj::byte byte : bytes) value = value << 8 | byte;  // the same on every machine
  return value;
}

uint64_t Random::below(uint64_t bound) {
  PACKMOOR_CHECK(bound > 0, "a random number below nothing");
  // The lowest 2^64 mod bound values are one too many for some remainders: draw again.
  uint64_t skip = (0 - bound) % bound;
  while (true) {
    uint64_t value = next();
    if (value >= skip) return value % bound;
  }
}

}  // namespace packmoor::kernelio
