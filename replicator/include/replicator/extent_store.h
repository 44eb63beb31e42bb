// ExtentStore: immutable files of 256 KiB blocks, each with its checksum and one root for all.
//
// Why: packs are far larger than records, so records name them. An extent is written once,
// block by block, in any order, while it streams in ("quarantined"); it is then sealed, and
// from that moment its bytes never change. A record that names an extent is journaled on a
// member only when the extent is sealed there (invariant 5).
//
// Files, under extents/: quarantine/<id>.data while being written; sealed/<xx>/<id>.data and
// <id>.sum (block checksums and root, byte layout in extent_format.h), xx = first two hex digits.
//
// Durability: seal() resolves when data, sidecar and names are durable. Quarantined extents do
// not survive a restart: opening the store removes them. A sealed extent that is neither pinned
// nor linked (kept by a state machine) expires after `expiryMs` from sealing or last unpin.
// Loop: that of its Env. The store outlives its writers.
#pragma once

#include "kernelio/env.h"
#include "replicator/types.h"

#include <kj/function.h>

namespace packmoor::replicator {

constexpr size_t kBlockBytes = 256u << 10;

// Root: XXH3-128 over extent size (8 bytes little-endian) and the block checksums in order.
struct ExtentInfo {
  ExtentId id;
  uint64_t bytes = 0;
  Hash128 root;
};

Hash128 extentRoot(uint64_t bytes, kj::ArrayPtr<const Hash128> blockChecksums);

// Bytes of block `block` of an extent of `bytes` bytes; 0 beyond the end.
size_t blockBytesAt(uint64_t bytes, uint64_t block);

class ExtentWriter {
 public:
  virtual ~ExtentWriter() noexcept(false) {}
  virtual ExtentId id() = 0;
  // Writes a block. `data` is kBlockBytes, or less for the last block. Its checksum is verified
  // against the bytes first; a mismatch rejects and writes nothing. A block may be written
  // again before the seal; the last write counts. Resolves when written (buffered).
  virtual kj::Promise<void> writeBlock(uint64_t block, kernelio::IoBuffer data,
                                       Hash128 checksum) = 0;
  // Makes everything durable under its sealed name. Rejects, naming the block, when a block is
  // missing or when `expectedRoot` differs. The sealed extent starts with one pin.
  virtual kj::Promise<ExtentInfo> seal(uint64_t bytes, kj::Maybe<Hash128> expectedRoot) = 0;
  // The data file before the seal, relative to the disk's root: written blocks may be read there.
  virtual kj::String path() = 0;
  // Dropping the writer before the seal removes the quarantined file.
};

struct ExtentStoreOptions {
  kj::StringPtr folder = "extents"_kj;
  int64_t expiryMs = 3600 * 1000;
  size_t quarantinedMax = 256;  // begin() beyond it rejects, type OVERLOADED
};

struct ExtentStatistics {
  uint64_t sealed = 0, sealedBytes = 0, quarantined = 0, pinned = 0, expired = 0;
  uint64_t blocksVerified = 0, blocksBad = 0, blocksRepaired = 0;
  uint64_t blocksStanding = 0;  // bad ones that are not repaired
  uint64_t missing = 0;  // linked, and not sealed
  uint64_t damaged = 0;  // files found at open that are not a valid sealed extent
};

// What reading one place of an extent for its own sake came to.
struct ExtentCheck {
  bool bad = false, repaired = false;
  std::string what;              // a sentence: what is damaged
  std::string problem;           // why it is not repaired; without its end
};
constexpr uint64_t kSidecar = UINT64_MAX;   // in place of a block

class ExtentStore {
 public:
  static kj::Promise<kj::Own<ExtentStore>> open(kernelio::Env& env, ExtentStoreOptions options);
  virtual ~ExtentStore() noexcept(false) {}

  // Rejects, and never throws, when the id is being written or sealed here already.
  virtual kj::Promise<kj::Own<ExtentWriter>> begin(ExtentId id) = 0;

  virtual bool isSealed(ExtentId id) = 0;
  virtual kj::Maybe<ExtentInfo> info(ExtentId id) = 0;
  // Resolves when the extent is sealed here; at once when it is.
  virtual kj::Promise<void> whenSealed(ExtentId id) = 0;

  // Reads one block and verifies its checksum. A bad block is counted, and repaired where a source
  // of blocks is set; else, or when that has it not, it rejects with a sentence naming extent and
  // block.
  virtual kj::Promise<kernelio::IoBuffer> readBlock(ExtentId id, uint64_t block) = 0;
  // The same without repair: for those who would repair theirs with it.
  virtual kj::Promise<kernelio::IoBuffer> readBlockHere(ExtentId id, uint64_t block) {
    return readBlock(id, block);
  }
  // Reads a block, or kSidecar, from the disk itself and repairs it as readBlock() does; the sidecar from
  // what is in memory. What is not sealed, or no more, is not bad. Does not reject for damage.
  virtual kj::Promise<ExtentCheck> check(ExtentId id, uint64_t place) { return ExtentCheck(); }
  // Asked for a block that reads bad here; nullptr: there is none any more.
  using BlockSource = kj::Function<kj::Promise<kernelio::IoBuffer>(ExtentId id, uint64_t block)>;
  virtual void setBlockSource(kj::Maybe<BlockSource> source) {}
  // Writes a block that reads bad anew, with the bytes that a peer gave; they must have the
  // block's checksum. Resolves when durable.
  virtual kj::Promise<void> repairBlock(ExtentId id, uint64_t block, kernelio::IoBuffer data) = 0;
  virtual kj::Array<Hash128> blockChecksums(ExtentId id) = 0;  // empty when not sealed

  // Pins are counted; they may be taken before the extent is sealed, and an unpin without a pin
  // does nothing (pins do not survive a restart). An extent is kept while it is pinned or linked. `link` is set by the state
  // machine while its state names the extent, and is not durable here: the state machine links
  // again at start. Expiry begins only after startExpiry().
  virtual void pin(ExtentId id) = 0;
  virtual void unpin(ExtentId id) = 0;
  virtual void link(ExtentId id) = 0;
  virtual void unlink(ExtentId id) = 0;
  virtual void startExpiry() = 0;
  // How long an extent that nothing holds is kept.
  virtual int64_t expiryMs() { return ExtentStoreOptions().expiryMs; }

  // A block of it is bad for good, and that is no harm: the state has let go of it, and only a log still
  // names it, for members that are behind. They are told that it is dropped.
  virtual bool isSpoiled(ExtentId id) { return false; }

  // The sealed data file relative to the disk's root, for link() to a repository's folder.
  virtual kj::String path(ExtentId id) = 0;

  virtual ExtentStatistics statistics() = 0;
  virtual kj::Array<ExtentInfo> list() = 0;
  // Linked, and not sealed here: what an open() found damaged, or did not find. Such an extent has to
  // be fetched again.
  virtual kj::Array<ExtentId> missing() { return nullptr; }
  // What open() found wrong: a sentence for each. Such an extent counts as not sealed; its files
  // stay until it is written again, or nothing has held it for the time of expiry.
  virtual kj::ArrayPtr<const kj::String> damage() = 0;
};

}  // namespace packmoor::replicator
