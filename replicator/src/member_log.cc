#include "member_log.h"

#include "kernelio/check.h"
#include "planted_fault.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

MemberLog::MemberLog(Journal& journal, ExtentStore& extents, VolumeId volume,
                     const RecoveredVolume& found, kj::Function<void()> onDurable)
    : journal_(journal), extents_(extents), volume_(volume), onDurable_(kj::mv(onDurable)),
      last_(found.last), durable_(found.last.index), committed_(found.base.index),
      released_(found.base.index) {}

MemberLog::~MemberLog() noexcept(false) {}

LogPosition MemberLog::base() const {
  // A volume that the journal has never heard of has nothing below its first record.
  return last_.index.value == 0 ? LogPosition() : journal_.base(volume_);
}

kj::Maybe<LogPosition> MemberLog::position(RecordIndex index) const {
  if (index > last_.index) return nullptr;
  if (index == last_.index) return last_;
  if (!recent_.empty() && index >= recent_.front()->index) {
    const Record& record = *recent_[index.value - recent_.front()->index.value];
    return LogPosition{record.index, record.epoch, record.hash};
  }
  if (index.value == 0 && base().index.value == 0) return LogPosition();
  return journal_.position(volume_, index);
}

void MemberLog::append(kj::ArrayPtr<const RecordRef> records) {
  if (records.size() == 0) return;
  requireOpen();
  LogPosition at = last_;
  for (const RecordRef& record : records) {
    PACKMOOR_CHECK(record->index == at.index.next(), "appending out of order", record->index,
                   at.index);
    PACKMOOR_CHECK(record->previousHash == at.hash, "appending onto another log", record->index);
    PACKMOOR_CHECK(record->epoch >= at.epoch, "epochs go back", record->epoch, at.epoch);
    pin(*record);
    at = LogPosition{record->index, record->epoch, record->hash};
  }
  last_ = at;
  remember(records);
  wrote(false, journal_.append(volume_, records));
}

void MemberLog::truncate(LogPosition to) {
  requireOpen();
  // Invariant 4. The other place is MemberCore::plan.
  PACKMOOR_CHECK(to.index >= committed_, "a committed record would be truncated", to.index,
                 committed_);
  PACKMOOR_CHECK(to.index < last_.index, "truncating nothing", to.index, last_.index);
  while (!recent_.empty() && recent_.back()->index > to.index) {
    recentBytes_ -= recent_.back()->bytes();
    recent_.pop_back();
  }
  while (!marks_.empty() && marks_.back().index > to.index) marks_.pop_back();
  unpinFrom(to.index.next());
  last_ = to;
  durable_ = std::min(durable_, to.index);
  wrote(true, journal_.truncate(volume_, to));
}

void MemberLog::reset(LogPosition to) {
  requireOpen();
  recent_.clear();
  recentBytes_ = 0;
  marks_.clear();
  unpinFrom(RecordIndex());
  last_ = to;
  committed_ = released_ = to.index;
  durable_ = std::min(durable_, to.index);
  wrote(true, journal_.checkpoint(volume_, to, true));
}

void MemberLog::markWhole() {
  requireOpen();
  wrote(false, journal_.markWhole(volume_));
}

void MemberLog::close() {
  closed_ = true;
  unpinFrom(RecordIndex());
}

void MemberLog::requireOpen() const {
  KJ_REQUIRE(!closed_, "the volume is not this node's any more");
}

void MemberLog::promise(FencePromise promise) {
  requireOpen();
  wrote(false, journal_.promise(volume_, promise));
}

void MemberLog::wrote(bool truncates, kj::Promise<void> durable) {
  const uint64_t sequence = ++sequence_;
  written_.push_back(Written{sequence, last_.index, truncates});
  tasks_.add(durable.then([this, sequence]() { becameDurable(sequence); }));
}

void MemberLog::becameDurable(uint64_t sequence) {
  // The journal makes its entries durable in order, so this and everything before it is.
  if (sequence <= sequenceDurable_) return;
  RecordIndex upTo = durable_;
  while (!written_.empty() && written_.front().sequence <= sequence) {
    upTo = written_.front().lastAfter;
    written_.pop_front();
  }
  // Of that log, only what later truncations left is part of the log as it is now.
  for (const Written& later : written_) {
    if (later.truncates) upTo = std::min(upTo, later.lastAfter);
  }
  sequenceDurable_ = sequence;
  const bool grew = upTo > durable_;
  durable_ = std::max(durable_, upTo);
  PACKMOOR_CHECK(durable_ <= last_.index, "durable beyond the end", durable_, last_.index);
  while (!waiters_.empty() && waiters_.front().sequence <= sequence) {
    waiters_.front().fulfiller->fulfill();
    waiters_.pop_front();
  }
  if (grew) onDurable_();
}

kj::Promise<void> MemberLog::whenWritten() {
  if (sequenceDurable_ == sequence_) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiters_.push_back(Waiter{sequence_, kj::mv(paf.fulfiller)});
  return kj::mv(paf.promise);
}

