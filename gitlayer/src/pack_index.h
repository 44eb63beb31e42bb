// PackIndex: reading a version 2 pack index (gitformat-pack(5)).
//
// Layout: "\377tOc", version 2; fan-out of 256 counts; names in order; CRC-32 of each entry; 31-bit
// offsets, or with the top bit the place in the table of 63-bit offsets that follows; the pack's
// checksum; the SHA-1 of all before. Numbers are big-endian.
//
// Any bytes may be given: what is malformed is thrown as a sentence, at construction or when it
// is met. Thread-safe.
#pragma once

#include "checked_bytes.h"
#include "gitlayer/object_id.h"

#include <optional>

namespace packmoor::gitlayer {

class PackIndex {
 public:
  // Checks the header, the fan-out and the size.
  explicit PackIndex(std::shared_ptr<CheckedBytes> bytes);

  uint32_t count() const { return count_; }
  std::optional<uint32_t> find(const ObjectId& id) const;
  ObjectId name(uint32_t at) const;       // at < count()
  uint64_t offset(uint32_t at) const;
  uint32_t crc(uint32_t at) const;
  ObjectId packChecksum() const;          // the trailer of the pack
  const std::shared_ptr<CheckedBytes>& bytes() const { return bytes_; }

 private:
  uint32_t big32(uint64_t at) const;
  uint64_t namesAt() const { return kHeaderBytes + kFanoutBytes; }
  uint64_t crcsAt() const { return namesAt() + uint64_t{count_} * kOidBytes; }
  uint64_t offsetsAt() const { return crcsAt() + uint64_t{count_} * 4; }
  uint64_t largeAt() const { return offsetsAt() + uint64_t{count_} * 4; }

  static constexpr uint64_t kHeaderBytes = 8, kFanoutBytes = 256 * 4, kTrailerBytes = 40;

  std::shared_ptr<CheckedBytes> bytes_;
  uint32_t count_ = 0;
  uint64_t largeCount_ = 0;
};

// Writes such an index. The entries must be in order of their names.
struct PackIndexEntry {
  ObjectId id;
  uint32_t crc = 0;
  uint64_t offset = 0;
};
kj::Array<const kj::byte> buildPackIndex(kj::ArrayPtr<const PackIndexEntry> entries,
                                         const ObjectId& packChecksum);

}  // namespace packmoor::gitlayer
