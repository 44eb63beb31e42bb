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

}  // namespace packmoor::gitlayer

template <>
struct std::hash<packmoor::gitlayer::ObjectId> {
  size_t operator()(const packmoor::gitlayer::ObjectId& id) const noexcept {
    size_t value;
    __builtin_memcpy(&value, id.bytes.data(), sizeof value);
    return value;
  }
};
