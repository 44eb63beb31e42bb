// Making deltas (gitformat-pack(5)): an object as copies from another and bytes of its own.
//
// Why: a pack for a shallow or partial client lacks many of the bases against which objects are stored.
// Without new deltas such objects go out whole, several times as large.
//
// One delta at a time: the blocks of 16 bytes of the base lie in a hash table; wherever one of them is
// found in the target it is grown in both directions. Greedy, in time in proportion to the sizes:
// kCandidatesMax places are tried for each byte at most. Pure; allocates a table of half the base's size.
#pragma once

#include <kj/array.h>

namespace packmoor::gitlayer {

constexpr size_t kDeltaObjectBytesMax = 16u << 20;   // of base and target each

// nullptr: there is no delta of at most `bytesMax`, or an object is too large. applyDelta() undoes it.
kj::Maybe<kj::Array<kj::byte>> makeDelta(kj::ArrayPtr<const kj::byte> base,
                                         kj::ArrayPtr<const kj::byte> target, size_t bytesMax);

}  // namespace packmoor::gitlayer
