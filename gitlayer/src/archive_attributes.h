// ArchiveAttributes: what the .gitattributes of an archived tree say of its paths (gitattributes(5)).
//
// Why: export-ignore leaves paths out of archives, and text and eol decide how lines end in them, as in a
// checkout on Unix; diff tells whether a file is text, which a zip notes. Only the tree's own files count:
// a server has neither a configuration of the user's nor info/attributes. Macros of the topmost file work.
// Not carried out, and told as missing() where a path has them: export-subst, ident,
// working-tree-encoding. Filters are programs, and none is run here.
//
// The files are a stranger's: kFileBytesMax a file, kLinesMax in all that are open at a time; lines of more
// than kLineBytesMax are passed over, as git does, and macros beyond kMacrosMax. Matching never backtracks
// (path_pattern.h). One thread at a time.
#pragma once

#include "path_pattern.h"

#include <kj/array.h>

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

class ArchiveAttributes {
 public:
  static constexpr size_t kFileBytesMax = 1u << 20, kLinesMax = 20'000, kLineBytesMax = 2048;
  static constexpr size_t kMacrosMax = 256;

  // Which attributes are looked at.
  enum Name : uint32_t {
    kExportIgnore, kExportSubst, kText, kCrlf, kEol, kDiff, kIdent, kEncoding, kNames
  };
  enum class Value : uint8_t { kUnknown, kUnspecified, kTrue, kFalse, kAuto, kLf, kCrlf, kInput, kOther };

  struct Found {
    std::array<Value, kNames> values{};

    bool ignored() const { return values[kExportIgnore] == Value::kTrue; }
    // What of this is not done here; nullptr: nothing.
    const char* missing() const;
    bool isText(kj::ArrayPtr<const kj::byte> content) const;
    // Whether lines may have to end in CR LF, which needs the whole content.
    bool converts() const;
    // With CR LF at the ends of lines where that is so. nullptr: the content stays as it is.
    kj::Array<kj::byte> converted(kj::ArrayPtr<const kj::byte> content) const;
  };

  ArchiveAttributes();

  // Enters the folder below the present one that has this path (without slashes at its ends; the topmost
  // is empty), with what its .gitattributes holds. A sentence: it is too large.
  std::optional<std::string> enter(std::string_view folder, std::string_view file);
  void leave();
  // Of a path in the present folder, without a slash at its end.
  Found of(std::string_view path, bool isFolder, uint64_t& work) const;

 private:
  struct State {
    uint32_t name;
    Value value;
  };
  using States = std::vector<State>;
  struct Line {
    PathPattern pattern;
    bool foldersOnly, wholePath;
    States states;
  };
  struct Level {
    size_t folderBytes = 0;   // of the folder's path, with a slash
    std::vector<Line> lines;
  };
  void addMacro(std::string_view line);
  void addLine(Level& level, std::string_view line);
  States statesIn(std::string_view text) const;
  void fill(const States& states, std::vector<Value>& values) const;

  std::map<std::string, uint32_t, std::less<>> names_;   // of attributes and macros
  std::map<uint32_t, States> macros_;
  std::vector<Level> levels_;
  size_t linesOpen_ = 0;
};

}  // namespace packmoor::gitlayer
