#include "state_draft.h"

#include "kernelio/check.h"

namespace packmoor::gitlayer {

namespace {
bool hasPrefix(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}
}  // namespace

bool StateDraft::isErasedBelow(std::string_view key) const {
  for (const auto& prefix : erasedPrefixes_) {
    if (hasPrefix(key, prefix)) return true;
  }
  return false;
}

bool StateDraft::get(std::string_view key, std::string& value) const {
  auto change = changes_.find(key);
  if (change == changes_.end()) return !isErasedBelow(key) && below_.get(key, value);
  PACKMOOR_CHECK(change->second.kind != Change::Kind::kUnread, "reading an unread value");
  if (change->second.kind == Change::Kind::kErased) return false;
  value = change->second.value;
  return true;
}

bool StateDraft::exists(std::string_view key) const {
  auto change = changes_.find(key);
  if (change == changes_.end()) return !isErasedBelow(key) && below_.exists(key);
  return change->second.kind != Change::Kind::kErased;
}

void StateDraft::scan(std::string_view prefix, std::string_view from, Each each) const {
  auto change = changes_.lower_bound(std::max(prefix, from));
  bool goOn = true;
  // Gives the changes below `key`, or all that are left of the prefix.
  auto giveChanges = [&](const std::string_view* key) {
    for (; goOn && change != changes_.end() && hasPrefix(change->first, prefix); ++change) {
      if (key != nullptr && change->first >= *key) return;
      PACKMOOR_CHECK(change->second.kind != Change::Kind::kUnread, "scanning an unread value");
      if (change->second.kind == Change::Kind::kValue) {
        goOn = each(change->first, change->second.value);
      }
    }
  };
  below_.scan(prefix, from, [&](std::string_view key, std::string_view value) {
    giveChanges(&key);
    if (!goOn) return false;
    if (change != changes_.end() && change->first == key) return true;  // given next turn
    if (isErasedBelow(key)) return true;
    goOn = each(key, value);
    return goOn;
  });
  giveChanges(nullptr);
}

void StateDraft::put(std::string_view key, std::string_view value) {
  auto change = changes_.lower_bound(key);
  if (change == changes_.end() || change->first != key) {
    change = changes_.emplace_hint(change, std::string(key), Change{});
  }
  change->second.kind = Change::Kind::kValue;
  change->second.value = value;
}

void StateDraft::putUnread(std::string_view key, std::string_view head, std::string_view tail) {
  batch_.put(key, head, tail);
  changes_[std::string(key)] = Change{Change::Kind::kUnread, {}};
}

void StateDraft::erase(std::string_view key) {
  batch_.erase(key);
  changes_[std::string(key)] = Change{};
}

void StateDraft::erasePrefix(std::string_view prefix) {
  batch_.erasePrefix(prefix);
  auto change = changes_.lower_bound(prefix);
  while (change != changes_.end() && hasPrefix(change->first, prefix)) {
    change = changes_.erase(change);
  }
  erasedPrefixes_.emplace_back(prefix);
}

void StateDraft::finish() {
  for (const auto& [key, change] : changes_) {
    if (change.kind == Change::Kind::kValue) batch_.put(key, change.value);
  }
}

}  // namespace packmoor::gitlayer
