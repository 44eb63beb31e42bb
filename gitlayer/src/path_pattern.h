// Patterns of gitignore(5), as sparse-checkout specifications are written in them.
//
// Why: a client may ask for the part of a repository that such a specification describes. Patterns and
// paths are a stranger's, so matching takes time in proportion to both and never backtracks: a pattern
// is a small automaton whose states are kept as a set.
//
// A pattern without a slash (but at its end) is compared with the last part of a path, any other with
// the whole of it. "*" and "?" do not match a slash in whole paths, "**" does. Pure functions.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

class PathPattern {
 public:
  // `text` without "!", without a slash at its end. `wholePath`: see above.
  PathPattern(std::string_view text, bool wholePath);
  // Adds the steps that it took to `work`.
  bool matches(std::string_view name, uint64_t& work) const;

 private:
  enum class Kind : uint8_t {
    kByte, kAny, kSet,
    kStar,     // any number of bytes that kAny matches
    kAll,      // any number of bytes
    kFolders,  // "**/": nothing, or anything up to a slash; followed by kInside
    kInside,
  };
  struct Token {
    Kind kind;
    uint8_t byte = 0;     // kByte
    uint32_t set = 0;     // kSet: in sets_
  };

  void add(Kind kind, uint8_t byte = 0) { tokens_.push_back({kind, byte, 0}); }
  size_t addSet(std::string_view text, size_t at);
  size_t addStars(std::string_view text, size_t at);
  void addState(std::vector<uint32_t>& states, std::vector<bool>& in, uint32_t state) const;
  bool takes(const Token& token, uint8_t byte) const;

  bool wholePath_;
  bool never_ = false;    // not a pattern that matches anything
  std::vector<Token> tokens_;
  std::vector<std::bitset<256>> sets_;
};

// All patterns of a specification: the last that matches decides.
class PathPatterns {
 public:
  static constexpr size_t kBytesMax = 256u << 10;  // of the specification
  static constexpr size_t kPatternsMax = 2'000;
  static constexpr size_t kPatternBytesMax = 1024;

  // A sentence says what is too much.
  std::optional<std::string> parse(std::string_view specification);
  // `path` without a slash at its beginning or end; empty: the topmost folder. nullopt: no pattern
  // says anything about it. Adds the steps that it took to `work`, some nanoseconds each.
  std::optional<bool> decide(std::string_view path, bool isFolder, uint64_t& work) const;

 private:
  struct Line {
    PathPattern pattern;
    bool negative, foldersOnly, wholePath;
  };
  void addLine(std::string_view line);

  std::vector<Line> lines_;
};

}  // namespace packmoor::gitlayer
