// module: gitlayer
// Deltas made of arbitrary bytes give back what they were made from. The first byte says where the input
// is cut into base and target, and how often each half is repeated, so that there is something to copy.
#include "gitlayer/delta_encoder.h"
#include "gitlayer/pack_format.h"

#include <kernelio/check.h>
#include <kj/vector.h>

using namespace packmoor::gitlayer;

namespace {

kj::Array<kj::byte> repeated(kj::ArrayPtr<const kj::byte> bytes, size_t times) {
  kj::Vector<kj::byte> result;
  for (size_t i = 0; i < times; ++i) result.addAll(bytes);
  return result.releaseAsArray();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  auto input = kj::arrayPtr(data + 1, size - 1);
  size_t cut = input.size() * (data[0] & 15) / 15;
  auto base = repeated(input.slice(0, cut), 1 + (data[0] >> 4 & 3));
  auto target = repeated(input.slice(data[0] & 128 ? 0 : cut, input.size()), 1 + (data[0] >> 6 & 1));
  size_t bytesMax = data[0] & 32 ? target.size() / 2 : SIZE_MAX;
  auto made = makeDelta(base, target, bytesMax);
  KJ_IF_MAYBE(delta, made) {
    PACKMOOR_CHECK(delta->size() <= bytesMax);
    auto result = kj::heapArray<kj::byte>(target.size());
    PACKMOOR_CHECK(applyDelta(base, *delta, result));
    PACKMOOR_CHECK(result == target);
  }
  return 0;
}
