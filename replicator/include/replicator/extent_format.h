// The sidecar of a sealed extent: sealed/<xx>/<id>.sum beside <id>.data.
//
// Layout: ExtentHeader, then one Hash128 (XXH3-128) for each block of kBlockBytes of the data, the
// last block being shorter when the extent is no multiple of it. Numbers are little-endian.
//
// Valid: magic and version are right, the id is that of the file's name, blockBytes is kBlockBytes,
// the file is exactly as long as `bytes` asks for, root is extentRoot() of the checksums, and hash
// fits all that is before and behind it. A data file of another size is damaged.
//
// Write order: the data is synced; the sidecar is written durably in quarantine; the sidecar is
// renamed into its folder, then the data; the folder is synced. An extent is sealed when
// that sync is done; after a crash it counts as sealed when both names are there.
#pragma once

#include "replicator/extent_store.h"

namespace packmoor::replicator::format {

constexpr uint64_t kExtentMagic = 0x4d55535458454d50;  // "PMEXTSUM"
constexpr uint16_t kExtentVersion = 1;
constexpr uint64_t kExtentBlocksMax = 1u << 20;  // 256 GiB

struct ExtentHeader {
  uint64_t magic;
  uint16_t version;
  uint16_t flags;       // zero
  uint32_t blockBytes;  // kBlockBytes
  ExtentId id;
  uint64_t bytes;       // of the data
  Hash128 root;
  uint64_t reserved;    // zero
  Hash128 hash;         // XXH3-128 of the 64 bytes before and of the checksums
};
static_assert(offsetof(ExtentHeader, version) == 8);
static_assert(offsetof(ExtentHeader, blockBytes) == 12);
static_assert(offsetof(ExtentHeader, id) == 16);
static_assert(offsetof(ExtentHeader, bytes) == 32);
static_assert(offsetof(ExtentHeader, root) == 40);
static_assert(offsetof(ExtentHeader, hash) == 64);
static_assert(sizeof(ExtentHeader) == 80);

kj::Array<kj::byte> encodeSidecar(const ExtentInfo& info, kj::ArrayPtr<const Hash128> checksums);

struct Sidecar {
  ExtentInfo info;
  kj::Array<Hash128> checksums;
};
// Throws a sentence when the bytes are not a valid sidecar of `id`.
Sidecar parseSidecar(const ExtentId& id, kj::ArrayPtr<const kj::byte> bytes);

}  // namespace packmoor::replicator::format
