#include "replicator/journal.h"

#include "journal_impl.h"

namespace packmoor::replicator {

using format::EntryKind;

namespace {
// So that a volume without traffic cannot hold the order of recent records in memory.
constexpr size_t kRecentRecordsMax = 1u << 16;
}  // namespace

JournalImpl::JournalImpl(kernelio::Env& env, const JournalOptions& options,
                         kj::Function<void(kj::StringPtr)> fatal)
    : env_(env), batchBytesMax_(options.batchBytesMax), recentBytesMax_(options.recentBytesMax),
      markerInterval_(options.markerIntervalMs * kj::MILLISECONDS),
      segmentBytes_(options.segmentBytes), folder_(options.folder.cStr()), fatal_(kj::mv(fatal)),
      tasks_(*this) {}

JournalImpl::~JournalImpl() noexcept(false) {}

// ---- Volumes ------------------------------------------------------------------------------------

JournalVolume* JournalImpl::find(const VolumeId& id) {
  auto found = volumes_.find(id);
  return found == volumes_.end() ? nullptr : found->second.get();
}

const JournalVolumeRef& JournalImpl::findOrAdd(const VolumeId& id) {
  auto& volume = volumes_[id];
  if (volume == nullptr) {
    volume = std::make_shared<JournalVolume>();
    volume->id = id;
  }
  return volume;
}

LogPosition JournalImpl::base(VolumeId id) {
  auto volume = find(id);
  return volume == nullptr ? LogPosition() : volume->log.base();
}

LogPosition JournalImpl::last(VolumeId id) {
  auto volume = find(id);
  return volume == nullptr ? LogPosition() : volume->log.last();
}

LogPosition JournalImpl::durable(VolumeId id) {
  auto volume = find(id);
  return volume == nullptr ? LogPosition() : volume->durable;
}

kj::Maybe<LogPosition> JournalImpl::position(VolumeId id, RecordIndex index) {
  auto volume = find(id);
  if (volume != nullptr) return volume->log.position(index);
  if (index.value == 0) return LogPosition();
  return nullptr;
}

// ---- Appending ----------------------------------------------------------------------------------

void JournalImpl::requireUsable() {
  PACKMOOR_CHECK(!closing_, "appending to a closed journal");
  KJ_IF_MAYBE (exception, broken_) { kj::throwFatalException(kj::cp(*exception)); }
}

kj::Promise<void> JournalImpl::enqueue(Queued entry) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  entry.done = kj::mv(paf.fulfiller);
  if (entry.entry == 0) entry.entry = ++entries_;
  queue_.push_back(kj::mv(entry));
  wakeWriter();
  return kj::mv(paf.promise);
}

void JournalImpl::appendRecord(const JournalVolumeRef& volume, const RecordRef& record) {
  PACKMOOR_CHECK(volume->log.follows(record->index, record->previousHash),
                 "the record does not continue the log of volume ", volume->id, ": ",
                 record->index, " after ", volume->log.last().index);
  const size_t bytes = format::recordEntryBytes(*record);
  PACKMOOR_CHECK(record->payload.size() <= kRecordPayloadBytesMax, "a record is too large: ",
                 record->payload.size());
  PACKMOOR_CHECK(bytes <= segmentBytes_ / 2, "a record is too large for a segment: ", bytes);
  volume->log.append({record->index, record->epoch, record->hash}, {});

  const uint64_t entry = ++entries_;
  volume->recent.push_back({record, entry});
  recentOrder_.push_back({volume, entry, record->bytes()});
  recentBytes_ += record->bytes();
}

kj::Promise<void> JournalImpl::append(VolumeId id, RecordRef record) {
  return append(id, kj::arrayPtr(&record, 1));
}

kj::Promise<void> JournalImpl::append(VolumeId id, kj::ArrayPtr<const RecordRef> records) {
  requireUsable();
  if (records.size() == 0) return kj::READY_NOW;
  const auto& volume = findOrAdd(id);
  for (size_t i = 0; i < records.size(); ++i) {
    appendRecord(volume, records[i]);
    Queued queued;
    queued.kind = EntryKind::kRecord;
    queued.volume = volume;
    queued.record = records[i];
    queued.entry = entries_;
    if (i + 1 == records.size()) return enqueue(kj::mv(queued));
    queue_.push_back(kj::mv(queued));
  }
  KJ_UNREACHABLE;
}

void JournalImpl::cutLog(JournalVolume& volume, const LogPosition& to, bool replace,
                         uint64_t entry) {
  if (replace) {
    volume.log.reset(to);
  } else {
    volume.log.truncate(to.index);
  }
  while (!volume.recent.empty() &&
         (replace || volume.recent.back().record->index > to.index)) {
    recentBytes_ -= volume.recent.back().record->bytes();
    volume.recent.pop_back();
  }
  volume.released = std::min(volume.released, to.index);
  volume.cuts.push_back({to, replace, entry});
  settleDurable(volume);
}

kj::Promise<void> JournalImpl::truncate(VolumeId id, LogPosition last) {
  requireUsable();
  const auto& volume = findOrAdd(id);
  PACKMOOR_CHECK(volume->log.holds(last), "truncating volume ", id,
                 " to a record that its log does not hold: ", last.index);
  PACKMOOR_CHECK(last.index >= volume->durableCheckpoint.index, "truncating volume ", id,
                 " below its checkpoint: ", last.index, volume->durableCheckpoint.index);
  Queued queued;
  queued.kind = EntryKind::kTruncate;
  queued.volume = volume;
  queued.position = last;
  queued.entry = ++entries_;
  cutLog(*volume, last, false, queued.entry);
  return enqueue(kj::mv(queued));
}

