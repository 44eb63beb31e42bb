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

// `state` becomes that after the last block. The blocks whose relations hold are written to `suspects`,
// which has room for `count` of them; returns how many they are. Thread-safe.
size_t runSha1(Sha1State& state, const kj::byte* blocks, size_t count, Sha1Suspect* suspects);

}  // namespace packmoor::gitlayer
