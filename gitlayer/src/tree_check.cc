#include "tree_check.h"

#include "special_files.h"

#include <array>
#include <cstring>

namespace packmoor::gitlayer {

namespace {

constexpr uint32_t kModeTypeMask = 0170000;
constexpr uint32_t kModeTree = 0040000;
constexpr uint32_t kModeFile = 0100000;
constexpr uint32_t kModeLink = 0120000;
constexpr const char* kBadTree = "badTree: cannot be parsed as a tree";

struct TreeEntry {
  uint32_t mode = 0;
  std::string_view name;
  bool is(uint32_t type) const { return (mode & kModeTypeMask) == type; }
};

// Bytes that end a plain name, or make it another.
constexpr std::array<bool, 256> nameEnds() {
  std::array<bool, 256> ends = {};
  for (unsigned char c : {'\0', '/', '\\', '~'}) ends[c] = true;
  return ends;
}
constexpr std::array<bool, 256> kNameEnds = nameEnds();

// Takes the name and the NUL behind it. False: no NUL follows. `plain`: nothing can be wrong with the
// name, and it is that of no special file.
bool takeName(const kj::byte*& at, const kj::byte* end, std::string_view& name, bool& plain) {
  const kj::byte* begin = at;
  while (at != end && !kNameEnds[*at]) ++at;
  if (at == end) return false;
  plain = *at == 0 && at != begin && *begin != '.' && *begin < 0x80;
  if (*at != 0) {
    at = static_cast<const kj::byte*>(memchr(at, 0, end - at));
    if (at == nullptr) return false;
  }
  name = {reinterpret_cast<const char*>(begin), static_cast<size_t>(at - begin)};
  ++at;
  return true;
}

// Order of entries in a tree, none of which is nameless: as bytes, a tree's name with a '/' behind it. 0 also when the
// names are equal and only the types differ.
int compareEntries(const TreeEntry& a, const TreeEntry& b) {
  // Mostly the first bytes tell.
  if (int order = static_cast<unsigned char>(a.name[0]) - static_cast<unsigned char>(b.name[0])) {
    return order;
  }
  size_t common = a.name.size() < b.name.size() ? a.name.size() : b.name.size();
  if (int order = memcmp(a.name.data(), b.name.data(), common)) return order;
  if (a.name.size() == b.name.size()) return 0;
  auto following = [common](const TreeEntry& entry) -> int {
    if (entry.name.size() > common) return static_cast<unsigned char>(entry.name[common]);
    return entry.is(kModeTree) ? '/' : 0;
  };
  return following(a) - following(b);
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool takeLower(std::string_view& rest, std::string_view expected) {
  if (rest.size() < expected.size()) return false;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (lower(rest[i]) != expected[i]) return false;
  }
  rest.remove_prefix(expected.size());
  return true;
}

bool ntfsDotGit(std::string_view rest) {
  if (!takeLower(rest, ".git") && !takeLower(rest, "git~1")) return false;
  size_t end = rest.find_first_not_of(". ");
  return end == rest.npos || rest[end] == '\\' || rest[end] == '/' || rest[end] == ':';
}

// The next code point; 0 at the end and where the bytes are no UTF-8.
uint32_t takeCodePoint(std::string_view& rest) {
  if (rest.empty()) return 0;
  uint32_t lead = static_cast<unsigned char>(rest[0]);
  size_t more = lead < 0x80 ? 0 : lead < 0xc2 ? 9 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : 9;
  if (more >= rest.size()) return 0;
  uint32_t code = more == 0 ? lead : lead & (0x3f >> more);
  for (size_t i = 1; i <= more; ++i) {
    uint32_t next = static_cast<unsigned char>(rest[i]);
    if ((next & 0xc0) != 0x80) return 0;
    code = code << 6 | (next & 0x3f);
  }
  rest.remove_prefix(more + 1);
  bool overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
  bool none = (code >= 0xd800 && code < 0xe000) || (code & ~1u) == 0xfffe || code > 0x10ffff;
  return overlong || none ? 0 : code;
}

uint32_t takeHfsCodePoint(std::string_view& rest) {
  for (;;) {
    uint32_t code = takeCodePoint(rest);
    bool ignored = (code >= 0x200c && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
                   (code >= 0x206a && code <= 0x206f) || code == 0xfeff;
    if (!ignored) return code;
  }
}

bool hfsDotGit(std::string_view rest) {
  for (char c : {'.', 'g', 'i', 't'}) {
    uint32_t code = takeHfsCodePoint(rest);
    if (code > 0x7f || lower(static_cast<char>(code)) != c) return false;
  }
  uint32_t code = takeHfsCodePoint(rest);
  return code == 0 || code == '/';
}

const char* entryProblem(const TreeEntry& entry) {
  std::string_view name = entry.name;
  if (name.empty()) return "emptyName: contains empty pathname";
  if (name == ".") return "hasDot: contains '.'";
  if (name == "..") return "hasDotdot: contains '..'";
  if (memchr(name.data(), '/', name.size()) != nullptr) {
    return "fullPathname: contains full pathnames";
  }
  if (namesDotGit(name)) return "hasDotgit: contains '.git'";
  if (entry.is(kModeLink) && (specialFilesNamed(name) & kGitmodules) != 0) {
    return "gitmodulesSymlink: .gitmodules is a symbolic link";
  }
  return nullptr;
}

// Finds names that are there twice, as a file and as a tree, with others in order between them.
class FileNames {
 public:
  // False: the entry, which is behind all before it, is a tree of a file's name.
  bool add(const TreeEntry& entry) {
    if (!last_.empty() && extends(entry.name, last_)) begun_.push_back(last_);
    while (!begun_.empty() && !extends(entry.name, begun_.back())) begun_.pop_back();
    bool isTree = entry.is(kModeTree);
    if (isTree && !begun_.empty() && begun_.back() == entry.name) return false;
    last_ = isTree ? std::string_view() : entry.name;
    return true;
  }

 private:
  // `prefix` is not empty.
  static bool extends(std::string_view name, std::string_view prefix) {
    return name.size() >= prefix.size() && name[prefix.size() - 1] == prefix.back() &&
           memcmp(name.data(), prefix.data(), prefix.size()) == 0;
  }
  std::string_view last_;                  // of the entry before, where it is a file
  std::vector<std::string_view> begun_;    // files whose names begin the last one; mostly none
};

}  // namespace

bool namesDotGit(std::string_view name) {
  if (name.empty()) return false;
  char first = lower(name[0]);
  bool odd = (first & 0x80) != 0;
  if ((first == '.' || odd) && hfsDotGit(name)) return true;
  if ((first == '.' || first == 'g') && ntfsDotGit(name)) return true;
  for (size_t at = name.find('\\'); at != name.npos; at = name.find('\\', at + 1)) {
    if (ntfsDotGit(name.substr(at + 1))) return true;
  }
  return false;
}

const char* checkTree(kj::ArrayPtr<const kj::byte> data, std::vector<ObjectLink>& links) {
  TreeEntry previous;
  FileNames files;
  const kj::byte* at = data.begin();
  const kj::byte* end = data.end();
  for (bool first = true; at != end; first = false) {
    TreeEntry entry;
    if (*at == '0') return "zeroPaddedFilemode: contains zero-padded file modes";
    // Of too many digits the last ones count, as they do whenever the tree is read.
    const kj::byte* mode = at;
    for (; at != end && *at >= '0' && *at <= '7'; ++at) entry.mode = entry.mode << 3 | (*at - '0');
    if (at == mode || at == end || *at != ' ') return kBadTree;
    bool plain = false;
    if (!takeName(++at, end, entry.name, plain)) return kBadTree;
    if (static_cast<size_t>(end - at) < kOidBytes) return kBadTree;
    if (!plain) {
      if (const char* problem = entryProblem(entry)) return problem;
    }
    if (!first) {
      int order = compareEntries(previous, entry);
      if (order == 0) return "duplicateEntries: contains duplicate file entries";
      if (order > 0) return "treeNotSorted: not properly sorted";
    }
    if (!files.add(entry)) return "duplicateEntries: contains duplicate file entries";
    ObjectId id = ObjectId::fromBytes(at);
    at += kOidBytes;
    if (id.isZero()) return "nullSha1: contains entries pointing to null sha1";
    // What is neither file nor link is a submodule, whatever its mode.
    if (entry.is(kModeTree) || entry.is(kModeFile)) {
      ObjectType type = entry.is(kModeTree) ? ObjectType::kTree : ObjectType::kBlob;
      links.push_back({id, type, plain ? uint8_t(0) : specialFilesNamed(entry.name)});
    } else if (entry.is(kModeLink)) {
      links.push_back({id, ObjectType::kBlob});
    }
    previous = entry;
  }
  return nullptr;
}

}  // namespace packmoor::gitlayer
