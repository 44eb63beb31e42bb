#include "pack_index.h"

#include "kernelio/check.h"
#include "sha1_stream.h"

#include <kj/debug.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

constexpr uint32_t kMagic = 0xff744f63;  // "\377tOc"
constexpr uint32_t kVersion = 2;
constexpr uint32_t kLargeBit = 0x80000000;

uint32_t loadBig32(const kj::byte* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap32(value);
}

void storeBig32(kj::byte*& at, uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(at, &value, sizeof value);
  at += sizeof value;
}

}  // namespace

PackIndex::PackIndex(std::shared_ptr<CheckedBytes> bytes) : bytes_(std::move(bytes)) {
  const char* what = bytes_->what().c_str();
  const uint64_t size = bytes_->size();
  KJ_REQUIRE(size >= namesAt() + kTrailerBytes, "A pack index is too short.", what, size);
  bytes_->need(0, namesAt());
  KJ_REQUIRE(big32(0) == kMagic && big32(4) == kVersion,
             "A pack index is not one of version 2.", what);
  uint32_t previous = 0;
  for (uint64_t i = 0; i < 256; ++i) {
    const uint32_t count = big32(kHeaderBytes + 4 * i);
    KJ_REQUIRE(count >= previous, "A pack index is damaged: its fan-out goes down.", what, i);
    previous = count;
  }
  count_ = previous;
  KJ_REQUIRE(size >= largeAt() + kTrailerBytes, "A pack index is shorter than its count says.",
             what, count_);
  const uint64_t large = size - kTrailerBytes - largeAt();
  KJ_REQUIRE(large % 8 == 0, "A pack index has an odd size.", what, size);
  largeCount_ = large / 8;
}

uint32_t PackIndex::big32(uint64_t at) const { return loadBig32(bytes_->need(at, 4).begin()); }

std::optional<uint32_t> PackIndex::find(const ObjectId& id) const {
  const uint8_t first = id.bytes[0];
  uint32_t low = first == 0 ? 0 : big32(kHeaderBytes + 4 * (uint64_t{first} - 1));
  uint32_t high = big32(kHeaderBytes + 4 * uint64_t{first});
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const int order =
        std::memcmp(bytes_->need(namesAt() + uint64_t{middle} * kOidBytes, kOidBytes).begin(),
                    id.bytes.data(), kOidBytes);
    if (order == 0) return middle;
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return std::nullopt;
}

ObjectId PackIndex::name(uint32_t at) const {
  return ObjectId::fromBytes(
      bytes_->need(namesAt() + uint64_t{at} * kOidBytes, kOidBytes).begin());
}

uint64_t PackIndex::offset(uint32_t at) const {
  const uint32_t offset = big32(offsetsAt() + uint64_t{at} * 4);
  if ((offset & kLargeBit) == 0) return offset;
  const uint64_t place = offset & ~kLargeBit;
  KJ_REQUIRE(place < largeCount_, "A pack index is damaged: an offset is outside its table.",
             bytes_->what().c_str(), at);
  const uint64_t row = largeAt() + place * 8;
  return uint64_t{big32(row)} << 32 | big32(row + 4);
}

uint32_t PackIndex::crc(uint32_t at) const { return big32(crcsAt() + uint64_t{at} * 4); }

ObjectId PackIndex::packChecksum() const {
  return ObjectId::fromBytes(bytes_->need(bytes_->size() - kTrailerBytes, kOidBytes).begin());
}

kj::Array<const kj::byte> buildPackIndex(kj::ArrayPtr<const PackIndexEntry> entries,
                                         const ObjectId& packChecksum) {
  uint32_t counts[256] = {};
  uint64_t large = 0;
  for (const auto& entry : entries) {
    ++counts[entry.id.bytes[0]];
    if (entry.offset >= kLargeBit) ++large;
  }
  auto bytes = kj::heapArray<kj::byte>(8 + 256 * 4 + entries.size() * (kOidBytes + 8) +
                                       large * 8 + 2 * kOidBytes);
  kj::byte* at = bytes.begin();
  storeBig32(at, kMagic);
  storeBig32(at, kVersion);
  uint32_t total = 0;
  for (uint32_t count : counts) storeBig32(at, total += count);
  for (size_t i = 0; i < entries.size(); ++i) {
    PACKMOOR_CHECK(i == 0 || entries[i - 1].id < entries[i].id, "index entries out of order");
    std::memcpy(at, entries[i].id.bytes.data(), kOidBytes);
    at += kOidBytes;
  }
  for (const auto& entry : entries) storeBig32(at, entry.crc);
  uint32_t place = 0;
  for (const auto& entry : entries) {
    storeBig32(at, entry.offset < kLargeBit ? static_cast<uint32_t>(entry.offset)
                                            : kLargeBit | place++);
  }
  for (const auto& entry : entries) {
    if (entry.offset < kLargeBit) continue;
    storeBig32(at, static_cast<uint32_t>(entry.offset >> 32));
    storeBig32(at, static_cast<uint32_t>(entry.offset));
  }
  std::memcpy(at, packChecksum.bytes.data(), kOidBytes);
  at += kOidBytes;
  Sha1Stream sha1;
  sha1.update(kj::arrayPtr(bytes.begin(), at));
  const ObjectId checksum = sha1.finish();
  std::memcpy(at, checksum.bytes.data(), kOidBytes);
  at += kOidBytes;
  PACKMOOR_CHECK(at == bytes.end(), "writing a pack index");
  return bytes;
}

}  // namespace packmoor::gitlayer
