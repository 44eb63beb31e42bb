#include "gitlayer/object_check.h"

#include "tree_check.h"

#include <charconv>
#include <limits>

namespace packmoor::gitlayer {

namespace {

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

bool isDigit(char c) { return c >= '0' && c <= '9'; }
bool isSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// The seconds of "<seconds> <zone>\n", read as strtoumax(3) reads them.
const char* takeSeconds(std::string_view& rest) {
  if (rest.size() > 1 && rest[0] == '0' && rest[1] != ' ') {
    return "zeroPaddedDate: invalid author/committer line - zero-padded date";
  }
  size_t at = 0;
  while (at < rest.size() && isSpace(rest[at])) ++at;
  bool negative = at < rest.size() && rest[at] == '-';
  if (at < rest.size() && (rest[at] == '-' || rest[at] == '+')) ++at;
  uint64_t seconds = 0;
  auto [end, error] = std::from_chars(rest.data() + at, rest.data() + rest.size(), seconds);
  if (error == std::errc::result_out_of_range || (negative && seconds > 0) ||
      seconds > uint64_t(std::numeric_limits<int64_t>::max())) {
    return "badDateOverflow: invalid author/committer line - date causes integer overflow";
  }
  size_t taken = end - rest.data();
  if (error != std::errc() || taken == rest.size() || rest[taken] != ' ') {
    return "badDate: invalid author/committer line - bad date";
  }
  rest.remove_prefix(taken + 1);
  return nullptr;
}

// What follows "author ", "committer " or "tagger ", up to its newline, which is there.
const char* takeIdent(std::string_view& rest) {
  std::string_view p = rest;
  rest.remove_prefix(rest.find('\n') + 1);
  if (p[0] == '<') {
    return "missingNameBeforeEmail: invalid author/committer line - missing space before email";
  }
  size_t at = p.find_first_of("<>\n");
  if (p[at] == '>') return "badName: invalid author/committer line - bad name";
  if (p[at] != '<') return "missingEmail: invalid author/committer line - missing email";
  if (p[at - 1] != ' ') {
    return "missingSpaceBeforeEmail: invalid author/committer line - missing space before email";
  }
  at = p.find_first_of("<>\n", at + 1);
  if (at == p.npos || p[at] != '>') return "badEmail: invalid author/committer line - bad email";
  p.remove_prefix(at + 1);
  if (!take(p, " ")) {
    return "missingSpaceBeforeDate: invalid author/committer line - missing space before date";
  }
  if (const char* problem = takeSeconds(p)) return problem;
  bool zone = p.size() > 5 && (p[0] == '+' || p[0] == '-') && isDigit(p[1]) && isDigit(p[2]) &&
              isDigit(p[3]) && isDigit(p[4]) && p[5] == '\n';
  return zone ? nullptr : "badTimezone: invalid author/committer line - bad time zone";
}

const char* checkCommit(const std::string_view data, std::vector<ObjectLink>& links) {
  if (const char* problem = headerProblem(data)) return problem;
  std::string_view rest = data;
  ObjectId id;
  if (!take(rest, "tree ")) return "missingTree: invalid format - expected 'tree' line";
  if (!takeName(rest, id)) return "badTreeSha1: invalid 'tree' line format - bad sha1";
  links.push_back({id, ObjectType::kTree});
  while (take(rest, "parent ")) {
    if (!takeName(rest, id)) return "badParentSha1: invalid 'parent' line format - bad sha1";
    links.push_back({id, ObjectType::kCommit});
  }
  unsigned authors = 0;
  for (; take(rest, "author "); ++authors) {
    if (const char* problem = takeIdent(rest)) return problem;
  }
  if (authors == 0) return "missingAuthor: invalid format - expected 'author' line";
  if (authors > 1) return "multipleAuthors: invalid format - multiple 'author' lines";
  if (!take(rest, "committer ")) {
    return "missingCommitter: invalid format - expected 'committer' line";
  }
  if (const char* problem = takeIdent(rest)) return problem;
  if (data.find('\0') != data.npos) return "nulInCommit: NUL byte in the commit object body";
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
  // Old tags have no tagger. With more headers behind it git takes any.
  if (!take(rest, "tagger ")) return nullptr;
  const char* problem = takeIdent(rest);
  return rest.empty() || rest[0] == '\n' ? problem : nullptr;
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
