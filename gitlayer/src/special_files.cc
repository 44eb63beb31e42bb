#include "special_files.h"

#include <git2.h>
#include <git2/sys/path.h>

#include <string>

namespace packmoor::gitlayer {

namespace {

constexpr size_t kAttributesBytesMax = 100u << 20;
constexpr size_t kAttributesLineMax = 2048;

bool startsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}
bool isSlash(char c) { return c == '/' || c == '\\'; }
bool isAlpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool isName(char c) { return isAlpha(c) || (c >= '0' && c <= '9') || c == '-'; }
bool isSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool isFile(std::string_view name, git_path_gitfile file) {
  return git_path_is_gitfile(name.data(), name.size(), file, GIT_PATH_FS_GENERIC) > 0;
}

// ---- submodules

bool badSubmoduleName(std::string_view name) {
  if (name.empty()) return true;
  for (size_t at = 0; at < name.size(); ++at) {
    bool begins = at == 0 || isSlash(name[at - 1]);
    if (!begins || name.substr(at, 2) != "..") continue;
    if (at + 2 == name.size() || isSlash(name[at + 2])) return true;
  }
  return false;
}

bool hasNewline(std::string_view url) {
  return url.find('\n') != url.npos || url.find("%0a") != url.npos || url.find("%0A") != url.npos;
}

// Whether "../" leads out of the URL that a relative one is added to.
bool leavesItsRoot(std::string_view url) {
  bool up = false;
  for (;;) {
    if (startsWith(url, "..") && url.size() > 2 && isSlash(url[2])) {
      up = true;
      url.remove_prefix(3);
    } else if (startsWith(url, ".") && url.size() > 1 && isSlash(url[1])) {
      url.remove_prefix(2);
    } else {
      return up && !url.empty() && (url[0] == ':' || url[0] == '/');
    }
  }
}

bool badWebUrl(std::string_view url) {
  size_t host = url.find("://");
  if (host == url.npos || host == 0) return true;
  host += 3;
  size_t end = std::min(url.find_first_of("/?#", host), url.size());
  size_t at = url.find('@', host);
  if (at < end) host = at + 1;
  return host >= end || hasNewline(url);
}

bool badSubmoduleUrl(std::string_view url) {
  if (startsWith(url, "-")) return true;
  bool relative = url.size() > 1 && url[0] == '.' &&
                  (isSlash(url[1]) || (url.size() > 2 && url[1] == '.' && isSlash(url[2])));
  if (relative || startsWith(url, "git://")) return hasNewline(url) || leavesItsRoot(url);
  for (std::string_view scheme : {"http", "https", "ftp", "ftps"}) {
    if (!startsWith(url, scheme)) continue;
    std::string_view rest = url.substr(scheme.size());
    if (startsWith(rest, "::")) return badWebUrl(rest.substr(2));
    if (startsWith(rest, "://")) return badWebUrl(url);
  }
  return false;
}

const char* settingProblem(std::string_view submodule, std::string_view key, const std::string* value) {
  if (badSubmoduleName(submodule)) return "gitmodulesName: disallowed submodule name";
  if (value == nullptr) return nullptr;
  if (key == "url" && badSubmoduleUrl(*value)) return "gitmodulesUrl: disallowed submodule url";
  if (key == "path" && startsWith(*value, "-")) return "gitmodulesPath: disallowed submodule path";
  if (key == "update" && startsWith(*value, "!")) {
    return "gitmodulesUpdate: disallowed submodule update setting";
  }
  return nullptr;
}

// ---- git-config(1), "Syntax"

class ConfigReader {
 public:
  explicit ConfigReader(std::string_view text) : rest_(text) {}

  // The first problem of a submodule's settings. What comes behind a mistake in the syntax is not
  // looked at: git does not read on either.
  const char* problem() {
    if (startsWith(rest_, "\xef\xbb\xbf")) rest_.remove_prefix(3);
    while (!atEnd()) {
      char c = take();
      if (isSpace(c)) continue;
      if (c == '#' || c == ';') {
        skipLine();
      } else if (c == '[') {
        if (!readSection()) return nullptr;
      } else if (!isAlpha(c) || !readSetting(c)) {
        return nullptr;
      } else if (startsWith(section_, "submodule.")) {
        const char* wrong = settingProblem(std::string_view(section_).substr(10), key_,
                                           hasValue_ ? &value_ : nullptr);
        if (wrong != nullptr) return wrong;
      }
    }
    return nullptr;
  }

