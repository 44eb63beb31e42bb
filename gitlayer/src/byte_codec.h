// Numbers and strings in rows of the state store. Rows use little-endian numbers; keys that must
// sort by number use big-endian ones.
#pragma once

#include <kj/debug.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace packmoor::gitlayer {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "formats are little-endian");

inline void putU32(std::string& out, uint32_t value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}
inline void putU64(std::string& out, uint64_t value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}
inline void putBigU64(std::string& out, uint64_t value) { putU64(out, __builtin_bswap64(value)); }
inline void putText(std::string& out, std::string_view text) {
  putU32(out, static_cast<uint32_t>(text.size()));
  out.append(text);
}

// Reads a row front to back. A row that ends early is damage: thrown as a sentence.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  uint8_t u8() { return static_cast<uint8_t>(bytes(1)[0]); }
  uint32_t u32() { return number<uint32_t>(); }
  uint64_t u64() { return number<uint64_t>(); }
  uint64_t bigU64() { return __builtin_bswap64(number<uint64_t>()); }
  std::string_view text() {
    const uint32_t size = u32();
    return bytes(size);
  }
  std::string_view bytes(size_t count) {
    KJ_REQUIRE(count <= rest_.size(), "A row of the state store is damaged: it ends early.");
    const std::string_view result = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return result;
  }
  std::string_view rest() const { return rest_; }

 private:
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, bytes(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view rest_;
};

}  // namespace packmoor::gitlayer
