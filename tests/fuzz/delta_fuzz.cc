// module: gitlayer
// Deltas from arbitrary bytes on a base from the same input: nothing is read or written outside
// its buffer, which the sanitizers watch.
#include "gitlayer/pack_format.h"

#include <kj/array.h>

using namespace packmoor::gitlayer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  size_t baseBytes = std::min<size_t>(data[0], size - 1);
  auto base = kj::heapArray<kj::byte>(data + 1, baseBytes);
  auto delta = kj::heapArray<kj::byte>(data + 1 + baseBytes, size - 1 - baseBytes);
  DeltaHeader header;
  if (decodeDeltaHeader(delta, header) == Decoded::kDone && header.resultBytes < (1u << 20)) {
    auto result = kj::heapArray<kj::byte>(header.resultBytes);
    applyDelta(base, delta, result);
  }
  PackEntryHeader entry;
  if (decodeEntryHeader(delta, entry) == Decoded::kDone) {
    kj::byte encoded[kEntryHeaderBytesMax];
    PackEntryHeader again;
    size_t bytes = encodeEntryHeader(encoded, entry);
    if (decodeEntryHeader(kj::arrayPtr(encoded, bytes), again) != Decoded::kDone ||
        again.bytes != entry.bytes || again.type != entry.type ||
        again.baseDistance != entry.baseDistance) {
      __builtin_trap();
    }
  }
  return 0;
}