 private:
  bool atEnd() const { return rest_.empty(); }
  // The end counts as a newline; so does "\r\n".
  char take() {
    if (rest_.empty()) return '\n';
    char c = rest_[0];
    rest_.remove_prefix(1);
    if (c == '\r' && !rest_.empty() && rest_[0] == '\n') {
      rest_.remove_prefix(1);
      return '\n';
    }
    return c;
  }
  void skipLine() {
    while (!atEnd() && take() != '\n') {
    }
  }

  bool readSection() {
    section_.clear();
    for (;;) {
      if (atEnd()) return false;
      char c = take();
      if (c == ']') return true;
      if (isSpace(c)) return readSubsection(c);
      if (!isName(c) && c != '.') return false;
      section_ += lower(c);
    }
  }
  bool readSubsection(char c) {
    while (isSpace(c)) {
      if (c == '\n') return false;
      c = take();
    }
    if (c != '"') return false;
    section_ += '.';
    for (;;) {
      c = take();
      if (c == '"') return take() == ']';
      if (c == '\\') c = take();
      if (c == '\n') return false;
      section_ += c;
    }
  }

  bool readSetting(char c) {
    key_.assign(1, lower(c));
    for (c = take(); isName(c); c = take()) key_ += lower(c);
    while (c == ' ' || c == '\t') c = take();
    value_.clear();
    hasValue_ = c != '\n';
    return !hasValue_ || (c == '=' && readValue());
  }
  bool readValue() {
    bool quoted = false, comment = false;
    size_t spaces = 0;
    for (;;) {
      char c = take();
      if (c == '\n') return !quoted;
      if (comment) continue;
      if (isSpace(c) && !quoted) {
        if (!value_.empty()) ++spaces;
        continue;
      }
      if (!quoted && (c == ';' || c == '#')) {
        comment = true;
        continue;
      }
      value_.append(spaces, ' ');
      spaces = 0;
      if (c == '"') {
        quoted = !quoted;
      } else if (c != '\\') {
        value_ += c;
      } else if (!readEscape()) {
        return false;
      }
    }
  }
  bool readEscape() {
    switch (char c = take()) {
      case '\n': return true;  // the line goes on
      case 't': value_ += '\t'; return true;
      case 'b': value_ += '\b'; return true;
      case 'n': value_ += '\n'; return true;
      case '\\':
      case '"': value_ += c; return true;
      default: return false;
    }
  }

  std::string_view rest_;
  std::string section_, key_, value_;
  bool hasValue_ = false;
};

const char* checkAttributes(std::string_view text) {
  if (text.size() > kAttributesBytesMax) {
    return "gitattributesLarge: .gitattributes too large to parse";
  }
  text = text.substr(0, text.find('\0'));
  while (!text.empty()) {
    size_t line = std::min(text.find('\n'), text.size());
    if (line >= kAttributesLineMax) {
      return "gitattributesLineLength: .gitattributes has too long lines to parse";
    }
    text.remove_prefix(std::min(line + 1, text.size()));
  }
  return nullptr;
}

// Lets nearly all names of trees by: the long forms begin with a '.', the short ones have a '~', and
// others begin with code points that do not count.
bool mayBeSpecial(std::string_view name) {
  if (name.size() < 4) return false;
  if (name[0] == '.') return lower(name[1]) == 'g' || (name[1] & 0x80) != 0;
  if (lower(name[0]) == 'g') return name.find('~') != name.npos;
  return (name[0] & 0x80) != 0;
}

}  // namespace

uint8_t specialFilesNamed(std::string_view name) {
  uint8_t special = 0;
  if (mayBeSpecial(name)) {
    if (isFile(name, GIT_PATH_GITFILE_GITMODULES)) special |= kGitmodules;
    if (isFile(name, GIT_PATH_GITFILE_GITATTRIBUTES)) special |= kGitattributes;
  }
  for (size_t at = name.find('\\'); at != name.npos; at = name.find('\\', at + 1)) {
    if (isFile(name.substr(at + 1), GIT_PATH_GITFILE_GITMODULES)) special |= kGitmodules;
  }
  return special;
}

const char* checkSpecialFile(uint8_t special, ObjectType type, kj::ArrayPtr<const kj::byte> data) {
  std::string_view text(reinterpret_cast<const char*>(data.begin()), data.size());
  if ((special & kGitmodules) != 0) {
    if (type != ObjectType::kBlob) return "gitmodulesBlob: non-blob found at .gitmodules";
    if (const char* problem = ConfigReader(text).problem()) return problem;
  }
  if ((special & kGitattributes) != 0) {
    if (type != ObjectType::kBlob) return "gitattributesBlob: non-blob found at .gitattributes";
    if (const char* problem = checkAttributes(text)) return problem;
  }
  return nullptr;
}

}  // namespace packmoor::gitlayer
