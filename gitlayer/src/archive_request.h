// What a client of upload-archive asks for: the words of its `git archive --remote`, and the paths that they
// select (git-archive(1), git-upload-archive(1)). Pure functions of their input: no stream, no repository.
//
// Taken: --format, --prefix, -0 to -9, -v, --list, a tree-ish and pathspecs. Of pathspecs: paths, wildcards
// as in gitglossary(7), and exclusion (":!path", ":^path", ":(exclude)path"); no other magic.
// Bounds: kWordsMax as in git's own server, kPrefixBytesMax, kPathspecBytesMax.
#pragma once

#include "path_pattern.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

enum class ArchiveFormatName : uint8_t { kTar, kTarGz, kZip };

// One path that a client selects or leaves out.
class Pathspec {
 public:
  static constexpr size_t kBytesMax = 4096;

  // A sentence says why it is not taken.
  std::optional<std::string> parse(std::string_view text);
  bool excludes() const { return excludes_; }
  const std::string& text() const { return text_; }
  // `path` has no slash at its end. What is below a selected folder is selected.
  bool selects(std::string_view path, bool isFolder, uint64_t& work) const;
  // Whether something below the folder may be selected.
  bool mayBeBelow(std::string_view folder) const;

 private:
  std::string text_;               // as the client wrote it
  std::string path_;               // empty: everything
  bool excludes_ = false, foldersOnly_ = false;
  size_t literalBytes_ = 0;        // of path_, before its first wildcard
  std::optional<PathPattern> pattern_;
};

struct ArchiveRequest {
  static constexpr size_t kWordsMax = 63;
  static constexpr size_t kPrefixBytesMax = 4096;

  ArchiveFormatName format = ArchiveFormatName::kTar;
  std::string prefix;
  int level = -1;                  // of compression; -1: zlib's own
  bool verbose = false;            // tell the paths
  bool list = false;               // tell the formats, and nothing else
  std::string treeish;
  std::vector<Pathspec> paths;     // none: everything

  // The words behind "git archive". A sentence says what is wrong.
  std::optional<std::string> parse(const std::vector<std::string>& words);

 private:
  std::optional<std::string> parseOption(const std::vector<std::string>& words, size_t& at);
  std::optional<std::string> setFormat(std::string_view name);
};

// The names that --list tells, one a line.
std::string archiveFormatNames();

}  // namespace packmoor::gitlayer
