// RefBooks: long lists of refs in the form in which they are sent, kept between requests.
//
// Why: a repository may have a million refs, and some clients are told all of them: those that push are,
// whatever they push. A book has the pages (ref_page.h) of a repository at one version of its refs, read from
// the state as far as somebody asked for them. The book of the next version takes over the pages of the last
// one but those whose refs changed, which the reflog tells.
//
// Versions: `updates`, a repository's count of ref updates (RepositoryRow::reflogNext). Within one state it
// names the refs: nothing else changes them. A state that takes the place of another has books of its own.
// What is hidden from whom, and what HEAD is, is no part of a book; readers see to that.
//
// Bounds: `bytesMax` for all pages, also those of older versions that slow clients still read. Books that
// were not asked for longest go first; what does not fit is read from the state each time.
//
// Threads: any. What is read from the state is read under the book's lock, so that of many who want a page
// at once one reads it.
#pragma once

#include "gitlayer/repository.h"
#include "ref_page.h"
#include "state_store.h"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace packmoor::gitlayer {

class RefBooks;

// What all pages take that there are; they share it, since they may outlive the books.
struct RefRoom {
  explicit RefRoom(uint64_t bytesMax) : bytesMax(bytesMax) {}
  const uint64_t bytesMax;
  std::atomic<uint64_t> bytes = 0;
};

class RefBook {
 public:
  // `before`: of an older version; nullptr: there is none.
  RefBook(std::weak_ptr<RefBooks> books, std::shared_ptr<RefRoom> room, const RepositoryId& repository,
          uint64_t updates, std::shared_ptr<RefBook> before)
      : books_(std::move(books)), room_(std::move(room)), repository_(repository), updates_(updates),
        before_(std::move(before)) {}

  uint64_t updates() const { return updates_; }
  // Takes over the pages of the book before. `state` is of this version. Once, before any page().
  void begin(const StateReader& state);
  // The page behind `after`, which is empty or the name of a ref; `state` is of this version. nullptr: there
  // is no room for it.
  std::shared_ptr<const RefPage> page(std::string_view after, const StateReader& state);

 private:
  // A range of names; without packets unless it is read.
  struct Entry {
    enum class Kind : uint8_t { kUnread, kChanged, kRead };
    Kind kind = Kind::kUnread;
    std::shared_ptr<const RefPage> page;
  };
  using Entries = std::vector<Entry>;

  std::optional<Entries> entriesFor(uint64_t updates, const StateReader& state);
  Entry rangeOf(Entry::Kind kind, std::string_view after, std::string_view upTo);
  void readWithin(Entries::iterator range, std::string_view after, const StateReader& state);
  Entry read(std::string_view after, std::string_view upTo, size_t bytesMax, const StateReader& state);

  const std::weak_ptr<RefBooks> books_;
  const std::shared_ptr<RefRoom> room_;
  const RepositoryId repository_;
  const uint64_t updates_;
  std::mutex mutex_;
  std::shared_ptr<RefBook> before_;   // until begin()
  Entries entries_;                   // by name, without gaps; empty until begin()
};

class RefBooks final : public std::enable_shared_from_this<RefBooks> {
 public:
  static constexpr size_t kPageBytes = 64u << 10;      // about
  static constexpr uint64_t kChangesMax = 4096;        // between two versions that share pages

  explicit RefBooks(uint64_t bytesMax) : room_(std::make_shared<RefRoom>(bytesMax)) {}

  // `state` is of the version. nullptr: there is one of a later version, or none are kept.
  std::shared_ptr<RefBook> open(const RepositoryId& repository, uint64_t updates, const StateReader& state);
  uint64_t bytes() const { return room_->bytes; }

  // Whether one page more may be kept, after books but the asking one were dropped where need be.
  bool makeRoom(const RefBook& asking);

 private:
  struct Kept {
    std::shared_ptr<RefBook> book;
    uint64_t used = 0;   // when, as a count
  };
  bool full() const { return room_->bytes + 2 * kPageBytes > room_->bytesMax; }

  const std::shared_ptr<RefRoom> room_;
  std::mutex mutex_;                 // taken behind a book's, never before it
  uint64_t clock_ = 0;
  std::map<RepositoryId, Kept> books_;
};

}  // namespace packmoor::gitlayer
