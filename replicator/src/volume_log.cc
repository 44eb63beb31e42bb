#include "volume_log.h"

#include "kernelio/check.h"

#include <algorithm>

namespace packmoor::replicator {

const VolumeLog::Entry& VolumeLog::entry(RecordIndex index) const {
  PACKMOOR_CHECK(contains(index), "looking up a record that is not held: ", index, " of ",
                 base_.index, "+", entries_.size());
  return entries_[index.value - base_.index.value - 1];
}

Epoch VolumeLog::epoch(RecordIndex index) const {
  auto after = std::upper_bound(runs_.begin(), runs_.end(), index.value,
                                [](uint64_t i, const EpochRun& run) { return i < run.first; });
  PACKMOOR_CHECK(after != runs_.begin(), "a record without an epoch: ", index);
  return std::prev(after)->epoch;
}

LogPosition VolumeLog::last() const {
  if (entries_.empty()) return base_;
  return {RecordIndex(base_.index.value + entries_.size()), runs_.back().epoch,
          entries_.back().hash};
}

kj::Maybe<LogPosition> VolumeLog::position(RecordIndex index) const {
  if (index == base_.index) return base_;
  if (!contains(index)) return nullptr;
  return LogPosition{index, epoch(index), entry(index).hash};
}

bool VolumeLog::holds(const LogPosition& position) const {
  if (position.index == base_.index) return position.hash == base_.hash;
  return contains(position.index) && entry(position.index).hash == position.hash;
}

bool VolumeLog::follows(RecordIndex index, const Hash128& previousHash) const {
  const Hash128& lastHash = entries_.empty() ? base_.hash : entries_.back().hash;
  return index.value == base_.index.value + entries_.size() + 1 && previousHash == lastHash;
}

void VolumeLog::append(const LogPosition& position, RecordPlace place) {
  PACKMOOR_CHECK(position.index.value == base_.index.value + entries_.size() + 1,
                 "indexing a record out of order");
  if (runs_.empty() || runs_.back().epoch != position.epoch) {
    runs_.push_back({position.index.value, position.epoch});
  }
  entries_.push_back({position.hash, place});
}

void VolumeLog::setPlace(RecordIndex index, RecordPlace place) {
  PACKMOOR_CHECK(contains(index), "placing a record that is not held");
  entries_[index.value - base_.index.value - 1].place = place;
}

RecordPlace VolumeLog::place(RecordIndex index) const { return entry(index).place; }
Hash128 VolumeLog::hash(RecordIndex index) const { return entry(index).hash; }

void VolumeLog::truncate(RecordIndex index) {
  PACKMOOR_CHECK(index == base_.index || contains(index), "truncating to a record that is not held");
  entries_.resize(index.value - base_.index.value);
  while (!runs_.empty() && runs_.back().first > index.value) runs_.pop_back();
}

void VolumeLog::release(RecordIndex index) {
  if (index <= base_.index) return;
  PACKMOOR_CHECK(contains(index), "releasing a record that is not held");
  const LogPosition base{index, epoch(index), entry(index).hash};
  entries_.erase(entries_.begin(),
                 entries_.begin() + static_cast<ptrdiff_t>(index.value - base_.index.value));
  base_ = base;
  while (runs_.size() > 1 && runs_[1].first <= index.value + 1) runs_.pop_front();
  if (entries_.empty()) runs_.clear();
}

void VolumeLog::reset(const LogPosition& base) {
  base_ = base;
  entries_.clear();
  runs_.clear();
}

void VolumeLog::setBase(const LogPosition& base) {
  PACKMOOR_CHECK(base.index == base_.index, "moving a base instead of completing it");
  base_ = base;
}

uint64_t VolumeLog::firstSegment() const {
  if (entries_.empty() || entries_.front().place.segment == 0) return UINT64_MAX;
  return entries_.front().place.segment;
}

RecordIndex VolumeLog::firstIn(uint64_t segment) const {
  // Records lie in the order of the log; those that are not written have no place yet.
  auto found = std::partition_point(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.place.segment != 0 && entry.place.segment < segment;
  });
  return RecordIndex(base_.index.value + 1 + static_cast<uint64_t>(found - entries_.begin()));
}

}  // namespace packmoor::replicator
