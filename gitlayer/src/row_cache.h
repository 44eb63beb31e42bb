// RowCache: the newest small rows of a state store, in memory, for reads at the newest versions.
//
// Why: every request reads a repository's name, its row and its refs, and every push changes two
// of them. The store below keeps each of those versions until its next flush, so that a look-up
// costs microseconds and a scan over ten refs walks thousands of versions. Here such a row is one
// entry, and the refs of a repository are one short list.
//
// Versions: the store counts its batches. A value here says from which version on it is known to be
// the row's; a reader at an older version is told nothing and reads the store. What a batch will
// change is forgotten before it is written (beginWrite) and known again afterwards (endWrite), so
// that a snapshot that is taken in between never mixes old rows from here with new ones from below.
//
// Bounds: kRowsMax rows in each of two generations, kListsMax lists of kListRowsMax rows. Threads:
// any; one writer at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace packmoor::gitlayer {

class RowCache {
 public:
  static constexpr size_t kRowsMax = 8192;
  static constexpr size_t kListsMax = 256;
  static constexpr size_t kListRowsMax = 256;

  using Version = uint64_t;
  using List = std::map<std::string, std::string, std::less<>>;
  enum class Answer : uint8_t { kUnknown, kAbsent, kFound };

  Version version() const;

  // What the row is at the version; `value` is set when it is found.
  Answer get(std::string_view key, Version at, std::string* value);
  // The row was read from the store at the version; nullptr: there is none.
  void learn(std::string_view key, Version at, const std::string* value);

  // All rows of the list that the key or prefix lies in; nullptr: not known at that version.
  std::shared_ptr<const List> list(std::string_view prefix, Version at);
  // False: the list is too long to be kept here, as far as is known.
  bool wantsList(std::string_view prefix, Version at);
  // The whole list as read at the version; more than kListRowsMax rows: remembered as too long.
  void learnList(std::string_view prefix, Version at, List rows);

  // Rows that are kept here, by their tables; of which lists there are.
  static bool isKept(std::string_view key);
  static bool isInList(std::string_view key);
  // The prefix that all rows of a list share.
  static std::string_view listOf(std::string_view key);

  struct Change {
    std::string key;
    std::optional<std::string> value;  // nullopt: erased
  };
  // The changes of one batch, of kept rows; `prefixes`: of erased ranges.
  void beginWrite(const std::vector<Change>& changes, const std::vector<std::string>& prefixes);
  void endWrite(std::vector<Change> changes);

 private:
  struct Row {
    Version from = 0;
    std::optional<std::string> value;
  };
  struct KeptList {
    Version from = 0;
    std::shared_ptr<List> rows;  // nullptr: too long
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>()(key); }
  };
  using Rows = std::unordered_map<std::string, Row, Hash, std::equal_to<>>;

  Row* find(std::string_view key);
  void put(std::string_view key, Row row);
  KeptList* findList(std::string_view prefix);

  mutable std::mutex mutex_;
  Version version_ = 0;
  bool writing_ = false;
  Rows young_, old_;  // a row moves to the young ones when it is used
  std::map<std::string, KeptList, std::less<>> lists_;
};

}  // namespace packmoor::gitlayer
