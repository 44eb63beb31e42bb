// module: replicator
// Feeds bytes to the decoders of a checkpoint's manifest and of a receiver's note. What is accepted
// must encode to what decodes to the same.
//
// Corpus: manifests of no file and of three, and a note. Made by running this program on any file
// with the environment variable PACKMOOR_FUZZ_CORPUS set to a folder to fill.
#include "checkpoint_manifest.h"

#include "kernelio/check.h"

#include <kj/debug.h>

#include <cstdlib>
#include <fstream>
#include <string>

using namespace packmoor::replicator;  // NOLINT: one program, one file

namespace {

void save(const std::string& path, kj::ArrayPtr<const kj::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.begin()),
             static_cast<std::streamsize>(bytes.size()));
}

bool makeCorpus(const char* folderName) {
  if (folderName == nullptr) return false;
  const std::string folder = folderName;
  CheckpointManifest manifest;
  manifest.position = LogPosition{RecordIndex(7), Epoch(2), Hash128{3, 4}};
  save(folder + "/empty", encodeManifest(manifest));
  for (uint64_t blocks : {0, 1, 3}) {
    manifest.files.push_back(CheckpointFile{"f" + std::to_string(blocks), blocks * kBlockBytes,
                                            std::vector<Hash128>(blocks, Hash128{blocks, 9})});
    manifest.extents.push_back(ExtentInfo{ExtentId(), blocks, Hash128{blocks, 1}});
  }
  save(folder + "/files", encodeManifest(manifest));
  save(folder + "/note", encodeTransferNote(TransferNote{"n1", Uuid(), manifest.position}));
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool made = makeCorpus(std::getenv("PACKMOOR_FUZZ_CORPUS"));
  (void)made;
  if (size > (1u << 20)) return 0;
  const auto bytes = kj::arrayPtr(data, size);
  kj::Maybe<CheckpointManifest> manifest;
  kj::runCatchingExceptions([&]() { manifest = decodeManifest(bytes); });
  KJ_IF_MAYBE(known, manifest) {
    for (const CheckpointFile& file : known->files) {
      PACKMOOR_CHECK(file.blocks.size() == blockCount(file.bytes), "a block without a checksum");
      PACKMOOR_CHECK(file.name.find('/') == std::string::npos, "a file outside its folder");
    }
    auto again = decodeManifest(encodeManifest(*known));
    PACKMOOR_CHECK(again.position == known->position, "another position");
    PACKMOOR_CHECK(again.files.size() == known->files.size(), "other files");
    PACKMOOR_CHECK(again.extents.size() == known->extents.size(), "other extents");
  }
  auto note = decodeTransferNote(bytes);
  KJ_IF_MAYBE(known, note) {
    auto again = decodeTransferNote(encodeTransferNote(*known));
    PACKMOOR_CHECK(KJ_ASSERT_NONNULL(again).checkpoint == known->checkpoint, "another note");
  }
  return 0;
}
