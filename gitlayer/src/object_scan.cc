#include "object_scan.h"

#include <algorithm>
#include <charconv>

namespace packmoor::gitlayer {

int64_t CommitScan::committerDate() const {
  constexpr std::string_view kKey = "committer ";
  std::string_view rest = rest_;
  while (!rest.empty() && rest.front() != '\n' && rest.substr(0, kKey.size()) != kKey) {
    size_t end = rest.find('\n');
    if (end == rest.npos) return 0;
    rest.remove_prefix(end + 1);
  }
  if (rest.substr(0, kKey.size()) != kKey) return 0;
  rest = rest.substr(0, rest.find('\n'));
  size_t mail = rest.rfind('>');
  if (mail == rest.npos) return 0;
  rest.remove_prefix(mail + 1);
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  int64_t date = 0;
  auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), date);
  return parsed.ec == std::errc() && date >= 0 ? date : 0;
}

bool scanTag(kj::ArrayPtr<const kj::byte> data, ObjectId& target, ObjectType& targetType) {
  std::string_view rest(reinterpret_cast<const char*>(data.begin()), data.size());
  constexpr std::string_view kObject = "object ", kType = "type ";
  if (rest.substr(0, kObject.size()) != kObject) return false;
  rest.remove_prefix(kObject.size());
  if (rest.size() <= kOidHexChars || rest[kOidHexChars] != '\n' ||
      !ObjectId::parseHex(rest.substr(0, kOidHexChars), target)) {
    return false;
  }
  rest.remove_prefix(kOidHexChars + 1);
  if (rest.substr(0, kType.size()) != kType) return false;
  rest.remove_prefix(kType.size());
  auto name = rest.substr(0, rest.find('\n'));
  for (ObjectType type : {ObjectType::kCommit, ObjectType::kTree, ObjectType::kBlob,
                          ObjectType::kTag}) {
    if (name == objectTypeName(type)) {
      targetType = type;
      return true;
    }
  }
  return false;
}

int TreeScan::compare(const Entry& a, const Entry& b) {
  size_t common = std::min(a.name.size(), b.name.size());
  if (int order = memcmp(a.name.data(), b.name.data(), common); order != 0) return order;
  auto following = [common](const Entry& entry) -> int {
    if (entry.name.size() > common) return static_cast<unsigned char>(entry.name[common]);
    return entry.isTree() ? '/' : 0;
  };
  return following(a) - following(b);
}

}  // namespace packmoor::gitlayer
