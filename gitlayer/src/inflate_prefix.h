// The first bytes of what is in a zlib stream, without inflating the rest.
#pragma once

#include <kj/array.h>

namespace packmoor::gitlayer {

// `in` may end before the stream does. Returns how many bytes of `out` were filled: all, or less
// when the stream or `in` ends earlier or is damaged.
size_t inflatePrefix(kj::ArrayPtr<const kj::byte> in, kj::ArrayPtr<kj::byte> out);

}  // namespace packmoor::gitlayer
