#include "replicator/extent_format.h"

#include <kj/debug.h>

#include <cstring>

namespace packmoor::replicator {

namespace {
uint64_t blockCount(uint64_t bytes) { return bytes / kBlockBytes + (bytes % kBlockBytes != 0); }
}  // namespace

size_t blockBytesAt(uint64_t bytes, uint64_t block) {
  if (block >= blockCount(bytes)) return 0;
  return std::min<uint64_t>(kBlockBytes, bytes - block * kBlockBytes);
}

Hash128 extentRoot(uint64_t bytes, kj::ArrayPtr<const Hash128> blockChecksums) {
  auto hashed = kj::heapArray<kj::byte>(sizeof bytes + blockChecksums.size() * sizeof(Hash128));
  std::memcpy(hashed.begin(), &bytes, sizeof bytes);
  if (blockChecksums.size() > 0) {
    std::memcpy(hashed.begin() + sizeof bytes, blockChecksums.begin(),
                blockChecksums.size() * sizeof(Hash128));
  }
  return hashBytes(hashed);
}

}  // namespace packmoor::replicator

namespace packmoor::replicator::format {

static_assert(sizeof(Hash128) == 16);

namespace {

constexpr size_t kHashOffset = offsetof(ExtentHeader, hash);

// The hash leaves itself out.
Hash128 sidecarHash(kj::ArrayPtr<const kj::byte> bytes) {
  auto hashed = kj::heapArray<kj::byte>(bytes.size() - sizeof(Hash128));
  std::memcpy(hashed.begin(), bytes.begin(), kHashOffset);
  auto rest = bytes.slice(sizeof(ExtentHeader), bytes.size());
  if (rest.size() > 0) std::memcpy(hashed.begin() + kHashOffset, rest.begin(), rest.size());
  return hashBytes(hashed);
}

}  // namespace

kj::Array<kj::byte> encodeSidecar(const ExtentInfo& info, kj::ArrayPtr<const Hash128> checksums) {
  ExtentHeader header{};
  header.magic = kExtentMagic;
  header.version = kExtentVersion;
  header.blockBytes = kBlockBytes;
  header.id = info.id;
  header.bytes = info.bytes;
  header.root = info.root;
  auto bytes = kj::heapArray<kj::byte>(sizeof header + checksums.size() * sizeof(Hash128));
  std::memcpy(bytes.begin(), &header, sizeof header);
  if (checksums.size() > 0) {
    std::memcpy(bytes.begin() + sizeof header, checksums.begin(),
                checksums.size() * sizeof(Hash128));
  }
  header.hash = sidecarHash(bytes);
  std::memcpy(bytes.begin() + kHashOffset, &header.hash, sizeof header.hash);
  return bytes;
}

Sidecar parseSidecar(const ExtentId& id, kj::ArrayPtr<const kj::byte> bytes) {
  ExtentHeader header;
  KJ_REQUIRE(bytes.size() >= sizeof header, "The sidecar is too short.", id, bytes.size());
  std::memcpy(&header, bytes.begin(), sizeof header);
  KJ_REQUIRE(header.magic == kExtentMagic, "The file is not an extent's sidecar.", id);
  KJ_REQUIRE(sidecarHash(bytes) == header.hash, "The sidecar is damaged: its checksum is wrong.",
             id);
  KJ_REQUIRE(header.version == kExtentVersion && header.flags == 0,
             "The sidecar was written by a newer version of Packmoor; run that version.", id,
             header.version);
  KJ_REQUIRE(header.blockBytes == kBlockBytes, "The extent has blocks of another size.", id,
             header.blockBytes);
  KJ_REQUIRE(header.id == id, "The sidecar is of another extent.", id, header.id);
  const uint64_t blocks = blockCount(header.bytes);
  KJ_REQUIRE(blocks <= kExtentBlocksMax && bytes.size() == sizeof header + blocks * sizeof(Hash128),
             "The sidecar has the wrong size.", id, header.bytes, bytes.size());

  Sidecar sidecar{{header.id, header.bytes, header.root}, kj::heapArray<Hash128>(blocks)};
  if (blocks > 0) {
    std::memcpy(sidecar.checksums.begin(), bytes.begin() + sizeof header, blocks * sizeof(Hash128));
  }
  KJ_REQUIRE(extentRoot(header.bytes, sidecar.checksums) == header.root,
             "The sidecar contradicts itself: its root is wrong.", id);
  return sidecar;
}

}  // namespace packmoor::replicator::format
