#include "index_table.h"

#include <kernelio/check.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace packmoor::gitlayer {

namespace {

constexpr uint32_t kItemsPerStep = 1024;
constexpr uint64_t kSmallOffsetEnd = 1ull << 31;

// Advances `section` when its items are used up.
template <typename Section>
bool atEnd(uint32_t& next, uint32_t count, Section& section, Section following) {
  if (next < count) return false;
  next = 0;
  section = following;
  return true;
}

}  // namespace

uint32_t IndexTable::findOffset(uint64_t offset) const {
  auto found = std::lower_bound(
      entries_.begin(), entries_.end(), offset,
      [](const IndexEntry& entry, uint64_t value) { return entry.offset < value; });
  if (found == entries_.end() || found->offset != offset) return kNoEntry;
  return static_cast<uint32_t>(found - entries_.begin());
}

uint64_t IndexTable::entryEnd(uint32_t number, uint64_t entriesEnd) const {
  return number + 1 < size() ? entries_[number + 1].offset : entriesEnd;
}

uint32_t IndexTable::sortNames(uint32_t count) {
  order_.resize(entries_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  std::sort(order_.begin(), order_.end(),
            [this](uint32_t a, uint32_t b) {
              auto order = entries_[a].id <=> entries_[b].id;
              return order != 0 ? order < 0 : a < b;
            });
  std::fill(std::begin(fanout_), std::end(fanout_), 0u);
  for (const IndexEntry& entry : entries_) ++fanout_[entry.id.bytes[0] + 1];
  for (size_t i = 1; i < 257; ++i) fanout_[i] += fanout_[i - 1];
  for (size_t i = 1; i < order_.size(); ++i) {
    if (order_[i] < count && entries_[order_[i]].id == entries_[order_[i - 1]].id) {
      return order_[i];
    }
  }
  return kNoEntry;
}

uint32_t IndexTable::find(const ObjectId& id) const {
  auto begin = order_.begin() + fanout_[id.bytes[0]];
  auto end = order_.begin() + fanout_[id.bytes[0] + 1];
  auto found = std::lower_bound(begin, end, id, [this](uint32_t number, const ObjectId& value) {
    return entries_[number].id < value;
  });
  return found != end && entries_[*found].id == id ? *found : kNoEntry;
}

IndexStream::IndexStream(const IndexTable& table, const ObjectId& packTrailer)
    : table_(table), packTrailer_(packTrailer) {
  for (uint32_t number : table_.order()) {
    if (table_[number].offset >= kSmallOffsetEnd) ++largeCount_;
  }
  static constexpr kj::byte kMagic[] = {0xff, 't', 'O', 'c', 0, 0, 0, 2};
  staged_.assign(kMagic, kMagic + sizeof kMagic);
}

uint64_t IndexStream::bytes() const {
  constexpr uint64_t kFixed = 8 + 256 * 4 + 2 * kOidBytes;
  return kFixed + uint64_t(table_.size()) * (kOidBytes + 4 + 4) + uint64_t(largeCount_) * 8;
}

void IndexStream::put32(uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    staged_.push_back(static_cast<kj::byte>(value >> shift));
  }
}

void IndexStream::put64(uint64_t value) {
  put32(static_cast<uint32_t>(value >> 32));
  put32(static_cast<uint32_t>(value));
}

size_t IndexStream::fill(kj::ArrayPtr<kj::byte> out) {
  size_t filled = 0;
  while (filled < out.size()) {
    if (stagedAt_ == staged_.size()) {
      staged_.clear();
      stagedAt_ = 0;
      if (!step()) break;
    }
    size_t piece = kj::min(staged_.size() - stagedAt_, out.size() - filled);
    if (piece > 0) memcpy(out.begin() + filled, staged_.data() + stagedAt_, piece);
    filled += piece;
    stagedAt_ += piece;
    bool isOwnTrailer = section_ == Section::kDone;
    if (!isOwnTrailer) {
      sha1_.update(kj::arrayPtr(out.begin() + filled - piece, piece));
    }
  }
  return filled;
}

bool IndexStream::step() {
  const auto& order = table_.order();
  uint32_t count = table_.size();
  uint32_t end = count - next_ < kItemsPerStep ? count : next_ + kItemsPerStep;
  switch (section_) {
    case Section::kFanout: {
      uint32_t total = 0;
      for (unsigned first = 0; first < 256; ++first) {
        while (total < count && table_[order[total]].id.bytes[0] == first) ++total;
        put32(total);
      }
      next_ = count;
      atEnd(next_, count, section_, Section::kNames);
      return true;
    }
    case Section::kNames:
      if (atEnd(next_, count, section_, Section::kCrcs)) return true;
      for (; next_ < end; ++next_) {
        const auto& id = table_[order[next_]].id.bytes;
        staged_.insert(staged_.end(), id.begin(), id.end());
      }
      return true;
    case Section::kCrcs:
      if (atEnd(next_, count, section_, Section::kOffsets)) return true;
      for (; next_ < end; ++next_) put32(table_[order[next_]].crc);
      return true;
    case Section::kOffsets:
      if (atEnd(next_, count, section_, Section::kLarge)) {
        largeCount_ = 0;
        return true;
      }
      for (; next_ < end; ++next_) {
        uint64_t offset = table_[order[next_]].offset;
        put32(offset < kSmallOffsetEnd ? static_cast<uint32_t>(offset)
                                       : 0x80000000u | largeCount_++);
      }
      return true;
    case Section::kLarge:
      if (atEnd(next_, count, section_, Section::kTrailer)) return true;
      for (; next_ < end; ++next_) {
        uint64_t offset = table_[order[next_]].offset;
        if (offset >= kSmallOffsetEnd) put64(offset);
      }
      return true;
    case Section::kTrailer:
      if (next_ == 0) {
        staged_.assign(packTrailer_.bytes.begin(), packTrailer_.bytes.end());
        next_ = 1;
        return true;
      } else {
        ObjectId own = sha1_.finish();
        staged_.assign(own.bytes.begin(), own.bytes.end());
        section_ = Section::kDone;
        return true;
      }
    case Section::kDone: return false;
  }
  return false;
}

}  // namespace packmoor::gitlayer
