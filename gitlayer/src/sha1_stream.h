// Sha1Stream: SHA-1 of a byte stream, for the trailers of packs and pack indexes.
//
// A trailer guards against accidents, so this is libcrypto's fast SHA-1 without collision
// detection. Objects are named by hashObject(), which has it.
#pragma once

#include "gitlayer/object_id.h"

#include <kj/array.h>

namespace packmoor::gitlayer {

class Sha1Stream {
 public:
  Sha1Stream();
  ~Sha1Stream() noexcept;
  KJ_DISALLOW_COPY(Sha1Stream);

  void update(kj::ArrayPtr<const kj::byte> bytes);
  ObjectId finish();  // once; nothing may be added after

 private:
  void* context_;
};

}  // namespace packmoor::gitlayer