void MemberLog::keepCommitted(RecordIndex index) { committed_ = std::max(committed_, index); }

void MemberLog::remember(kj::ArrayPtr<const RecordRef> records) {
  for (const RecordRef& record : records) {
    recent_.push_back(record);
    recentBytes_ += record->bytes();
    bytesWritten_ += record->bytes();
  }
  while (recent_.size() > kRecentRecordsMax ||
         (recentBytes_ > kRecentBytesMax && recent_.size() > 1)) {
    recentBytes_ -= recent_.front()->bytes();
    recent_.pop_front();
  }
  if (marks_.empty() || bytesWritten_ - marks_.back().bytes >= kMarkBytes) {
    marks_.push_back(Mark{last_.index, bytesWritten_});
  }
}

bool MemberLog::recent(RecordIndex first, RecordIndex last, size_t bytesMax, size_t countMax,
                       std::vector<RecordRef>& out) const {
  if (recent_.empty() || first < recent_.front()->index) return false;
  size_t bytes = 0;
  const size_t begin = first.value - recent_.front()->index.value;
  for (size_t i = begin; i < recent_.size() && i - begin < countMax; ++i) {
    const RecordRef& record = recent_[i];
    if (record->index > last) break;
    bytes += record->bytes();
    if (i > begin && bytes > bytesMax) break;
    out.push_back(record);
  }
  return true;
}

kj::Promise<kj::Array<RecordRef>> MemberLog::read(RecordIndex first, size_t bytesMax) {
  return journal_.read(volume_, first, bytesMax);
}

kj::Maybe<size_t> MemberLog::firstUnsealed(kj::ArrayPtr<const RecordRef> records) const {
  for (size_t i = 0; i < records.size(); ++i) {
    for (const ExtentId& extent : records[i]->extents) {
      if (!extents_.isSealed(extent)) return i;
    }
  }
  return nullptr;
}

void MemberLog::pin(const Record& record) {
  if (record.extents.empty()) return;
  for (const ExtentId& extent : record.extents) {
    // Invariant 5. The other place is VolumeImpl::open, for what a restart finds.
    PACKMOOR_CHECK(extents_.isSealed(extent) || planted(PlantedFault::kApplyBeforeSealed),
                   "journaling a record before its extent is sealed",
                   record.index, extent);
    extents_.pin(extent);
  }
  pinned_[record.index] = record.extents;
}

bool MemberLog::pinRecovered(const Record& record) {
  for (const ExtentId& extent : record.extents) {
    if (!extents_.isSealed(extent)) return false;
  }
  pin(record);
  return true;
}

void MemberLog::unpinFrom(RecordIndex first) {
  for (auto it = pinned_.lower_bound(first); it != pinned_.end(); it = pinned_.erase(it)) {
    for (const ExtentId& extent : it->second) extents_.unpin(extent);
  }
}

kj::Promise<void> MemberLog::checkpoint(LogPosition position) {
  requireOpen();
  return journal_.checkpoint(volume_, position, false);
}

void MemberLog::install(LogPosition position) {
  requireOpen();
  auto held = this->position(position.index);
  KJ_IF_MAYBE(own, held) {
    if (own->hash == position.hash) {
      committed_ = std::max(committed_, position.index);
      wrote(false, journal_.checkpoint(volume_, position, false));
      return;
    }
  }
  // Invariant 4: what is committed here is part of what the checkpoint holds.
  PACKMOOR_CHECK(position.index > committed_, "a checkpoint replaces what is committed here",
                 position.index, committed_);
  recent_.clear();
  recentBytes_ = 0;
  marks_.clear();
  unpinFrom(RecordIndex());
  last_ = position;
  committed_ = released_ = position.index;
  durable_ = std::min(durable_, position.index);
  wrote(true, journal_.checkpoint(volume_, position, true));
}

void MemberLog::release(RecordIndex index) {
  if (index <= released_ || closed_) return;
  PACKMOOR_CHECK(index <= committed_, "releasing what is not committed", index, committed_);
  released_ = index;
  while (!pinned_.empty() && pinned_.begin()->first <= index) {
    for (const ExtentId& extent : pinned_.begin()->second) extents_.unpin(extent);
    pinned_.erase(pinned_.begin());
  }
  while (marks_.size() > 1 && marks_[1].index <= index) marks_.pop_front();
  journal_.release(volume_, index);
}

uint64_t MemberLog::bytesAfter(RecordIndex index) const {
  auto it = std::upper_bound(marks_.begin(), marks_.end(), index,
                             [](RecordIndex i, const Mark& mark) { return i < mark.index; });
  if (it == marks_.begin()) return bytesWritten_;
  return bytesWritten_ - std::prev(it)->bytes;
}

RecordIndex MemberLog::indexBeforeBytes(uint64_t bytes) const {
  if (bytesWritten_ <= bytes) return released_;
  for (const Mark& mark : marks_) {
    if (bytesWritten_ - mark.bytes <= bytes) return mark.index;
  }
  return last_.index;
}

}  // namespace packmoor::replicator
