#include "path_pattern.h"

#include <algorithm>
#include <cctype>

namespace packmoor::gitlayer {
namespace {

// "[:alpha:]" and the like. nullptr: there is no such class.
int (*classNamed(std::string_view name))(int) {
  struct Named {
    std::string_view name;
    int (*test)(int);
  };
  static constexpr Named kClasses[] = {
      {"alnum", isalnum}, {"alpha", isalpha}, {"blank", isblank}, {"cntrl", iscntrl},
      {"digit", isdigit}, {"graph", isgraph}, {"lower", islower}, {"print", isprint},
      {"punct", ispunct}, {"space", isspace}, {"upper", isupper}, {"xdigit", isxdigit}};
  for (const Named& named : kClasses) {
    if (named.name == name) return named.test;
  }
  return nullptr;
}

uint8_t byteAt(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

}  // namespace

// ---- one pattern

PathPattern::PathPattern(std::string_view text, bool wholePath) : wholePath_(wholePath) {
  for (size_t at = 0; at < text.size() && !never_;) {
    char c = text[at];
    if (c == '*') {
      at = addStars(text, at);
    } else if (c == '[') {
      at = addSet(text, at + 1);
    } else if (c == '?') {
      add(Kind::kAny);
      ++at;
    } else {
      if (c == '\\' && ++at == text.size()) {
        never_ = true;
        break;
      }
      add(Kind::kByte, byteAt(text, at++));
    }
  }
}

// "**" stands for folders only between slashes; elsewhere it is "*".
size_t PathPattern::addStars(std::string_view text, size_t at) {
  size_t end = std::min(text.find_first_not_of('*', at), text.size());
  bool begins = at == 0 || text[at - 1] == '/';
  bool ends = end == text.size() || text[end] == '/';
  if (!wholePath_) {
    add(Kind::kAll);
  } else if (end - at < 2 || !begins || !ends) {
    add(Kind::kStar);
  } else if (end == text.size()) {
    add(Kind::kAll);
  } else {
    add(Kind::kFolders);
    add(Kind::kInside);
    ++end;
  }
  return end;
}

// From behind the '[' to behind the ']'.
size_t PathPattern::addSet(std::string_view text, size_t at) {
  std::bitset<256> set;
  bool negative = at < text.size() && (text[at] == '!' || text[at] == '^');
  if (negative) ++at;
  for (bool first = true;; first = false) {
    if (at >= text.size()) {
      never_ = true;
      return at;
    }
    if (text[at] == ']' && !first) break;
    if (text[at] == '[' && at + 1 < text.size() && text[at + 1] == ':') {
      size_t end = text.find(":]", at + 2);
      auto test = end == text.npos ? nullptr : classNamed(text.substr(at + 2, end - at - 2));
      if (end != text.npos && test == nullptr) never_ = true;
      if (test != nullptr) {
        for (int c = 0; c < 128; ++c) set[c] = set[c] || test(c) != 0;
        at = end + 2;
        continue;
      }
    }
    if (text[at] == '\\' && at + 1 < text.size()) ++at;
    unsigned low = byteAt(text, at++), high = low;
    if (at + 1 < text.size() && text[at] == '-' && text[at + 1] != ']') {
      ++at;
      if (text[at] == '\\' && at + 1 < text.size()) ++at;
      high = byteAt(text, at++);
    }
    for (unsigned c = low; c <= high; ++c) set.set(c);
  }
  if (negative) set.flip();
  if (wholePath_) set.reset('/');
  tokens_.push_back({Kind::kSet, 0, static_cast<uint32_t>(sets_.size())});
  sets_.push_back(set);
  return at + 1;
}

// A state is the number of tokens behind it; those that need no byte are passed at once.
void PathPattern::addState(std::vector<uint32_t>& states, std::vector<bool>& in,
                           uint32_t state) const {
  for (;;) {
    if (in[state]) return;
    in[state] = true;
    states.push_back(state);
    if (state == tokens_.size()) return;
    Kind kind = tokens_[state].kind;
    if (kind == Kind::kStar || kind == Kind::kAll) {
      ++state;
    } else if (kind == Kind::kFolders) {
      state += 2;
    } else {
      return;
    }
  }
}

bool PathPattern::takes(const Token& token, uint8_t byte) const {
  switch (token.kind) {
    case Kind::kByte: return token.byte == byte;
    case Kind::kSet: return sets_[token.set][byte];
    case Kind::kAny:
    case Kind::kStar: return !wholePath_ || byte != '/';
    case Kind::kAll:
    case Kind::kFolders:
    case Kind::kInside: return true;
  }
  return false;
}

bool PathPattern::matches(std::string_view name, uint64_t& work) const {
  ++work;
  if (never_) return false;
  std::vector<uint32_t> states, next;
  std::vector<bool> in(tokens_.size() + 1, false);
  addState(states, in, 0);
  for (size_t at = 0; at < name.size() && !states.empty(); ++at) {
    uint8_t byte = byteAt(name, at);
    in.assign(in.size(), false);
    next.clear();
    work += 1 + states.size() + in.size() / 64;
    for (uint32_t state : states) {
      if (state == tokens_.size() || !takes(tokens_[state], byte)) continue;
      switch (tokens_[state].kind) {
        case Kind::kStar:
        case Kind::kAll:
          addState(next, in, state);
          break;
        case Kind::kFolders:
          addState(next, in, state + 1);
          if (byte == '/') addState(next, in, state + 2);
          break;
        case Kind::kInside:
          addState(next, in, state);
          if (byte == '/') addState(next, in, state + 1);
          break;
        default:
          addState(next, in, state + 1);
      }
    }
    states.swap(next);
  }
  return std::find(states.begin(), states.end(), tokens_.size()) != states.end();
}

// ---- many

std::optional<std::string> PathPatterns::parse(std::string_view text) {
  if (text.size() > kBytesMax) {
    return "is larger than " + std::to_string(kBytesMax) + " bytes";
  }
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  if (text.substr(0, kMark.size()) == kMark) text.remove_prefix(kMark.size());
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.size() > kPatternBytesMax) {
      return "has a line of more than " + std::to_string(kPatternBytesMax) + " bytes";
    }
    addLine(line);
    if (lines_.size() > kPatternsMax) {
      return "has more than " + std::to_string(kPatternsMax) + " patterns";
    }
  }
  return std::nullopt;
}

