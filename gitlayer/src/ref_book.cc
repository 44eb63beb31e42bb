#include "ref_book.h"

#include "state_tables.h"

#include <algorithm>
#include <set>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kPageOverheadBytes = 256;
// A book from which refs go keeps pages with few in them, until there are so many more than need be.
constexpr size_t kSparePagesMax = 256;

// What it takes counts for as long as it lives.
struct CountedPage final : RefPage {
  explicit CountedPage(std::shared_ptr<RefRoom> room) : room_(std::move(room)) {}
  ~CountedPage() noexcept { room_->bytes -= counted_; }
  KJ_DISALLOW_COPY(CountedPage);
  void count() {
    counted_ = kPageOverheadBytes + after.size() + upTo.size() + packets.capacity();
    room_->bytes += counted_;
  }

 private:
  const std::shared_ptr<RefRoom> room_;
  uint64_t counted_ = 0;
};

// Names of the refs that changed between two versions; nullopt: the reflog does not tell.
std::optional<std::set<std::string>> changedRefs(const StateReader& state, const RepositoryId& repository,
                                                 uint64_t from, uint64_t to) {
  if (to - from > RefBooks::kChangesMax) return std::nullopt;
  std::set<std::string> names;
  uint64_t rows = 0;
  const std::string end = reflogKey(repository, to);
  state.scan(reflogPrefix(repository), reflogKey(repository, from),
             [&](std::string_view key, std::string_view row) {
               if (key >= end) return false;
               names.emplace(ReflogRow::decode(row).ref);
               ++rows;
               return true;
             });
  if (rows != to - from) return std::nullopt;
  return names;
}

}  // namespace

RefBook::Entry RefBook::rangeOf(Entry::Kind kind, std::string_view after, std::string_view upTo) {
  auto page = std::make_shared<CountedPage>(room_);
  page->after = after;
  page->upTo = upTo;
  page->count();
  return {kind, std::move(page)};
}

void RefBook::begin(const StateReader& state) {
  std::lock_guard lock(mutex_);
  if (!entries_.empty()) return;
  if (before_ != nullptr) {
    auto entries = before_->entriesFor(updates_, state);
    before_ = nullptr;
    if (entries.has_value()) {
      entries_ = std::move(*entries);
      return;
    }
  }
  entries_.push_back(rangeOf(Entry::Kind::kUnread, {}, {}));
}

// What the book of a later version may have of this one.
std::optional<RefBook::Entries> RefBook::entriesFor(uint64_t updates, const StateReader& state) {
  std::lock_guard lock(mutex_);
  if (entries_.empty()) {
    return before_ == nullptr ? std::nullopt : before_->entriesFor(updates, state);
  }
  const auto changed = changedRefs(state, repository_, updates_, updates);
  if (!changed.has_value()) return std::nullopt;
  uint64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.page->packets.size();
  if (entries_.size() > 2 * bytes / RefBooks::kPageBytes + kSparePagesMax) return std::nullopt;
  Entries entries = entries_;
  for (const std::string& name : *changed) {
    auto behind = std::lower_bound(
        entries.begin(), entries.end(), name,
        [](const Entry& entry, const std::string& name) { return entry.page->after < name; });
    Entry& entry = *std::prev(behind);   // the first one is behind no name
    if (entry.kind != Entry::Kind::kRead) continue;
    entry = rangeOf(Entry::Kind::kChanged, entry.page->after, entry.page->upTo);
  }
  return entries;
}

RefBook::Entry RefBook::read(std::string_view after, std::string_view upTo, size_t bytesMax,
                             const StateReader& state) {
  auto page = std::make_shared<CountedPage>(room_);
  page->after = after;
  page->upTo = upTo;
  page->packets.reserve(RefBooks::kPageBytes + RefBooks::kPageBytes / 16);
  const size_t skip = refPrefix(repository_).size();
  // The least name behind `after`.
  const std::string from = after.empty() ? std::string() : refKey(repository_, after) + std::string(1, '\0');
  state.scan(refPrefix(repository_), from, [&](std::string_view key, std::string_view row) {
    const std::string_view name = key.substr(skip);
    if (!upTo.empty() && name > upTo) return false;
    const RefIds ids = decodeRefIds(name, row);
    appendRefPacket(page->packets, name, ids.id, ids.peeled);
    page->anyPeeled = page->anyPeeled || !ids.peeled.isZero();
    if (page->packets.size() < bytesMax) return true;
    page->upTo = name;
    return false;
  });
  if (page->packets.size() < RefBooks::kPageBytes) page->packets.shrink_to_fit();
  page->count();
  return {Entry::Kind::kRead, std::move(page)};
}

std::shared_ptr<const RefPage> RefBook::page(std::string_view after, const StateReader& state) {
  std::lock_guard lock(mutex_);
  for (;;) {
    // The last one that begins no later.
    auto found = std::prev(std::upper_bound(
        entries_.begin(), entries_.end(), after,
        [](std::string_view name, const Entry& entry) { return name < entry.page->after; }));
    if (found->kind == Entry::Kind::kRead) return found->page;
    const auto books = books_.lock();
    if (books == nullptr || !books->makeRoom(*this)) return nullptr;
    readWithin(found, after, state);
  }
}

// What was a page becomes one again, also when some refs came to it; elsewhere one begins behind `after`.
void RefBook::readWithin(Entries::iterator range, std::string_view after, const StateReader& state) {
  const auto [kind, page] = *range;
  const bool changed = kind == Entry::Kind::kChanged;
  const std::string_view begin = changed ? std::string_view(page->after) : after;
  Entries parts;
  if (begin != page->after) parts.push_back(rangeOf(kind, page->after, begin));
  parts.push_back(read(begin, page->upTo, RefBooks::kPageBytes * (changed ? 2 : 1), state));
  const std::string& end = parts.back().page->upTo;
  if (end != page->upTo) parts.push_back(rangeOf(kind, end, page->upTo));
  *range = parts.front();
  entries_.insert(std::next(range), parts.begin() + 1, parts.end());
}

std::shared_ptr<RefBook> RefBooks::open(const RepositoryId& repository, uint64_t updates,
                                        const StateReader& state) {
  if (room_->bytesMax == 0) return nullptr;
  std::shared_ptr<RefBook> book;
  {
    std::lock_guard lock(mutex_);
    Kept& kept = books_[repository];
    if (kept.book != nullptr && kept.book->updates() > updates) return nullptr;
    if (kept.book == nullptr || kept.book->updates() < updates) {
      kept.book = std::make_shared<RefBook>(weak_from_this(), room_, repository, updates, kept.book);
    }
    kept.used = ++clock_;
    book = kept.book;
  }
  book->begin(state);
  return book;
}

bool RefBooks::makeRoom(const RefBook& asking) {
  std::lock_guard lock(mutex_);
  while (full()) {
    auto oldest = books_.end();
    for (auto it = books_.begin(); it != books_.end(); ++it) {
      if (it->second.book.get() == &asking) continue;
      if (oldest == books_.end() || it->second.used < oldest->second.used) oldest = it;
    }
    if (oldest == books_.end()) return false;
    books_.erase(oldest);
  }
  return true;
}

}  // namespace packmoor::gitlayer
