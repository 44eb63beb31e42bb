// module: replicator
// Feeds bytes to the sidecar's decoder, as they are and with their checksums made right. What is
// accepted must encode to the same bytes.
//
// Corpus: sidecars of extents of 0, 1 and 3 blocks. Made by running this program on any file
// with the environment variable PACKMOOR_FUZZ_CORPUS set to a folder to fill.
#include "replicator/extent_format.h"

#include "kernelio/check.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

using namespace packmoor::replicator;  // NOLINT: one program, one file

namespace {

void decode(const ExtentId& id, kj::ArrayPtr<const kj::byte> bytes) {
  kj::Maybe<format::Sidecar> sidecar;
  kj::runCatchingExceptions([&]() { sidecar = format::parseSidecar(id, bytes); });
  KJ_IF_MAYBE (parsed, sidecar) {
    auto again = format::encodeSidecar(parsed->info, parsed->checksums);
    auto reparsed = format::parseSidecar(id, again);
    PACKMOOR_CHECK(reparsed.info.root == parsed->info.root, "another root");
    PACKMOOR_CHECK(reparsed.info.bytes == parsed->info.bytes, "another size");
    PACKMOOR_CHECK(again.size() == bytes.size(), "another length");
  }
}

bool makeCorpus(const char* folderName) {
  if (folderName == nullptr) return false;
  const std::string folder = folderName;
  for (uint64_t blocks : {0, 1, 3}) {
    std::vector<Hash128> checksums(blocks, Hash128{blocks, 9});
    const uint64_t bytes = blocks * kBlockBytes - (blocks == 3 ? 1000 : 0);
    const auto sums = kj::arrayPtr(checksums.data(), checksums.size());
    auto sidecar = format::encodeSidecar({ExtentId(), bytes, extentRoot(bytes, sums)}, sums);
    std::ofstream(folder + "/blocks_" + std::to_string(blocks), std::ios::binary)
        .write(reinterpret_cast<const char*>(sidecar.begin()),
               static_cast<std::streamsize>(sidecar.size()));
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool made = makeCorpus(std::getenv("PACKMOOR_FUZZ_CORPUS"));
  (void)made;
  if (size > (1u << 16)) return 0;
  decode(ExtentId(), kj::arrayPtr(data, size));
  format::ExtentHeader header;
  if (size < sizeof header) return 0;

  // The same with everything right that checksums and sizes would refuse.
  std::memcpy(&header, data, sizeof header);
  std::vector<Hash128> checksums((size - sizeof header) / sizeof(Hash128));
  if (!checksums.empty()) {
    std::memcpy(checksums.data(), data + sizeof header, checksums.size() * sizeof(Hash128));
  }
  const auto sums = kj::arrayPtr(checksums.data(), checksums.size());
  auto sidecar = format::encodeSidecar({header.id, header.bytes, extentRoot(header.bytes, sums)},
                                       sums);
  decode(header.id, sidecar);
  return 0;
}
