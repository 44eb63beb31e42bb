// IndexTable: what is known of a pack's entries, and its index of version 2.
//
// Layout of an index (gitformat-pack(5)): magic "\377tOc", version 2; 256 counts of names whose
// first byte is at most i; names in order; CRC-32s; offsets of 31 bits, or with the top bit the
// number of a 64-bit offset behind them; the pack's trailer; SHA-1 of all before. Big-endian.
//
// About 40 bytes an entry. Not for concurrent change; entries may be changed by different threads.
#pragma once

#include "gitlayer/object_id.h"
#include "sha1_stream.h"

#include <kj/array.h>

#include <vector>

namespace packmoor::gitlayer {

constexpr uint32_t kNoEntry = UINT32_MAX;

struct IndexEntry {
  ObjectId id;                                // once `type` is known
  uint32_t crc = 0;
  uint64_t offset = 0;
  uint32_t base = kNoEntry;                   // of an ofs-delta
  ObjectType type = ObjectType::kNone;        // of the object, deltas resolved
};

class IndexTable {
 public:
  // In the order of offsets.
  void add(const IndexEntry& entry) { entries_.push_back(entry); }
  void reserve(size_t entries) { entries_.reserve(entries); }
  IndexEntry& operator[](uint32_t number) { return entries_[number]; }
  const IndexEntry& operator[](uint32_t number) const { return entries_[number]; }
  uint32_t size() const { return static_cast<uint32_t>(entries_.size()); }
  // kNoEntry: no entry begins there.
  uint32_t findOffset(uint64_t offset) const;
  // One past the last byte of an entry; `entriesEnd`: of the last one.
  uint64_t entryEnd(uint32_t number, uint64_t entriesEnd) const;

  // Sorts by name; every type must be known. Returns an entry below `count` whose name another
  // of these has too, or kNoEntry. Nothing may be added after.
  uint32_t sortNames(uint32_t count);
  // After sortNames().
  uint32_t find(const ObjectId& id) const;

  // The entries' numbers in order of their names.
  const std::vector<uint32_t>& order() const { return order_; }

 private:
  std::vector<IndexEntry> entries_;
  std::vector<uint32_t> order_;
  uint32_t fanout_[257] = {};
};

// The bytes of the index, piece by piece.
class IndexStream {
 public:
  // `table` is sorted and outlives the stream.
  IndexStream(const IndexTable& table, const ObjectId& packTrailer);
  // Fills `out` as far as there is anything left; 0 at the end.
  size_t fill(kj::ArrayPtr<kj::byte> out);
  uint64_t bytes() const;  // of the whole index

 private:
  enum class Section : uint8_t { kFanout, kNames, kCrcs, kOffsets, kLarge, kTrailer, kDone };
  bool step();  // puts a few items into staged_
  void put32(uint32_t value);
  void put64(uint64_t value);

  const IndexTable& table_;
  ObjectId packTrailer_;
  Section section_ = Section::kFanout;
  uint32_t next_ = 0;              // item of the section
  uint32_t largeCount_ = 0;
  std::vector<kj::byte> staged_;
  size_t stagedAt_ = 0;
  Sha1Stream sha1_;
};

}  // namespace packmoor::gitlayer