kj::Promise<void> JournalImpl::promise(VolumeId id, FencePromise promise) {
  requireUsable();
  Queued queued;
  queued.kind = EntryKind::kPromise;
  queued.volume = findOrAdd(id);
  queued.promise = promise;
  return enqueue(kj::mv(queued));
}

kj::Promise<void> JournalImpl::checkpoint(VolumeId id, LogPosition position, bool replace) {
  requireUsable();
  const auto& volume = findOrAdd(id);
  Queued queued;
  queued.kind = EntryKind::kCheckpoint;
  queued.volume = volume;
  queued.position = position;
  queued.replace = replace;
  queued.entry = ++entries_;
  if (replace) {
    cutLog(*volume, position, true, queued.entry);
  } else {
    PACKMOOR_CHECK(volume->log.holds(position), "a checkpoint of volume ", id,
                   " at a record that its log does not hold: ", position.index);
  }
  return enqueue(kj::mv(queued));
}

kj::Promise<void> JournalImpl::drop(VolumeId id) {
  requireUsable();
  JournalVolumeRef volume = findOrAdd(id);
  volume->dropped = true;
  dropRecent(*volume);
  volumes_.erase(id);
  ++dropsPending_;
  Queued queued;
  queued.kind = EntryKind::kDrop;
  queued.volume = kj::mv(volume);
  return enqueue(kj::mv(queued));
}

kj::Promise<void> JournalImpl::markWhole(VolumeId id) {
  requireUsable();
  Queued queued;
  queued.kind = EntryKind::kWhole;
  queued.volume = findOrAdd(id);
  return enqueue(kj::mv(queued));
}

// ---- Recycling ----------------------------------------------------------------------------------

void JournalImpl::release(VolumeId id, RecordIndex index) {
  auto volume = find(id);
  if (volume == nullptr) return;
  volume->released = std::max(volume->released, index);
  applyRelease(*volume);
  recycle();
}

void JournalImpl::applyRelease(JournalVolume& volume) {
  if (!volume.cuts.empty()) return;
  // Records that are not durable are above any durable checkpoint.
  const RecordIndex upTo = std::min(volume.released, volume.durableCheckpoint.index);
  if (upTo <= volume.log.base().index) return;
  volume.log.release(upTo);
  while (!volume.recent.empty() && volume.recent.front().record->index <= upTo) {
    recentBytes_ -= volume.recent.front().record->bytes();
    volume.recent.pop_front();
  }
}

// Gives segments back, from the oldest, as long as no volume needs a record in them. The active
// segment stays; the one after the oldest begins with a durable snapshot, because it is not
// the active one or has had its first batch.
void JournalImpl::recycle() {
  if (dropsPending_ > 0 || active_ == nullptr) return;
  uint64_t needed = active_->sequence;
  if (snapshotDue_ && segments_.size() > 1) needed = std::prev(segments_.end(), 2)->first;
  if (segments_.begin()->first >= needed) return;
  for (auto& [id, volume] : volumes_) {
    if (!volume->cuts.empty()) return;
    needed = std::min(needed, volume->log.firstSegment());
  }
  // The oldest that stays has its first batch.
  auto oldest = std::prev(segments_.upper_bound(needed));
  while (oldest != segments_.begin() && !oldest->second->begins) --oldest;
  needed = oldest->first;
  while (segments_.begin()->first < needed) {
    SegmentRef segment = std::move(segments_.begin()->second);
    segments_.erase(segments_.begin());
    pool_->add(std::move(segment));
  }
}

// ---- Recent records -----------------------------------------------------------------------------

void JournalImpl::dropRecent(JournalVolume& volume) {
  for (auto& recent : volume.recent) recentBytes_ -= recent.record->bytes();
  volume.recent.clear();
}

// Forgets the oldest records beyond the bound. Those that are not durable stay: they cannot be
// read from anywhere else.
void JournalImpl::trimRecent() {
  while (!recentOrder_.empty()) {
    RecentRef& oldest = recentOrder_.front();
    auto& recent = oldest.volume->recent;
    const bool stale = recent.empty() || recent.front().entry > oldest.entry;
    if (!stale) {
      const bool excess =
          recentBytes_ > recentBytesMax_ || recentOrder_.size() > kRecentRecordsMax;
      if (!excess || oldest.entry > entriesDurable_) return;
      PACKMOOR_CHECK(recent.front().entry == oldest.entry, "recent records are out of order");
      recentBytes_ -= recent.front().record->bytes();
      recent.pop_front();
    }
    recentOrder_.pop_front();
  }
}

// ---- Status -------------------------------------------------------------------------------------

JournalStatistics JournalImpl::statistics() {
  JournalStatistics result = statistics_;
  result.segments = segments_.size();
  result.segmentsFree = pool_.get() == nullptr ? 0 : pool_->freeCount();
  result.segmentBytes = segmentBytes_;
  result.queuedEntries = queue_.size();
  result.inFlightSinceMs = inFlightSinceMs();
  return result;
}

int64_t JournalImpl::inFlightSinceMs() {
  if (!writing_) return 0;
  return std::max<int64_t>(1, (batchStarted_ - kj::origin<kj::TimePoint>()) / kj::MILLISECONDS);
}

kj::Promise<void> JournalImpl::close() { return closeBody(); }

}  // namespace packmoor::replicator
