// module: gitlayer
// Where a pack ends is the same in pieces of any size; the first byte gives one.
#include "pack_end.h"

#include <kernelio/check.h>

#include <algorithm>

using namespace packmoor::gitlayer;

namespace {

size_t taken(kj::ArrayPtr<const kj::byte> bytes, size_t piece, bool& ended) {
  PackEnd end;
  size_t at = 0;
  while (at < bytes.size() && !end.ended()) {
    const size_t given = std::min(piece, bytes.size() - at);
    const size_t took = end.take(bytes.slice(at, at + given));
    PACKMOOR_CHECK(took == given || end.ended());
    at += took;
  }
  ended = end.ended();
  return at;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  auto bytes = kj::arrayPtr(data + 1, data + size);
  bool whole = false, pieces = false;
  const size_t atOnce = taken(bytes, SIZE_MAX, whole);
  const size_t piecemeal = taken(bytes, size_t{data[0]} + 1, pieces);
  // What is no pack ends where that is found, which depends on the pieces; a pack does not.
  PACKMOOR_CHECK(whole == pieces && piecemeal <= atOnce);
  PACKMOOR_CHECK(whole || piecemeal == atOnce);
  return 0;
}
