#include "archive_attributes.h"

#include <kj/vector.h>

#include <algorithm>
#include <cstring>

namespace packmoor::gitlayer {
namespace {

constexpr std::string_view kMacro = "[attr]";
constexpr size_t kTextBytes = 8000;    // of a file, that git looks at

std::string_view nextWord(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r"), text.size()));
  std::string_view word = text.substr(0, text.find_first_of(" \t\r"));
  text.remove_prefix(word.size());
  return word;
}

// A pattern in double quotes, with C's escapes. nullopt: it does not end.
std::optional<std::string> takeQuoted(std::string_view& text) {
  std::string result;
  for (size_t at = 1; at < text.size(); ++at) {
    char c = text[at];
    if (c == '"') {
      text.remove_prefix(at + 1);
      return result;
    }
    if (c == '\\') {
      if (++at == text.size()) return std::nullopt;
      constexpr std::string_view kFrom = "abfnrtv\\\"", kTo = "\a\b\f\n\r\t\v\\\"";
      const size_t known = kFrom.find(text[at]);
      if (known != kFrom.npos) {
        c = kTo[known];
      } else {
        if (text.size() - at < 3) return std::nullopt;
        int code = 0;
        for (size_t i = 0; i < 3; ++i) {
          if (text[at + i] < '0' || text[at + i] > (i == 0 ? '3' : '7')) return std::nullopt;
          code = code * 8 + (text[at + i] - '0');
        }
        c = static_cast<char>(code);
        at += 2;
      }
    }
    result += c;
  }
  return std::nullopt;
}

ArchiveAttributes::Value valueOf(std::string_view text) {
  using Value = ArchiveAttributes::Value;
  if (text == "auto") return Value::kAuto;
  if (text == "lf") return Value::kLf;
  if (text == "crlf") return Value::kCrlf;
  if (text == "input") return Value::kInput;
  return Value::kOther;
}

// What lines of a file end in, and whether it looks like text (gather_stats() of git's convert.c counts so).
struct LineCounts {
  size_t loneCr = 0, loneLf = 0, crLf = 0, printable = 0, other = 0;

