// The pack format (gitformat-pack(5)): headers, entries and deltas, as bytes.
//
// Layout of a pack: "PACK", version 2, object count (4 bytes each, big-endian); entries; SHA-1
// of all before. An entry: a varint of type and inflated size, for deltas the base (distance
// backwards, or 20 bytes of name), then one zlib stream.
//
// Decoders take any bytes, never read outside them, and tell "more bytes are needed" from "these
// are wrong". Nothing here allocates. Thread-safe.
#pragma once

#include "gitlayer/object_id.h"

#include <kj/array.h>

#include <cstdint>

namespace packmoor::gitlayer {

constexpr size_t kPackHeaderBytes = 12;
constexpr size_t kPackTrailerBytes = 20;
constexpr uint32_t kPackVersion = 2;

// The first four are those of ObjectType.
enum class PackEntryType : uint8_t {
  kCommit = 1, kTree = 2, kBlob = 3, kTag = 4, kOfsDelta = 6, kRefDelta = 7,
};
inline bool isDelta(PackEntryType type) {
  return type == PackEntryType::kOfsDelta || type == PackEntryType::kRefDelta;
}
inline PackEntryType entryTypeOf(ObjectType type) { return static_cast<PackEntryType>(type); }
inline ObjectType objectTypeOf(PackEntryType type) {
  return isDelta(type) ? ObjectType::kNone : static_cast<ObjectType>(type);
}

enum class Decoded : uint8_t {
  kDone,
  kShort,  // right so far; more bytes are needed
  kBad,
};

Decoded decodePackHeader(kj::ArrayPtr<const kj::byte> bytes, uint32_t& objectCount);
// Writes kPackHeaderBytes.
void encodePackHeader(kj::byte* out, uint32_t objectCount);

struct PackEntryHeader {
  PackEntryType type = PackEntryType::kBlob;
  uint64_t bytes = 0;          // inflated size of what follows: the object or the delta
  uint64_t baseDistance = 0;   // kOfsDelta: from this entry's first byte backwards; never 0
  ObjectId base;               // kRefDelta
  uint32_t headerBytes = 0;    // up to the zlib stream
};
// Longest header: 10 bytes of size varint and 20 of base name.
constexpr size_t kEntryHeaderBytesMax = 30;
Decoded decodeEntryHeader(kj::ArrayPtr<const kj::byte> bytes, PackEntryHeader& header);
// Writes at most kEntryHeaderBytesMax bytes; returns how many.
size_t encodeEntryHeader(kj::byte* out, const PackEntryHeader& header);

struct DeltaHeader {
  uint64_t baseBytes = 0;
  uint64_t resultBytes = 0;
  uint32_t headerBytes = 0;
};
constexpr size_t kDeltaHeaderBytesMax = 20;
Decoded decodeDeltaHeader(kj::ArrayPtr<const kj::byte> delta, DeltaHeader& header);
// Applies a whole delta. False when any instruction leaves the base, the delta or the result,
// when the sizes differ from those in its header, or when the result is not filled exactly.
bool applyDelta(kj::ArrayPtr<const kj::byte> base, kj::ArrayPtr<const kj::byte> delta,
                kj::ArrayPtr<kj::byte> result);

}  // namespace packmoor::gitlayer
