// The name of an object whose data comes in pieces, with detection of collision attacks.
//
// Why: a blob of any size can be named without lying in memory. hashObject() names what is there as a whole.
//
// Belongs to one thread at a time.
#pragma once

#include "sha1_attacks.h"

#include "gitlayer/object_id.h"

#include <kj/array.h>

namespace packmoor::gitlayer {

class ObjectHasher {
 public:
  // Whether this processor has what it takes (sha1_kernel.h); libgit2 names whole objects only.
  static bool available();

  // `bytes`: of all pieces together.
  ObjectHasher(ObjectType type, uint64_t bytes);
  // False: what came so far looks as if made to collide.
  bool update(kj::ArrayPtr<const kj::byte> piece);
  // Once, at the end. False: as above.
  bool finish(ObjectId& name);

 private:
  Sha1State state_;
  kj::byte held_[2 * kSha1BlockBytes];   // less than a block that is whole
  size_t filled_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace packmoor::gitlayer
