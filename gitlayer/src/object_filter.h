// ObjectFilter: which objects a partial clone leaves out (git-rev-list(1), --filter).
//
// Why: a client that asks for no blobs, no large ones, or trees to some depth only is sent the rest, and
// asks for single objects when it needs them. What a client asks for by name is sent whatever the filter
// says. Combined filters send what every one of them sends.
//
// Whether a tree or a blob is sent may hang on where it lies (tree:<depth>, sparse:oid); one that lies in
// several places is sent when any of them lets it through.
//
// One walk uses a filter at a time. Patterns that take kWorkMax steps reject with a sentence.
//
// Bounds: kPartsMax filters in one, nested kNestingMax deep; PathPatterns for sparse specifications.
#pragma once

#include "gitlayer/object_source.h"
#include "path_pattern.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

class ObjectFilter {
 public:
  static constexpr size_t kPartsMax = 32;
  static constexpr uint32_t kNestingMax = 8;
  static constexpr size_t kSparsePartsMax = 8;
  static constexpr uint64_t kWorkMax = 20'000'000'000;   // steps of matching: a minute or so

  // A place in the tree of a commit. `inherited` has a bit per sparse part: whether the folder around
  // the place is chosen.
  struct Place {
    uint32_t depth = 0;          // the commit's own tree: 0
    uint8_t inherited = 0;
    std::string path;            // only where byPath()
  };

  // "blob:none", "combine:tree:2+blob:limit=1k" and so on; may be called once. A sentence says what is
  // wrong.
  std::optional<std::string> parse(std::string_view specification);
  // Names of the sparse specifications, and their text when it has been found.
  std::vector<std::string> sparseNames() const;
  std::optional<std::string> setSparse(size_t which, std::string_view text);

  bool sendsCommits() const { return !type_ || *type_ == ObjectType::kCommit; }
  bool noBlobs() const { return noBlobs_; }
  bool omitsTrees() const { return depth_ || type_; }
  bool byDepth() const { return depth_.has_value(); }
  bool byPath() const { return !sparse_.empty(); }

  // Of a tree or blob at a place. sendsTree() also says what its entries inherit.
  bool sendsTree(Place& place) const;
  bool opensTree(const Place& place) const;   // something in it may be sent
  bool sendsBlob(ObjectSource& source, const ObjectId& id, const Place& place) const;
  // Steps that patterns took so far.
  uint64_t work() const { return work_; }
  void setWorkMax(uint64_t most) { workMax_ = most; }

 private:
  std::optional<bool> decide(size_t sparse, const Place& place, bool isFolder) const;
  std::optional<std::string> addPart(std::string_view specification, uint32_t nesting);
  std::optional<std::string> addCombined(std::string_view parts, uint32_t nesting);

  struct Sparse {
    std::string name;
    PathPatterns patterns;
  };
  size_t parts_ = 0;
  bool noBlobs_ = false;
  std::optional<uint64_t> limit_;      // blobs smaller than that
  std::optional<uint32_t> depth_;      // trees and blobs above that
  std::optional<ObjectType> type_;     // kNone: different types at once, so nothing
  std::vector<Sparse> sparse_;
  uint64_t workMax_ = kWorkMax;
  mutable uint64_t work_ = 0;
};

}  // namespace packmoor::gitlayer
