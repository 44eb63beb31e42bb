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

// Writes "<type> <size>\0", at most kSha1PrefixBytesMax bytes; returns how many.
size_t writeObjectPrefix(ObjectType type, uint64_t bytes, kj::byte* out);

// Adds whole blocks and collects suspects. `blocks` live until done().
class CheckedBlocks {
 public:
  Sha1State state = kSha1Start;

  // False: one of the blocks so far was made by an attack.
  bool add(const kj::byte* blocks, size_t count);
  bool done();
  // Pads the `filled` bytes in `last`, less than a block with room for two, and adds them: the end of
  // `bytes` bytes. False: as above.
  bool finish(kj::byte* last, size_t filled, uint64_t bytes, ObjectId& name);

 private:
  static constexpr size_t kRunBlocks = 64;

  Sha1Suspect suspects_[2 * kRunBlocks];
  size_t found_ = 0;
};

// The name of `prefix` and `data`, one behind the other. False: they look as if made to collide, and there
// is no name. Only where hasSha1Kernel(). Thread-safe.
bool checkedSha1(kj::ArrayPtr<const kj::byte> prefix, kj::ArrayPtr<const kj::byte> data,
                 ObjectId& name);

}  // namespace packmoor::gitlayer
