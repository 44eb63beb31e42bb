#include "inflate_prefix.h"

#include <kj/debug.h>
#include <zlib.h>

namespace packmoor::gitlayer {

size_t inflatePrefix(kj::ArrayPtr<const kj::byte> in, kj::ArrayPtr<kj::byte> out) {
  z_stream stream{};
  KJ_REQUIRE(inflateInit(&stream) == Z_OK, "zlib has no memory");
  KJ_DEFER(inflateEnd(&stream));
  stream.next_in = const_cast<kj::byte*>(in.begin());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.begin();
  stream.avail_out = static_cast<uInt>(out.size());
  inflate(&stream, Z_SYNC_FLUSH);
  return out.size() - stream.avail_out;
}

}  // namespace packmoor::gitlayer
