#include "gitlayer/object_id.h"

#include "checked_sha1.h"
#include "libgit2_init.h"

#include <kj/debug.h>

#include <git2/errors.h>
#include <git2/odb.h>
#include <git2/oid.h>

#include <cstring>

#include <sys/auxv.h>

namespace packmoor::gitlayer {

namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

int hexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

static_assert(sizeof(ObjectId) == kOidBytes);
static_assert(sizeof(ObjectId) == sizeof(git_oid));
static_assert(static_cast<int>(ObjectType::kCommit) == GIT_OBJECT_COMMIT);
static_assert(static_cast<int>(ObjectType::kTree) == GIT_OBJECT_TREE);
static_assert(static_cast<int>(ObjectType::kBlob) == GIT_OBJECT_BLOB);
static_assert(static_cast<int>(ObjectType::kTag) == GIT_OBJECT_TAG);

kj::String ObjectId::hex() const {
  auto result = kj::heapString(kOidHexChars);
  hexInto(result.begin());
  return result;
}

void ObjectId::hexInto(char* out) const {
  for (uint8_t byte : bytes) {
    *out++ = kHexDigits[byte >> 4];
    *out++ = kHexDigits[byte & 15];
  }
}

bool ObjectId::parseHex(std::string_view text, ObjectId& out) {
  ObjectId parsed;
  if (text.size() != kOidHexChars) return false;
  for (size_t i = 0; i < kOidBytes; ++i) {
    const int high = hexValue(text[2 * i]), low = hexValue(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    parsed.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  out = parsed;
  return true;
}

ObjectId ObjectId::fromBytes(const void* twentyBytes) {
  ObjectId result;
  std::memcpy(result.bytes.data(), twentyBytes, kOidBytes);
  return result;
}

std::string_view objectTypeName(ObjectType type) {
  switch (type) {
    case ObjectType::kCommit: return "commit";
    case ObjectType::kTree: return "tree";
    case ObjectType::kBlob: return "blob";
    case ObjectType::kTag: return "tag";
    case ObjectType::kNone: break;
  }
  return "none";
}

namespace {

ObjectId hashByLibgit2(ObjectType type, kj::ArrayPtr<const kj::byte> data) {
  initLibgit2();
  git_oid id;
  const int error =
      git_odb_hash(&id, data.begin(), data.size(), static_cast<git_object_t>(type));
  if (error != 0) {
    const git_error* last = git_error_last();
    KJ_FAIL_REQUIRE("cannot hash object", objectTypeName(type).data(), data.size(),
                    last == nullptr || last->message == nullptr ? "no reason" : last->message);
  }
  return ObjectId::fromBytes(id.id);
}

}  // namespace

// The system's own random bytes for this process.
const std::array<uint64_t, 2> kObjectIdHashKey = []() {
  std::array<uint64_t, 2> key = {0x9e3779b97f4a7c15, 0xd1b54a32d192ed03};
  const auto* given = reinterpret_cast<const void*>(getauxval(AT_RANDOM));
  if (given != nullptr) std::memcpy(key.data(), given, sizeof key);
  return key;
}();

ObjectId hashObject(ObjectType type, kj::ArrayPtr<const kj::byte> data) {
  if (!hasSha1Kernel()) return hashByLibgit2(type, data);
  KJ_REQUIRE(type != ObjectType::kNone, "cannot hash an object without a type");
  kj::byte prefix[kSha1PrefixBytesMax];
  const size_t prefixBytes = writeObjectPrefix(type, data.size(), prefix);
  ObjectId id;
  if (!checkedSha1(kj::arrayPtr(prefix, prefixBytes), data, id)) {
    KJ_FAIL_REQUIRE("SHA-1 appears to be part of a collision attack",
                    objectTypeName(type).data(), data.size());
  }
  return id;
}

}  // namespace packmoor::gitlayer
