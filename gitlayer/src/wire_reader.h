// Protobuf's wire format, read and written in place (protobuf.dev/programming-guides/encoding).
//
// For messages with large fields, where the generated classes would copy. Bounds are checked; what
// is malformed is thrown as a sentence.
#pragma once

#include <kj/array.h>
#include <kj/debug.h>

#include <cstring>
#include <string_view>

namespace packmoor::gitlayer {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct WireField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;      // kVarint
  std::string_view bytes;  // kBytes

  // What a known field must be; another type is malformed.
  uint64_t asNumber() const {
    KJ_REQUIRE(type == WireType::kVarint, "malformed record: a field has the wrong type", number);
    return value;
  }
  std::string_view asBytes() const {
    KJ_REQUIRE(type == WireType::kBytes, "malformed record: a field has the wrong type", number);
    return bytes;
  }
};

class WireReader {
 public:
  explicit WireReader(std::string_view message) : rest_(message) {}

  // False at the end of the message.
  bool next(WireField& field) {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    KJ_REQUIRE(tag >> 3 > 0 && tag >> 3 <= kFieldNumberMax, "malformed record: field number");
    field.number = static_cast<uint32_t>(tag >> 3);
    field.type = static_cast<WireType>(tag & 7);
    switch (field.type) {
      case WireType::kVarint: field.value = varint(); break;
      case WireType::kBytes: field.bytes = take(varint()); break;
      case WireType::kFixed64: take(8); break;
      case WireType::kFixed32: take(4); break;
      default: KJ_FAIL_REQUIRE("malformed record: field type", tag & 7);
    }
    return true;
  }

 private:
  static constexpr uint64_t kFieldNumberMax = (1u << 29) - 1;

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    KJ_FAIL_REQUIRE("malformed record: number too long");
  }
  std::string_view take(uint64_t count) {
    KJ_REQUIRE(count <= rest_.size(), "malformed record: it ends early");
    const std::string_view result = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return result;
  }
  std::string_view rest_;
};

// Where a message is measured: the same calls as WireWriter's, adding up sizes.
class WireMeasure {
 public:
  size_t size() const { return size_; }
  void number(uint32_t field, uint64_t value) {
    if (value != 0) size_ += varintBytes(field << 3) + varintBytes(value);
  }
  void bytes(uint32_t field, std::string_view value) {
    if (!value.empty()) element(field, value.size());
  }
  // A length-delimited field that is written even when empty (of a repeated field).
  void element(uint32_t field, size_t size) {
    size_ += varintBytes(field << 3) + varintBytes(size) + size;
  }

 private:
  static size_t varintBytes(uint64_t value) {
    size_t bytes = 1;
    for (; value >= 0x80; value >>= 7) ++bytes;
    return bytes;
  }
  size_t size_ = 0;
};

// Writes into memory of the measured size. Fields with default values are left out, as protobuf
// does.
class WireWriter {
 public:
  explicit WireWriter(kj::ArrayPtr<kj::byte> out) : at_(out.begin()), end_(out.end()) {}
  bool isFull() const { return at_ == end_; }

  void number(uint32_t field, uint64_t value) {
    if (value == 0) return;
    varint(field << 3 | static_cast<uint32_t>(WireType::kVarint));
    varint(value);
  }
  void bytes(uint32_t field, std::string_view value) {
    if (!value.empty()) element(field, value);
  }
  void element(uint32_t field, std::string_view value) {
    begin(field, value.size());
    std::memcpy(at_, value.data(), value.size());
    at_ += value.size();
  }
  // Begins an embedded message of the measured size.
  void begin(uint32_t field, size_t size) {
    varint(field << 3 | static_cast<uint32_t>(WireType::kBytes));
    varint(size);
  }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) *at_++ = static_cast<kj::byte>(value | 0x80);
    *at_++ = static_cast<kj::byte>(value);
  }
  kj::byte* at_;
  kj::byte* end_;
};

}  // namespace packmoor::gitlayer
