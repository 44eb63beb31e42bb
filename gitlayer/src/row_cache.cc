#include "row_cache.h"

#include "state_tables.h"

namespace packmoor::gitlayer {

namespace {

constexpr char kNames = 'n', kRepositories = 'r', kRefs = 'f', kPosition = 'A';
constexpr size_t kListPrefixBytes = 1 + sizeof(RepositoryId);

bool hasPrefix(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

}  // namespace

bool RowCache::isKept(std::string_view key) {
  if (key.empty()) return false;
  return key[0] == kNames || key[0] == kRepositories || key[0] == kRefs || key[0] == kPosition;
}

bool RowCache::isInList(std::string_view key) {
  return key.size() >= kListPrefixBytes && key[0] == kRefs;
}

std::string_view RowCache::listOf(std::string_view key) { return key.substr(0, kListPrefixBytes); }

RowCache::Version RowCache::version() const {
  std::lock_guard lock(mutex_);
  return version_;
}

RowCache::Row* RowCache::find(std::string_view key) {
  auto young = young_.find(key);
  if (young != young_.end()) return &young->second;
  auto old = old_.find(key);
  if (old == old_.end()) return nullptr;
  Row row = std::move(old->second);
  old_.erase(old);
  put(key, std::move(row));
  return &young_.find(key)->second;
}

void RowCache::put(std::string_view key, Row row) {
  auto found = young_.find(key);
  if (found != young_.end()) {
    found->second = std::move(row);
    return;
  }
  if (young_.size() >= kRowsMax) {
    std::swap(young_, old_);
    young_.clear();
  }
  young_.emplace(std::string(key), std::move(row));
}

RowCache::KeptList* RowCache::findList(std::string_view prefix) {
  auto found = lists_.find(listOf(prefix));
  return found == lists_.end() ? nullptr : &found->second;
}

RowCache::Answer RowCache::get(std::string_view key, Version at, std::string* value) {
  std::lock_guard lock(mutex_);
  if (isInList(key)) {
    KeptList* list = findList(key);
    if (list != nullptr && list->rows != nullptr && list->from <= at) {
      auto row = list->rows->find(key);
      if (row == list->rows->end()) return Answer::kAbsent;
      if (value != nullptr) *value = row->second;
      return Answer::kFound;
    }
  }
  const Row* row = find(key);
  if (row == nullptr || row->from > at) return Answer::kUnknown;
  if (!row->value.has_value()) return Answer::kAbsent;
  if (value != nullptr) *value = *row->value;
  return Answer::kFound;
}

void RowCache::learn(std::string_view key, Version at, const std::string* value) {
  std::lock_guard lock(mutex_);
  // What was read at an older version, or beside a write, may have changed since.
  if (writing_ || at != version_) return;
  put(key, Row{at, value == nullptr ? std::nullopt : std::optional<std::string>(*value)});
}

std::shared_ptr<const RowCache::List> RowCache::list(std::string_view prefix, Version at) {
  std::lock_guard lock(mutex_);
  KeptList* list = findList(prefix);
  if (list == nullptr || list->from > at) return nullptr;
  return list->rows;
}

bool RowCache::wantsList(std::string_view prefix, Version at) {
  std::lock_guard lock(mutex_);
  return !writing_ && at == version_ && findList(prefix) == nullptr;
}

void RowCache::learnList(std::string_view prefix, Version at, List rows) {
  std::lock_guard lock(mutex_);
  if (writing_ || at != version_) return;
  if (lists_.size() >= kListsMax) lists_.clear();
  KeptList kept{at, nullptr};
  if (rows.size() <= kListRowsMax) kept.rows = std::make_shared<List>(std::move(rows));
  lists_.insert_or_assign(std::string(listOf(prefix)), std::move(kept));
}

void RowCache::beginWrite(const std::vector<Change>& changes,
                          const std::vector<std::string>& prefixes) {
  std::lock_guard lock(mutex_);
  writing_ = true;
  for (const auto& change : changes) {
    young_.erase(change.key);
    old_.erase(change.key);
    if (!isInList(change.key)) continue;
    KeptList* list = findList(change.key);
    // Of no version until the write has ended: no reader is told anything of it.
    if (list != nullptr) list->from = UINT64_MAX;
  }
  for (const auto& prefix : prefixes) {
    auto below = [&](const auto& entry) { return hasPrefix(entry.first, prefix); };
    std::erase_if(young_, below);
    std::erase_if(old_, below);
    std::erase_if(lists_, [&](const auto& entry) {
      return hasPrefix(entry.first, prefix) || hasPrefix(prefix, entry.first);
    });
  }
}

void RowCache::endWrite(std::vector<Change> changes) {
  std::lock_guard lock(mutex_);
  writing_ = false;
  ++version_;
  for (auto& change : changes) {
    KeptList* list = isInList(change.key) ? findList(change.key) : nullptr;
    if (list != nullptr && list->rows != nullptr) {
      // A reader may be walking the rows: it keeps those that it has.
      if (list->rows.use_count() > 1) list->rows = std::make_shared<List>(*list->rows);
      list->from = version_;
      if (change.value.has_value()) {
        list->rows->insert_or_assign(std::move(change.key), std::move(*change.value));
      } else {
        list->rows->erase(change.key);
      }
      if (list->rows->size() > kListRowsMax) list->rows = nullptr;
      continue;
    }
    put(change.key, Row{version_, std::move(change.value)});
  }
}

}  // namespace packmoor::gitlayer
