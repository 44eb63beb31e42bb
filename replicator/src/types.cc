#include "replicator/types.h"

#include "kernelio/check.h"

#define XXH_STATIC_LINKING_ONLY  // for a streaming state on the stack
#include <xxhash.h>

#include <cstring>

namespace packmoor::replicator {

namespace {

int hexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// What a record's hash covers, in front of its extents and its payload. Little-endian, for ever
// the same: hashes are compared between nodes of different versions.
struct HashedHeader {
  uint64_t index;
  uint64_t epoch;
  uint64_t previousLow;
  uint64_t previousHigh;
  uint64_t kind;
  uint64_t extentCount;
  uint64_t payloadBytes;
};
static_assert(sizeof(HashedHeader) == 56);
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "formats are little-endian");

Hash128 fromXxh(XXH128_hash_t hash) { return Hash128{hash.low64, hash.high64}; }

Hash128 recordHash(const Record& record) {
  const HashedHeader header{record.index.value,
                            record.epoch.value,
                            record.previousHash.low,
                            record.previousHash.high,
                            static_cast<uint64_t>(record.kind),
                            record.extents.size(),
                            record.payload.size()};
  const size_t extentBytes = record.extents.size() * sizeof(ExtentId);

  // One call over a copy is faster for the common small record than a streaming state.
  constexpr size_t kCopyMax = 2048;
  if (sizeof header + extentBytes + record.payload.size() <= kCopyMax) {
    kj::byte copy[kCopyMax];
    size_t at = 0;
    auto add = [&](const void* bytes, size_t count) {
      if (count == 0) return;
      std::memcpy(copy + at, bytes, count);
      at += count;
    };
    add(&header, sizeof header);
    add(record.extents.data(), extentBytes);
    add(record.payload.begin(), record.payload.size());
    return fromXxh(XXH3_128bits(copy, at));
  }
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, &header, sizeof header);
  if (extentBytes > 0) XXH3_128bits_update(&state, record.extents.data(), extentBytes);
  if (record.payload.size() > 0) {
    XXH3_128bits_update(&state, record.payload.begin(), record.payload.size());
  }
  return fromXxh(XXH3_128bits_digest(&state));
}

}  // namespace

static_assert(sizeof(Uuid) == 16);

kj::String Uuid::text() const {
  constexpr char kDigits[] = "0123456789abcdef";
  auto result = kj::heapString(2 * bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    result[2 * i] = kDigits[bytes[i] >> 4];
    result[2 * i + 1] = kDigits[bytes[i] & 15];
  }
  return result;
}

bool Uuid::parse(kj::StringPtr text, Uuid& out) {
  Uuid parsed;
  if (text.size() != 2 * parsed.bytes.size()) return false;
  for (size_t i = 0; i < parsed.bytes.size(); ++i) {
    const int high = hexValue(text[2 * i]), low = hexValue(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    parsed.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  out = parsed;
  return true;
}

Uuid Uuid::fromBytes(kj::ArrayPtr<const kj::byte> bytes) {
  Uuid result;
  PACKMOOR_CHECK(bytes.size() == result.bytes.size(), "making a uuid of bytes", bytes.size());
  std::memcpy(result.bytes.data(), bytes.begin(), bytes.size());
  return result;
}

kj::String Hash128::text() const {
  constexpr char kDigits[] = "0123456789abcdef";
  auto result = kj::heapString(32);
  for (size_t i = 0; i < 16; ++i) {
    result[i] = kDigits[high >> (60 - 4 * i) & 15];
    result[16 + i] = kDigits[low >> (60 - 4 * i) & 15];
  }
  return result;
}

Hash128 hashBytes(kj::ArrayPtr<const kj::byte> bytes) {
  return fromXxh(XXH3_128bits(bytes.begin(), bytes.size()));
}

bool isValidNodeId(kj::StringPtr text) {
  if (text.size() < 1 || text.size() > 63) return false;
  auto alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (!alphanumeric(text[0])) return false;
  for (char c : text) {
    if (!alphanumeric(c) && c != '-') return false;
  }
  return true;
}

RecordRef makeRecord(RecordIndex index, Epoch epoch, Hash128 previousHash, RecordKind kind,
                     std::vector<ExtentId> extents, kj::Array<const kj::byte> payload) {
  auto record = std::make_shared<Record>();
  record->index = index;
  record->epoch = epoch;
  record->previousHash = previousHash;
  record->kind = kind;
  record->extents = std::move(extents);
  record->payload = kj::mv(payload);
  record->hash = recordHash(*record);
  return record;
}

}  // namespace packmoor::replicator
