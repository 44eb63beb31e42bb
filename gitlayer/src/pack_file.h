// PackFile: one pack and its index, read from two sealed extents.
//
// Opened on first use, by whichever thread comes first; a failure to open is thrown to each user
// and tried again by the next. Damage is thrown as a sentence. Packs are complete in themselves:
// every delta's base is in the same pack.
//
// Threads: any, concurrently. Memory: the mappings, and on the first stored() or packView()
// needing it a table of 4 bytes per object.
#pragma once

#include "delta_base_cache.h"
#include "gitlayer/pack_format.h"
#include "pack_index.h"

#include <atomic>
#include <functional>
#include <mutex>

namespace packmoor::gitlayer {

// A chain of deltas longer than this is damage.
constexpr size_t kDeltaChainMax = 10'000;

class PackFile final : public PackGuard {
 public:
  struct Parts {
    std::shared_ptr<CheckedBytes> pack, index;
  };
  // `open` is called when the pack is first used and may throw.
  PackFile(std::function<Parts()> open, uint32_t objectCount,
           std::shared_ptr<DeltaBaseCache> bases);
  ~PackFile() noexcept(false) {}

  bool exists(const ObjectId& id);
  kj::Maybe<ObjectHeader> header(const ObjectId& id);
  kj::Maybe<Object> read(const ObjectId& id);
  // The entry as it lies in the pack. Valid for the life of this object.
  kj::Maybe<StoredEntry> stored(const ObjectId& id);

  uint32_t objectCount() const { return objectCount_; }
  const PackIndex& index() { return opened().index; }
  // `self` is this pack's own handle, which the view keeps.
  static PackView view(const std::shared_ptr<PackFile>& self);

  void needBytes(uint64_t offset, uint64_t count) override;
  void needIndex(uint64_t offset, uint64_t count) override;
  // Reads and checks all of both files again, and the pack's own checksum.
  void verify();

 private:
  struct Opened {
    std::shared_ptr<CheckedBytes> pack;
    PackIndex index;
  };
  struct Entry {
    PackEntryHeader header;
    uint64_t offset = 0;      // of the entry
    uint64_t dataOffset = 0;  // of its zlib stream
  };

  Opened& opened();
  Entry entryAt(Opened& files, uint64_t offset);
  uint64_t baseOffset(Opened& files, const Entry& entry);
  kj::Array<kj::byte> inflate(Opened& files, const Entry& entry);
  std::shared_ptr<const Object> readAt(Opened& files, uint64_t offset);
  const std::vector<uint32_t>& byOffset(Opened& files);
  [[noreturn]] void damaged(Opened& files, uint64_t offset, const char* how);

  std::function<Parts()> open_;
  const uint32_t objectCount_;
  const std::shared_ptr<DeltaBaseCache> bases_;
  const uint64_t number_;  // in the cache of bases

  std::mutex mutex_;                  // guards the making of the two below
  std::atomic<Opened*> openedNow_{nullptr};
  std::unique_ptr<Opened> opened_;
  std::atomic<bool> hasByOffset_{false};
  std::vector<uint32_t> byOffset_;    // places in the index, in order of the entries' offsets
};

}  // namespace packmoor::gitlayer