  explicit LineCounts(kj::ArrayPtr<const kj::byte> content) {
    for (size_t i = 0; i < content.size(); ++i) {
      const kj::byte c = content[i];
      if (c == '\r') {
        const bool pair = i + 1 < content.size() && content[i + 1] == '\n';
        ++(pair ? crLf : loneCr);
        if (pair) ++i;
      } else if (c == '\n') {
        ++loneLf;
      } else if (c == 127) {
        ++other;
      } else if (c < 32) {
        if (c == 0) binary = true;
        const bool usual = c == '\b' || c == '\t' || c == 033 || c == 014;
        ++(usual ? printable : other);
      } else {
        ++printable;
      }
    }
    // An end-of-file mark of DOS.
    if (content.size() > 0 && content[content.size() - 1] == 032) --other;
    binary = binary || loneCr > 0 || (printable >> 7) < other;
  }
  bool binary = false;
};

}  // namespace

const char* ArchiveAttributes::Found::missing() const {
  if (values[kExportSubst] == Value::kTrue) return "export-subst";
  if (values[kIdent] == Value::kTrue) return "ident";
  if (values[kEncoding] == Value::kOther) return "working-tree-encoding";
  return nullptr;
}

bool ArchiveAttributes::Found::isText(kj::ArrayPtr<const kj::byte> content) const {
  if (values[kDiff] == Value::kTrue) return true;
  if (values[kDiff] == Value::kFalse) return false;
  const size_t bytes = std::min(content.size(), kTextBytes);
  return bytes == 0 || memchr(content.begin(), 0, bytes) == nullptr;
}

bool ArchiveAttributes::Found::converts() const {
  if (values[kEol] != Value::kCrlf || values[kText] == Value::kFalse) return false;
  const bool textSaysNothing = values[kText] == Value::kUnknown || values[kText] == Value::kUnspecified ||
                               values[kText] == Value::kOther;
  return !textSaysNothing || values[kCrlf] != Value::kFalse;
}

kj::Array<kj::byte> ArchiveAttributes::Found::converted(kj::ArrayPtr<const kj::byte> content) const {
  if (!converts()) return nullptr;
  const LineCounts counts(content);
  if (counts.loneLf == 0) return nullptr;
  const bool textSays = values[kText] == Value::kAuto || values[kText] == Value::kTrue ||
                        values[kText] == Value::kInput;
  const bool automatic = (textSays ? values[kText] : values[kCrlf]) == Value::kAuto;
  if (automatic && (counts.crLf > 0 || counts.binary)) return nullptr;
  auto result = kj::heapArray<kj::byte>(content.size() + counts.loneLf);
  kj::byte* to = result.begin();
  for (size_t i = 0; i < content.size(); ++i) {
    if (content[i] == '\n' && (i == 0 || content[i - 1] != '\r')) *to++ = '\r';
    *to++ = content[i];
  }
  return result;
}

ArchiveAttributes::ArchiveAttributes() {
  constexpr const char* kKnown[kNames] = {"export-ignore", "export-subst", "text", "crlf", "eol", "diff",
                                          "ident", "working-tree-encoding"};
  for (uint32_t i = 0; i < kNames; ++i) names_.emplace(kKnown[i], i);
  addMacro("[attr]binary -diff -merge -text");
}

std::optional<std::string> ArchiveAttributes::enter(std::string_view folder, std::string_view file) {
  if (file.size() > kFileBytesMax) return "is larger than " + std::to_string(kFileBytesMax) + " bytes";
  const bool topmost = levels_.empty();
  std::vector<std::string_view> lines;
  while (!file.empty()) {
    std::string_view line = file.substr(0, file.find('\n'));
    file.remove_prefix(std::min(line.size() + 1, file.size()));
    line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
    if (line.empty() || line.front() == '#' || line.size() > kLineBytesMax) continue;
    lines.push_back(line);
    if (lines.size() + linesOpen_ > kLinesMax) {
      return "and those above it have more than " + std::to_string(kLinesMax) + " lines";
    }
  }
  // What a line means may be said by a macro behind it, also of a macro: so twice.
  for (int pass = 0; topmost && pass < 2; ++pass) {
    for (std::string_view line : lines) {
      if (line.substr(0, kMacro.size()) == kMacro) addMacro(line);
    }
  }
  Level& level = levels_.emplace_back();
  level.folderBytes = folder.empty() ? 0 : folder.size() + 1;
  for (std::string_view line : lines) {
    if (line.substr(0, kMacro.size()) != kMacro) addLine(level, line);
  }
  linesOpen_ += level.lines.size();
  return std::nullopt;
}

void ArchiveAttributes::leave() {
  linesOpen_ -= levels_.back().lines.size();
  levels_.pop_back();
}

void ArchiveAttributes::addMacro(std::string_view line) {
  line.remove_prefix(kMacro.size());
  const std::string_view name = nextWord(line);
  if (names_.size() >= kNames + kMacrosMax && names_.find(name) == names_.end()) return;
  auto added = names_.emplace(std::string(name), static_cast<uint32_t>(names_.size()));
  if (added.first->second < kNames) return;
  macros_[added.first->second] = statesIn(line);
}

void ArchiveAttributes::addLine(Level& level, std::string_view line) {
  std::string pattern;
  if (line.front() == '"') {
    auto quoted = takeQuoted(line);
    if (!quoted) return;
    pattern = std::move(*quoted);
  } else {
    pattern = nextWord(line);
  }
  if (pattern.empty() || pattern.front() == '!') return;
  States states = statesIn(line);
  if (states.empty()) return;
  const bool foldersOnly = pattern.back() == '/';
  if (foldersOnly) pattern.pop_back();
  const bool wholePath = pattern.find('/') != pattern.npos;
  if (!pattern.empty() && pattern.front() == '/') pattern.erase(0, 1);
  level.lines.push_back({PathPattern(pattern, wholePath), foldersOnly, wholePath, std::move(states)});
}

ArchiveAttributes::States ArchiveAttributes::statesIn(std::string_view text) const {
  States states;
  for (std::string_view word = nextWord(text); !word.empty(); word = nextWord(text)) {
    State state{0, Value::kTrue};
    if (word.front() == '-' || word.front() == '!') {
      state.value = word.front() == '-' ? Value::kFalse : Value::kUnspecified;
      word.remove_prefix(1);
    } else if (size_t equals = word.find('='); equals != word.npos) {
      state.value = valueOf(word.substr(equals + 1));
      word = word.substr(0, equals);
    }
    auto known = names_.find(word);
    if (known == names_.end()) continue;
    state.name = known->second;
    states.push_back(state);
  }
  return states;
}

// What is known already stays.
void ArchiveAttributes::fill(const States& states, std::vector<Value>& values) const {
  for (auto state = states.rbegin(); state != states.rend(); ++state) {
    if (values[state->name] != Value::kUnknown) continue;
    values[state->name] = state->value;
    if (state->value != Value::kTrue) continue;
    auto macro = macros_.find(state->name);
    if (macro != macros_.end()) fill(macro->second, values);
  }
}

ArchiveAttributes::Found ArchiveAttributes::of(std::string_view path, bool isFolder,
                                               uint64_t& work) const {
  std::vector<Value> values(names_.size(), Value::kUnknown);
  const std::string_view name = path.substr(path.rfind('/') + 1);
  for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) {
    const std::string_view below = path.substr(level->folderBytes);
    for (auto line = level->lines.rbegin(); line != level->lines.rend(); ++line) {
      if (line->foldersOnly && !isFolder) continue;
      if (line->pattern.matches(line->wholePath ? below : name, work)) fill(line->states, values);
    }
  }
  Found found;
  std::copy(values.begin(), values.begin() + kNames, found.values.begin());
  return found;
}

}  // namespace packmoor::gitlayer
