// SHA-1 with detection of collision attacks, as fast as the processor's own instructions.
//
// What it refuses is what libgit2's SHA-1 refuses, which is git's too (sha1_attacks.h); it does so about
// twice as fast. Where the processor has no instructions for SHA-1 there is none of this, and
// hashObject() asks libgit2.
#pragma once

#include "sha1_kernel.h"

#include "gitlayer/object_id.h"

#include <kj/array.h>

namespace packmoor::gitlayer {

constexpr size_t kSha1PrefixBytesMax = 32;

// The name of `prefix` and `data`, one behind the other. False: they look as if made to collide, and there
// is no name. Only where hasSha1Kernel(). Thread-safe.
bool checkedSha1(kj::ArrayPtr<const kj::byte> prefix, kj::ArrayPtr<const kj::byte> data,
                 ObjectId& name);

}  // namespace packmoor::gitlayer