void PathPatterns::addLine(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (line.empty() || line.front() == '#') return;
  // Spaces at the end, but for one behind a backslash.
  while (!line.empty() && line.back() == ' ') {
    size_t text = line.find_last_not_of(' ');
    size_t slashes = 0;
    while (text != line.npos && slashes <= text && line[text - slashes] == '\\') ++slashes;
    line = line.substr(0, text == line.npos ? 0 : text + 1 + slashes % 2);
    if (slashes % 2 == 1) break;
  }
  bool negative = !line.empty() && line.front() == '!';
  if (negative) line.remove_prefix(1);
  bool foldersOnly = !line.empty() && line.back() == '/';
  if (foldersOnly) line.remove_suffix(1);
  bool wholePath = line.find('/') != line.npos;
  if (!line.empty() && line.front() == '/') line.remove_prefix(1);
  lines_.push_back({PathPattern(line, wholePath), negative, foldersOnly, wholePath});
}

std::optional<bool> PathPatterns::decide(std::string_view path, bool isFolder,
                                         uint64_t& work) const {
  size_t slash = path.rfind('/');
  std::string_view name = slash == path.npos ? path : path.substr(slash + 1);
  for (auto line = lines_.rbegin(); line != lines_.rend(); ++line) {
    if (line->foldersOnly && !isFolder) continue;
    if (line->pattern.matches(line->wholePath ? path : name, work)) return !line->negative;
  }
  return std::nullopt;
}

}  // namespace packmoor::gitlayer
