#include "gitlayer/pack_format.h"

#include <kernelio/check.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

uint32_t loadBig32(const kj::byte* p) {
  return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | uint32_t(p[3]);
}

void storeBig32(kj::byte* p, uint32_t value) {
  p[0] = static_cast<kj::byte>(value >> 24);
  p[1] = static_cast<kj::byte>(value >> 16);
  p[2] = static_cast<kj::byte>(value >> 8);
  p[3] = static_cast<kj::byte>(value);
}

// Little-endian base-128 number of a delta's header, at `at`.
Decoded decodeDeltaNumber(kj::ArrayPtr<const kj::byte> bytes, size_t& at, uint64_t& value) {
  value = 0;
  for (unsigned shift = 0;; shift += 7) {
    if (at == bytes.size()) return Decoded::kShort;
    if (shift > 63) return Decoded::kBad;
    kj::byte b = bytes[at++];
    uint64_t part = b & 0x7f;
    if (shift == 63 && part > 1) return Decoded::kBad;
    value |= part << shift;
    if ((b & 0x80) == 0) return Decoded::kDone;
  }
}

// The distance of an ofs-delta, at `at`.
Decoded decodeDistance(kj::ArrayPtr<const kj::byte> bytes, size_t& at, uint64_t& distance) {
  if (at == bytes.size()) return Decoded::kShort;
  kj::byte b = bytes[at++];
  distance = b & 0x7f;
  while (b & 0x80) {
    if (at == bytes.size()) return Decoded::kShort;
    if (distance >= (uint64_t(1) << 56)) return Decoded::kBad;
    b = bytes[at++];
    distance = (distance + 1) << 7 | (b & 0x7f);
  }
  return distance == 0 ? Decoded::kBad : Decoded::kDone;
}

}  // namespace

Decoded decodePackHeader(kj::ArrayPtr<const kj::byte> bytes, uint32_t& objectCount) {
  size_t known = kj::min(bytes.size(), size_t(4));
  if (known > 0 && memcmp(bytes.begin(), "PACK", known) != 0) return Decoded::kBad;
  if (bytes.size() < kPackHeaderBytes) return Decoded::kShort;
  uint32_t version = loadBig32(bytes.begin() + 4);
  if (version != 2 && version != 3) return Decoded::kBad;  // git reads both alike
  objectCount = loadBig32(bytes.begin() + 8);
  return Decoded::kDone;
}

void encodePackHeader(kj::byte* out, uint32_t objectCount) {
  memcpy(out, "PACK", 4);
  storeBig32(out + 4, kPackVersion);
  storeBig32(out + 8, objectCount);
}

Decoded decodeEntryHeader(kj::ArrayPtr<const kj::byte> bytes, PackEntryHeader& header) {
  if (bytes.size() == 0) return Decoded::kShort;
  size_t at = 0;
  kj::byte b = bytes[at++];
  unsigned type = b >> 4 & 7;
  if (type == 0 || type == 5) return Decoded::kBad;
  header.type = static_cast<PackEntryType>(type);
  header.bytes = b & 15;
  header.baseDistance = 0;
  for (unsigned shift = 4; b & 0x80; shift += 7) {
    if (at == bytes.size()) return Decoded::kShort;
    b = bytes[at++];
    uint64_t part = b & 0x7f;
    if (shift > 60 || (shift == 60 && part > 15)) return Decoded::kBad;
    header.bytes |= part << shift;
  }
  if (header.type == PackEntryType::kOfsDelta) {
    Decoded distance = decodeDistance(bytes, at, header.baseDistance);
    if (distance != Decoded::kDone) return distance;
  } else if (header.type == PackEntryType::kRefDelta) {
    if (bytes.size() - at < kOidBytes) return Decoded::kShort;
    memcpy(header.base.bytes.data(), bytes.begin() + at, kOidBytes);
    at += kOidBytes;
  }
  header.headerBytes = static_cast<uint32_t>(at);
  return Decoded::kDone;
}

size_t encodeEntryHeader(kj::byte* out, const PackEntryHeader& header) {
  size_t at = 0;
  uint64_t size = header.bytes >> 4;
  out[at] = static_cast<kj::byte>(static_cast<unsigned>(header.type) << 4 | (header.bytes & 15));
  while (size != 0) {
    out[at++] |= 0x80;
    out[at] = static_cast<kj::byte>(size & 0x7f);
    size >>= 7;
  }
  ++at;
  if (header.type == PackEntryType::kOfsDelta) {
    PACKMOOR_CHECK(header.baseDistance != 0, "an ofs-delta must point backwards");
    kj::byte digits[10];
    size_t first = sizeof digits;
    uint64_t rest = header.baseDistance;
    digits[--first] = static_cast<kj::byte>(rest & 0x7f);
    while (rest >>= 7) digits[--first] = static_cast<kj::byte>(0x80 | (--rest & 0x7f));
    memcpy(out + at, digits + first, sizeof digits - first);
    at += sizeof digits - first;
  } else if (header.type == PackEntryType::kRefDelta) {
    memcpy(out + at, header.base.bytes.data(), kOidBytes);
    at += kOidBytes;
  }
  return at;
}

Decoded decodeDeltaHeader(kj::ArrayPtr<const kj::byte> delta, DeltaHeader& header) {
  size_t at = 0;
  Decoded base = decodeDeltaNumber(delta, at, header.baseBytes);
  if (base != Decoded::kDone) return base;
  Decoded result = decodeDeltaNumber(delta, at, header.resultBytes);
  if (result != Decoded::kDone) return result;
  header.headerBytes = static_cast<uint32_t>(at);
  return Decoded::kDone;
}

namespace {

// The operands of a copy instruction; false when they run out of the delta.
bool decodeCopy(kj::byte op, const kj::byte*& in, const kj::byte* inEnd, uint32_t& offset,
                uint32_t& size) {
  offset = 0;
  size = 0;
  for (unsigned i = 0; i < 4; ++i) {
    if (op & (1u << i)) {
      if (in == inEnd) return false;
      offset |= uint32_t(*in++) << (8 * i);
    }
  }
  for (unsigned i = 0; i < 3; ++i) {
    if (op & (0x10u << i)) {
      if (in == inEnd) return false;
      size |= uint32_t(*in++) << (8 * i);
    }
  }
  if (size == 0) size = 0x10000;
  return true;
}

}  // namespace

bool applyDelta(kj::ArrayPtr<const kj::byte> base, kj::ArrayPtr<const kj::byte> delta,
                kj::ArrayPtr<kj::byte> result) {
  DeltaHeader header;
  if (decodeDeltaHeader(delta, header) != Decoded::kDone) return false;
  if (header.baseBytes != base.size()) return false;
  if (header.resultBytes != result.size()) return false;
  const kj::byte* in = delta.begin() + header.headerBytes;
  const kj::byte* inEnd = delta.end();
  kj::byte* out = result.begin();
  kj::byte* outEnd = result.end();
  while (in != inEnd) {
    kj::byte op = *in++;
    if (op & 0x80) {  // copy from the base
      uint32_t offset, size;
      if (!decodeCopy(op, in, inEnd, offset, size)) return false;
      if (offset > base.size() || size > base.size() - offset) return false;
      if (size > static_cast<size_t>(outEnd - out)) return false;
      memcpy(out, base.begin() + offset, size);
      out += size;
    } else if (op != 0) {  // insert the next `op` bytes
      if (op > inEnd - in || op > outEnd - out) return false;
      memcpy(out, in, op);
      in += op;
      out += op;
    } else {
      return false;  // reserved
    }
  }
  return out == outEnd;
}

}  // namespace packmoor::gitlayer
