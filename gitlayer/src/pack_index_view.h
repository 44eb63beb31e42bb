// Reading a version 2 pack index (gitformat-pack(5)) in place: "\377tOc", version 2, fan-out of
// 256 counts, names in order, CRCs, 31-bit offsets, 63-bit offsets for those that need them,
// and two checksums.
#pragma once

#include "gitlayer/object_source.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>

namespace packmoor::gitlayer {

class PackIndexView {
 public:
  // The view's bytes are borrowed. Rejects an index that is not of version 2 or is too short.
  explicit PackIndexView(PackView pack) : pack_(kj::mv(pack)), count_(pack_.objectCount) {
    KJ_REQUIRE(pack_.index.size() >= bytesFor(count_), "pack index is too short", count_);
    pack_.needIndex(0, kHeaderBytes + kFanoutBytes);
    KJ_REQUIRE(big32(0) == 0xff744f63u && big32(4) == 2, "pack index is not of version 2");
    KJ_REQUIRE(big32(kHeaderBytes + kFanoutBytes - 4) == count_,
               "pack index and pack differ in their number of objects", count_);
  }

  uint32_t size() const { return count_; }
  // In order of the names; `needNames` first.
  ObjectId name(uint32_t at) const { return ObjectId::fromBytes(nameBytes(at)); }
  const kj::byte* nameBytes(uint32_t at) const {
    return pack_.index.begin() + kNames + uint64_t(at) * kOidBytes;
  }
  void needNames(uint32_t begin, uint32_t count) const {
    pack_.needIndex(kNames + uint64_t(begin) * kOidBytes, uint64_t(count) * kOidBytes);
  }
  // `needNames` of all first.
  bool contains(const ObjectId& id) const {
    const uint8_t first = id.bytes[0];
    uint32_t low = first == 0 ? 0 : big32(kHeaderBytes + 4 * (uint64_t(first) - 1));
    uint32_t high = std::min(big32(kHeaderBytes + 4 * uint64_t(first)), count_);
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      const int order = memcmp(nameBytes(middle), id.bytes.data(), kOidBytes);
      if (order == 0) return true;
      (order < 0 ? low : high) = order < 0 ? middle + 1 : middle;
    }
    return false;
  }
  uint64_t offset(uint32_t at) const {
    uint32_t offset = big32(kNames + uint64_t(count_) * (kOidBytes + 4) + uint64_t(at) * 4);
    if (!(offset & 0x80000000u)) return offset;
    uint64_t large = kNames + uint64_t(count_) * (kOidBytes + 8) +
                     uint64_t(offset & 0x7fffffffu) * 8;
    KJ_REQUIRE(large + 8 <= pack_.index.size(), "pack index is damaged");
    return uint64_t(big32(large)) << 32 | big32(large + 4);
  }
  void needOffsets() const { pack_.needIndex(0, pack_.index.size()); }
  const PackView& pack() const { return pack_; }

 private:
  static constexpr uint64_t kHeaderBytes = 8, kFanoutBytes = 1024;
  static constexpr uint64_t kNames = kHeaderBytes + kFanoutBytes;
  static uint64_t bytesFor(uint64_t count) { return kNames + count * (kOidBytes + 8) + 40; }

  uint32_t big32(uint64_t at) const {
    const kj::byte* p = pack_.index.begin() + at;
    return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3];
  }

  PackView pack_;
  uint32_t count_;
};

}  // namespace packmoor::gitlayer
