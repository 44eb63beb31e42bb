// SHA-1 over whole blocks by the processor's own instructions, with the relations of sha1_attacks.h
// looked at on the way.
//
// The instructions for SHA-1 leave most of the processor idle while one waits for the other; the relations
// are looked at in that time, eight in one instruction, so that they cost little.
#pragma once

#include "sha1_attacks.h"

namespace packmoor::gitlayer {

// Whether this processor has what runSha1() needs.
bool hasSha1Kernel();

struct Sha1Run {
  size_t blocks = 0;       // that were compressed
  uint32_t suspects = 0;   // of the last of them; if any, the run ended there
};
// `state` becomes that after the last block, `before` that before it. Thread-safe.
Sha1Run runSha1(Sha1State& state, Sha1State& before, const kj::byte* blocks, size_t count);

}  // namespace packmoor::gitlayer
