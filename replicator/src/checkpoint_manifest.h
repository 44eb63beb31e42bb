// CheckpointManifest: what a checkpoint that is handed to another member consists of.
//
// Why: the receiver must know every file and extent before it begins, with the checksum of each
// block: so it can fetch in parallel, verify each block when it comes, and keep, after a restart
// or from another checkpoint, every block that it has already.
//
// Encoding: CheckpointManifest of replicator_records.proto. It travels as file 0 of a checkpoint and
// is verified by its hash before it is decoded.
#pragma once

#include "replicator/extent_store.h"

#include <string>
#include <vector>

namespace packmoor::replicator {

// A manifest beyond this is refused: some 25 million blocks or extents.
constexpr uint64_t kManifestBytesMax = 512ull << 20;
constexpr size_t kCheckpointFilesMax = 100'000;

struct CheckpointFile {
  std::string name;                 // of a file: no '/', not "." nor ".."
  uint64_t bytes = 0;
  std::vector<Hash128> blocks;      // checksum of each kBlockBytes
};

struct CheckpointManifest {
  LogPosition position;
  std::vector<CheckpointFile> files;
  std::vector<ExtentInfo> extents;

  uint64_t fileBytes() const;
  uint64_t extentBytes() const;
};

kj::Array<kj::byte> encodeManifest(const CheckpointManifest& manifest);
// Throws a sentence when the bytes are not one.
CheckpointManifest decodeManifest(kj::ArrayPtr<const kj::byte> bytes);

// The note that a receiver keeps beside what it has fetched.
struct TransferNote {
  NodeId source;
  Uuid checkpoint;
  LogPosition position;
};
kj::Array<kj::byte> encodeTransferNote(const TransferNote& note);
// nullptr: not one; it is only a hint.
kj::Maybe<TransferNote> decodeTransferNote(kj::ArrayPtr<const kj::byte> bytes);

inline uint64_t blockCount(uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

}  // namespace packmoor::replicator
