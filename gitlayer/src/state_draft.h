// StateDraft: what the state will be when a batch is written.
//
// Why: a group of records is applied as one batch, and a later record of the group must see what
// an earlier one changed. Reads look at the changes first, then at the store below. A row that
// several records change goes into the batch once, with finish().
// One thread; the store is not written while the draft lives.
#pragma once

#include "state_store.h"

#include <map>
#include <vector>

namespace packmoor::gitlayer {

class StateDraft final : public StateReader {
 public:
  StateDraft(const StateReader& below, StateBatch& batch) : below_(below), batch_(batch) {}

  bool get(std::string_view key, std::string& value) const override;
  bool exists(std::string_view key) const override;
  void scan(std::string_view prefix, std::string_view from, Each each) const override;

  void put(std::string_view key, std::string_view value);
  // A value that need not be read through the draft: get() of it throws, exists() is right.
  void putUnread(std::string_view key, std::string_view head, std::string_view tail);
  void erase(std::string_view key);
  void erasePrefix(std::string_view prefix);
  // Puts the values that are left into the batch. The last call.
  void finish();

 private:
  struct Change {
    enum class Kind : uint8_t { kValue, kUnread, kErased };
    Kind kind = Kind::kErased;
    std::string value;
  };
  bool isErasedBelow(std::string_view key) const;

  const StateReader& below_;
  StateBatch& batch_;
  std::map<std::string, Change, std::less<>> changes_;
  std::vector<std::string> erasedPrefixes_;
};

}  // namespace packmoor::gitlayer
