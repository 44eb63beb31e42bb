#include "gitlayer/object_check.h"

#include <charconv>
#include <cstring>

namespace packmoor::gitlayer {

namespace {

constexpr uint32_t kModeTypeMask = 0170000;
constexpr uint32_t kModeTree = 0040000;
constexpr uint32_t kModeSubmodule = 0160000;
constexpr uint32_t kModeMax = 0177777;

std::string_view textOf(kj::ArrayPtr<const kj::byte> data) {
  return std::string_view(reinterpret_cast<const char*>(data.begin()), data.size());
}

bool take(std::string_view& rest, std::string_view expected) {
  if (rest.substr(0, expected.size()) != expected) return false;
  rest.remove_prefix(expected.size());
  return true;
}

// 40 hex digits and a newline.
bool takeName(std::string_view& rest, ObjectId& id) {
  if (rest.size() <= kOidHexChars || rest[kOidHexChars] != '\n') return false;
  if (!ObjectId::parseHex(rest.substr(0, kOidHexChars), id)) return false;
  rest.remove_prefix(kOidHexChars + 1);
  return true;
}

bool takeLine(std::string_view& rest, std::string_view& line) {
  size_t end = rest.find('\n');
  if (end == std::string_view::npos) return false;
  line = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return true;
}

// The header ends with an empty line, or with the object; it has no NUL.
const char* headerProblem(std::string_view data) {
  size_t end = data.find("\n\n");
  std::string_view header = data.substr(0, end);
  if (header.find('\0') != std::string_view::npos) {
    return "nulInHeader: unterminated header: NUL in header";
  }
  if (end == std::string_view::npos && (data.empty() || data.back() != '\n')) {
    return "unterminatedHeader: unterminated header";
  }
  return nullptr;
}

const char* checkCommit(std::string_view rest, std::vector<ObjectLink>& links) {
  if (const char* problem = headerProblem(rest)) return problem;
  ObjectId id;
  if (!take(rest, "tree ")) return "missingTree: invalid format - expected 'tree' line";
  if (!takeName(rest, id)) return "badTreeSha1: invalid 'tree' line format - bad sha1";
  links.push_back({id, ObjectType::kTree});
  while (take(rest, "parent ")) {
    if (!takeName(rest, id)) return "badParentSha1: invalid 'parent' line format - bad sha1";
    links.push_back({id, ObjectType::kCommit});
  }
  std::string_view line;
  unsigned authors = 0;
  while (take(rest, "author ")) {
    if (!takeLine(rest, line)) return "unterminatedHeader: unterminated header";
    ++authors;
  }
  if (authors == 0) return "missingAuthor: invalid format - expected 'author' line";
  if (authors > 1) return "multipleAuthors: invalid format - multiple 'author' lines";
  if (!take(rest, "committer ")) {
    return "missingCommitter: invalid format - expected 'committer' line";
  }
  return nullptr;
}

const char* checkTag(std::string_view rest, std::vector<ObjectLink>& links) {
  if (const char* problem = headerProblem(rest)) return problem;
  ObjectId id;
  std::string_view line;
  if (!take(rest, "object ")) return "missingObject: invalid format - expected 'object' line";
  if (!takeName(rest, id)) return "badObjectSha1: invalid 'object' line format - bad sha1";
  if (!take(rest, "type ")) return "missingTypeEntry: invalid format - expected 'type' line";
  if (!takeLine(rest, line)) {
    return "missingType: invalid format - unexpected end after 'type' line";
  }
  ObjectType type = objectTypeNamed(line);
  if (type == ObjectType::kNone) return "badType: invalid 'type' value";
  links.push_back({id, type});
  if (!take(rest, "tag ")) return "missingTagEntry: invalid format - expected 'tag' line";
  if (!takeLine(rest, line)) return "missingTag: invalid format - unexpected end after 'tag' line";
  return nullptr;
}

struct TreeEntry {
  uint32_t mode = 0;
  std::string_view name;
};

// Order of entries in a tree: as bytes, a tree's name with a '/' behind it. 0 also when the
// names are equal and only the types differ.
int compareEntries(const TreeEntry& a, const TreeEntry& b) {
  size_t common = a.name.size() < b.name.size() ? a.name.size() : b.name.size();
  if (int order = memcmp(a.name.data(), b.name.data(), common)) return order;
  if (a.name.size() == b.name.size()) return 0;
  auto following = [common](const TreeEntry& entry) -> int {
    if (entry.name.size() > common) return static_cast<unsigned char>(entry.name[common]);
    return (entry.mode & kModeTypeMask) == kModeTree ? '/' : 0;
  };
  return following(a) - following(b);
}

bool isDotGit(std::string_view name) {
  return name.size() == 4 && name[0] == '.' && (name[1] | 0x20) == 'g' &&
         (name[2] | 0x20) == 'i' && (name[3] | 0x20) == 't';
}

const char* entryNameProblem(std::string_view name) {
  if (name.empty()) return "emptyName: contains empty pathname";
  if (name[0] == '.') {
    if (name.size() == 1) return "hasDot: contains '.'";
    if (name == "..") return "hasDotdot: contains '..'";
    if (isDotGit(name)) return "hasDotgit: contains '.git'";
  }
  if (memchr(name.data(), '/', name.size()) != nullptr) {
    return "fullPathname: contains full pathnames";
  }
  return nullptr;
}

constexpr const char* kBadTree = "badTree: cannot be parsed as a tree";

const char* checkTree(kj::ArrayPtr<const kj::byte> data, std::vector<ObjectLink>& links) {
  TreeEntry previous;
  const kj::byte* at = data.begin();
  const kj::byte* end = data.end();
  for (bool first = true; at != end; first = false) {
    TreeEntry entry;
    if (*at == '0') return "zeroPaddedFilemode: contains zero-padded file modes";
    for (; at != end && *at >= '0' && *at <= '7'; ++at) {
      entry.mode = entry.mode << 3 | (*at - '0');
      if (entry.mode > kModeMax) return kBadTree;
    }
    if (entry.mode == 0 || at == end || *at != ' ') return kBadTree;
    const kj::byte* name = ++at;
    at = static_cast<const kj::byte*>(memchr(name, 0, end - name));
    if (at == nullptr) return kBadTree;
    if (static_cast<size_t>(end - at) < 1 + kOidBytes) return kBadTree;
    entry.name = {reinterpret_cast<const char*>(name), static_cast<size_t>(at - name)};
    if (const char* problem = entryNameProblem(entry.name)) return problem;
    if (!first) {
      int order = compareEntries(previous, entry);
      if (order == 0) return "duplicateEntries: contains duplicate file entries";
      if (order > 0) return "treeNotSorted: not properly sorted";
    }
    ObjectId id = ObjectId::fromBytes(at + 1);
    at += 1 + kOidBytes;
    if (id.isZero()) return "nullSha1: contains entries pointing to null sha1";
    uint32_t type = entry.mode & kModeTypeMask;
    if (type != kModeSubmodule) {
      links.push_back({id, type == kModeTree ? ObjectType::kTree : ObjectType::kBlob});
    }
    previous = entry;
  }
  return nullptr;
}

}  // namespace

ObjectType objectTypeNamed(std::string_view name) {
  if (name == "commit") return ObjectType::kCommit;
  if (name == "tree") return ObjectType::kTree;
  if (name == "blob") return ObjectType::kBlob;
  if (name == "tag") return ObjectType::kTag;
  return ObjectType::kNone;
}

const char* checkObject(ObjectType type, kj::ArrayPtr<const kj::byte> data,
                        std::vector<ObjectLink>& links) {
  switch (type) {
    case ObjectType::kCommit: return checkCommit(textOf(data), links);
    case ObjectType::kTree: return checkTree(data, links);
    case ObjectType::kTag: return checkTag(textOf(data), links);
    case ObjectType::kBlob: return nullptr;
    case ObjectType::kNone: break;
  }
  return "unknownType: invalid object type";
}

int64_t committerSeconds(kj::ArrayPtr<const kj::byte> commit) {
  std::string_view rest = textOf(commit), line;
  while (takeLine(rest, line) && !line.empty()) {
    if (line.substr(0, 10) != "committer ") continue;
    size_t mail = line.rfind('>');
    if (mail == std::string_view::npos) return 0;
    line.remove_prefix(mail + 1);
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    int64_t seconds = 0;
    auto parsed = std::from_chars(line.data(), line.data() + line.size(), seconds);
    return parsed.ec == std::errc() && seconds > 0 ? seconds : 0;
  }
  return 0;
}

}  // namespace packmoor::gitlayer
