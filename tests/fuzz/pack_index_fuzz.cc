// module: gitlayer
// A pack index from arbitrary bytes, beside a pack of arbitrary bytes: every read gives
// something or throws a sentence. Input: the index's length in 2 bytes, the index, the pack.
#include "pack_file.h"

using namespace packmoor::gitlayer;

namespace {

std::shared_ptr<CheckedBytes> bytesOf(const uint8_t* data, size_t size, const char* what) {
  return CheckedBytes::inMemory(kj::heapArray<const kj::byte>(data, size), what);
}

void readAll(const std::shared_ptr<CheckedBytes>& indexBytes,
             const std::shared_ptr<CheckedBytes>& packBytes) {
  PackIndex index(indexBytes);
  auto bases = std::make_shared<DeltaBaseCache>();
  PackFile file([&]() { return PackFile::Parts{packBytes, indexBytes}; }, index.count(), bases);
  constexpr uint32_t kObjectsMax = 64;
  for (uint32_t i = 0; i < index.count() && i < kObjectsMax; ++i) {
    const ObjectId id = index.name(i);
    kj::runCatchingExceptions([&]() { index.offset(i); });
    kj::runCatchingExceptions([&]() { file.header(id); });
    kj::runCatchingExceptions([&]() { file.stored(id); });
    kj::runCatchingExceptions([&]() { file.read(id); });
  }
  kj::runCatchingExceptions([&]() { file.exists(ObjectId()); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const size_t indexBytes = std::min<size_t>(data[0] | data[1] << 8, size - 2);
  auto index = bytesOf(data + 2, indexBytes, "index");
  auto pack = bytesOf(data + 2 + indexBytes, size - 2 - indexBytes, "pack");
  kj::runCatchingExceptions([&]() { readAll(index, pack); });
  return 0;
}
