// The replicator's vocabulary: strong types for what must not be mixed, and the record.
//
// A volume is one ordered log of records. A record's hash covers the record before it, so equal
// hashes at an index mean equal logs up to it. See ARCHITECTURE.md for the words.
#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace packmoor::replicator {

// A number with a name. Tag makes two kinds of numbers two types.
template <typename Tag>
struct Number {
  uint64_t value = 0;
  constexpr Number() = default;
  constexpr explicit Number(uint64_t v) : value(v) {}
  constexpr auto operator<=>(const Number&) const = default;
  constexpr Number next() const { return Number(value + 1); }
};
template <typename Tag>
kj::String KJ_STRINGIFY(Number<Tag> number) {
  return kj::str(number.value);
}

using Epoch = Number<struct EpochTag>;              // 0: none; the first is 1
using RecordIndex = Number<struct RecordIndexTag>;  // 0: before the first record, which is 1

// 128 random bits: journals, volumes, transactions, extents, nonces.
struct Uuid {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
  bool isNull() const { return *this == Uuid(); }
  kj::String text() const;                                   // 32 lower-case hex digits
  static bool parse(kj::StringPtr text, Uuid& out);          // false: not 32 hex digits
  static Uuid fromBytes(kj::ArrayPtr<const kj::byte> bytes);  // exactly 16
  kj::ArrayPtr<const kj::byte> asBytes() const { return kj::arrayPtr(bytes.data(), bytes.size()); }
};
inline kj::String KJ_STRINGIFY(const Uuid& id) { return id.text(); }

using VolumeId = Uuid;
using ExtentId = Uuid;
using TxnId = Uuid;

// XXH3-128. The null hash precedes the first record of a volume.
struct Hash128 {
  uint64_t low = 0, high = 0;
  auto operator<=>(const Hash128&) const = default;
  kj::String text() const;  // 32 hex digits
};
inline kj::String KJ_STRINGIFY(const Hash128& hash) { return hash.text(); }
Hash128 hashBytes(kj::ArrayPtr<const kj::byte> bytes);

using NodeId = std::string;  // [a-z0-9][a-z0-9-]{0,62}
bool isValidNodeId(kj::StringPtr text);

// What a record's payload is. Values are on disk for ever; never reuse one. Below 16: the
// replicator's own; from 16: the state machine's.
enum class RecordKind : uint16_t {
  kEpochStart = 1,
};
constexpr uint16_t kStateMachineKindMin = 16;

constexpr size_t kRecordPayloadBytesMax = 8u << 20;

// One entry of a volume's log. Immutable once made; shared between the journal's queue, the
// streams to the standbys and the apply loop.
struct Record {
  RecordIndex index;
  Epoch epoch;             // of the primary that ordered it
  Hash128 previousHash;    // of the record at index - 1
  RecordKind kind{};
  std::vector<ExtentId> extents;  // must be sealed on a member before it journals the record
  kj::Array<const kj::byte> payload;
  Hash128 hash;            // over all of the above, set by makeRecord

  size_t bytes() const { return payload.size() + extents.size() * sizeof(ExtentId) + 96; }
};
using RecordRef = std::shared_ptr<const Record>;

// Computes the hash. The one way to make a Record.
RecordRef makeRecord(RecordIndex index, Epoch epoch, Hash128 previousHash, RecordKind kind,
                     std::vector<ExtentId> extents, kj::Array<const kj::byte> payload);

// A point in a log: the last record's index, epoch and hash (zeros before the first).
struct LogPosition {
  RecordIndex index;
  Epoch epoch;
  Hash128 hash;
  bool operator==(const LogPosition&) const = default;
};
// Rule 6's order: by epoch of the last record, then index.
inline bool adoptBefore(const LogPosition& a, const LogPosition& b) {
  return a.epoch != b.epoch ? a.epoch > b.epoch : a.index > b.index;
}

}  // namespace packmoor::replicator

template <>
struct std::hash<packmoor::replicator::Uuid> {
  size_t operator()(const packmoor::replicator::Uuid& id) const noexcept {
    size_t value;
    static_assert(sizeof value <= sizeof id.bytes);
    __builtin_memcpy(&value, id.bytes.data(), sizeof value);
    return value;
  }
};
