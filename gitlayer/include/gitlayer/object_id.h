// Git object names and types.
#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string_view>

namespace packmoor::gitlayer {

constexpr size_t kOidBytes = 20;
constexpr size_t kOidHexChars = 40;

struct ObjectId {
  std::array<uint8_t, kOidBytes> bytes{};
  auto operator<=>(const ObjectId&) const = default;
  bool isZero() const { return *this == ObjectId(); }
  kj::String hex() const;
  void hexInto(char* out) const;                             // kOidHexChars, no terminator
  static bool parseHex(std::string_view text, ObjectId& out);  // exactly 40 hex digits
  static ObjectId fromBytes(const void* twentyBytes);
};
inline kj::String KJ_STRINGIFY(const ObjectId& id) { return id.hex(); }

// The values are those of pack entries.
enum class ObjectType : uint8_t { kNone = 0, kCommit = 1, kTree = 2, kBlob = 3, kTag = 4 };
std::string_view objectTypeName(ObjectType type);  // "commit", ...; "none"

// The object's name: SHA-1 over "<type> <size>\0<data>" with collision detection (libgit2's).
// A colliding object rejects with an exception. Thread-safe.
ObjectId hashObject(ObjectType type, kj::ArrayPtr<const kj::byte> data);

// Keyed, since clients choose names: those that they want, have or are shallow at, and those in trees, need
// not be of any object, and tables in which they all fell on one place would take for ever. The key is
// another one in each process; no result rests on it.
extern const std::array<uint64_t, 2> kObjectIdHashKey;

}  // namespace packmoor::gitlayer

template <>
struct std::hash<packmoor::gitlayer::ObjectId> {
  size_t operator()(const packmoor::gitlayer::ObjectId& id) const noexcept {
    using packmoor::gitlayer::kObjectIdHashKey;
    uint64_t first, second;
    uint32_t third;
    __builtin_memcpy(&first, id.bytes.data(), sizeof first);
    __builtin_memcpy(&second, id.bytes.data() + 8, sizeof second);
    __builtin_memcpy(&third, id.bytes.data() + 16, sizeof third);
    const uint64_t mixed = fold(first ^ kObjectIdHashKey[0], second ^ kObjectIdHashKey[1]);
    return fold(mixed ^ third, kObjectIdHashKey[0] | 1);
  }

 private:
  static uint64_t fold(uint64_t a, uint64_t b) noexcept {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
};
