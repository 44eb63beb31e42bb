#include "journal_impl.h"

#include "planted_fault.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace packmoor::replicator {

using format::BodyWriter;
using format::EntryKind;
using format::FrameHeader;
using kernelio::IoBuffer;
using kernelio::WriteMode;

namespace {

template <typename T>
kj::ArrayPtr<const kj::byte> rawBytes(const T& value) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(&value), sizeof value);
}

size_t contentBytes(EntryKind kind) {
  switch (kind) {
    case EntryKind::kTruncate:
    case EntryKind::kCheckpoint:
      return sizeof(format::PositionContent);
    case EntryKind::kPromise:
      return sizeof(format::PromiseContent);
    case EntryKind::kFacts:
      return sizeof(format::FactsContent);
    case EntryKind::kDrop:
    case EntryKind::kWhole:
    case EntryKind::kRecord:
      break;
  }
  return 0;
}

}  // namespace

// ---- The loop -----------------------------------------------------------------------------------

void JournalImpl::wakeWriter() {
  if (writing_ || broken_ != nullptr) return;
  writing_ = true;
  batchStarted_ = env_.timer.now();
  batchStartedUs_ = env_.clock.stopwatchUs();
  // What else is appended in this turn of the loop shares the batch.
  tasks_.add(kj::evalLater([this]() -> kj::Promise<void> { return writeQueue(); }));
}

Co<void> JournalImpl::writeQueue() {
  while (!queue_.empty() && broken_ == nullptr) {
    batchStarted_ = env_.timer.now();
    batchStartedUs_ = env_.clock.stopwatchUs();
    kj::Maybe<kj::Exception> failure;
    try {
      co_await writeBatch();
    } catch (kj::Exception& exception) {
      failure = kj::mv(exception);
    }
    KJ_IF_MAYBE (exception, failure) { fail(kj::mv(*exception)); }
  }
  writing_ = false;
  for (auto& waiter : idleWaiters_) waiter->fulfill();
  idleWaiters_.clear();
}

size_t JournalImpl::factsBytes() const {
  return encoded_.size() * format::entryBytes(sizeof(format::FactsContent));
}

// How many entries of the queue the next batch takes, at least one.
size_t JournalImpl::planBatch(bool snapshot, size_t& bodyBytes) const {
  bodyBytes = snapshot ? factsBytes() : 0;
  size_t count = 0, entriesBytes = 0;
  for (auto& queued : queue_) {
    const size_t bytes = queued.record != nullptr
                             ? format::recordEntryBytes(*queued.record)
                             : format::entryBytes(contentBytes(queued.kind));
    if (count > 0 && entriesBytes + bytes > batchBytesMax_) break;
    // In a segment of its own a large snapshot still takes one entry with it.
    if (count > 0 && format::frameBytes(bodyBytes + bytes) > active_->bytes) break;
    entriesBytes += bytes;
    bodyBytes += bytes;
    ++count;
  }
  return count;
}

Co<void> JournalImpl::writeBatch() {
  Batch batch;
  size_t count = 0;
  bool switchSegment = active_ == nullptr;
  if (!switchSegment) {
    batch.snapshot = snapshotDue_;
    count = planBatch(batch.snapshot, batch.bodyBytes);
    switchSegment = offset_ + format::frameBytes(batch.bodyBytes) > active_->bytes;
  }
  if (switchSegment) {
    SegmentRef next = co_await pool_->take();
    next->sequence = ++segmentSequence_;
    next->begins = true;
    segments_[next->sequence] = next;
    active_ = kj::mv(next);
    offset_ = 0;
    snapshotDue_ = true;
    batch.snapshot = true;
    count = planBatch(true, batch.bodyBytes);
    PACKMOOR_CHECK(format::frameBytes(batch.bodyBytes) <= active_->bytes,
                   "a batch does not fit into a segment: ", batch.bodyBytes);
  }
  std::move(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count),
            std::back_inserter(batch.entries));
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));

  IoBuffer frame = encode(batch);
  const size_t bytes = frame.size();
  kj::Maybe<kj::Exception> failure;
  try {
    co_await env_.faults.hit("journal.before-write");
    co_await active_->file->write(offset_, kj::mv(frame), WriteMode::kDurable);
  } catch (kj::Exception& exception) {
    failure = kj::mv(exception);
  }
  KJ_IF_MAYBE (exception, failure) {
    // Its promises are rejected with the rest; what is on disk of it is for recovery to find.
    for (auto it = batch.entries.rbegin(); it != batch.entries.rend(); ++it) {
      queue_.push_front(kj::mv(*it));
    }
    kj::throwFatalException(kj::mv(*exception));
  }
  offset_ += bytes;
  statistics_.bytes += bytes;
  complete(batch);
}

// ---- Encoding -----------------------------------------------------------------------------------

IoBuffer JournalImpl::encode(Batch& batch) {
  IoBuffer frame = IoBuffer::allocate(format::frameBytes(batch.bodyBytes));
  const auto room = frame.bytes().slice(sizeof(FrameHeader), sizeof(FrameHeader) + batch.bodyBytes);
  BodyWriter body(room);
  batch.offset = offset_;
  if (batch.snapshot) encodeFacts(body);
  for (auto& entry : batch.entries) encodeEntry(body, batch, entry);
  PACKMOOR_CHECK(body.bytes() == batch.bodyBytes, "a batch has another size than planned: ",
                 body.bytes(), " ", batch.bodyBytes);

  FrameHeader header{};
  header.flags = static_cast<uint16_t>((batch.snapshot ? format::kFrameSnapshot : 0) |
                                       (mayMissVolumes_ ? format::kFrameMayMissVolumes : 0));
  header.entryCount = body.count();
  header.journal = identity_.journal;
  header.salt = identity_.salt;
  header.segmentSequence = active_->sequence;
  header.batchSequence = batchSequence_;
  header.previousHash = previousHash_;
  header.wallMs = env_.clock.nowMs();
  format::sealHeader(header, room);
  std::memcpy(frame.begin(), &header, sizeof header);
  batch.headerHash = header.headerHash;
  return frame;
}

void JournalImpl::encodeFacts(BodyWriter& body) {
  for (auto& [id, volume] : encoded_) {
    format::FactsContent facts{};
    facts.promise = {volume->promise.epoch.value, volume->promise.nonce};
    facts.checkpoint = format::toContent(volume->encodedCheckpoint);
    facts.last = format::toContent(volume->encodedLast);
    body.add(EntryKind::kFacts, volume->suspect ? format::kEntrySuspect : 0, id, rawBytes(facts));
  }
}

void JournalImpl::encodeEntry(BodyWriter& body, const Batch& batch, Queued& entry) {
  JournalVolume& volume = *entry.volume;
  if (entry.kind == EntryKind::kDrop) {
    encoded_.erase(volume.id);
    body.add(entry.kind, 0, volume.id, nullptr);
    return;
  }
  encoded_.emplace(volume.id, entry.volume);
  switch (entry.kind) {
    case EntryKind::kRecord: {
      const Record& record = *entry.record;
      const size_t before = body.bytes();
      const size_t offset = sizeof(FrameHeader) + body.addRecord(volume.id, record);
      const RecordPlace place{static_cast<uint32_t>(active_->sequence),
                              static_cast<uint32_t>(batch.offset + offset),
                              static_cast<uint32_t>(body.bytes() - before)};
      // It may have been truncated since it was appended.
      const LogPosition position{record.index, record.epoch, record.hash};
      if (volume.log.contains(record.index) && volume.log.holds(position)) {
        volume.log.setPlace(record.index, place);
      }
      volume.encodedLast = position;
      break;
    }
    case EntryKind::kTruncate:
      body.add(entry.kind, 0, volume.id, rawBytes(format::toContent(
          planted(PlantedFault::kLoseTruncation) ? volume.encodedLast : entry.position)));
      volume.encodedLast = entry.position;
      break;
    case EntryKind::kCheckpoint:
      volume.encodedCheckpoint = entry.position;
      if (entry.replace) volume.encodedLast = entry.position;
      body.add(entry.kind, entry.replace ? format::kEntryReplace : 0, volume.id,
               rawBytes(format::toContent(entry.position)));
      break;
    case EntryKind::kPromise: {
      volume.promise = entry.promise;
      const format::PromiseContent content{entry.promise.epoch.value, entry.promise.nonce};
      body.add(entry.kind, 0, volume.id, rawBytes(content));
      break;
    }
    case EntryKind::kWhole:
      volume.suspect = false;
      body.add(entry.kind, 0, volume.id, nullptr);
      break;
    case EntryKind::kFacts:
    case EntryKind::kDrop:
      KJ_UNREACHABLE;
  }
}

// ---- Completion ---------------------------------------------------------------------------------

// The end of the log that is known to be durable: what the last durable batch said, as far as
// nothing appended since has cut it.
void JournalImpl::settleDurable(JournalVolume& volume) {
  for (auto& cut : volume.cuts) {
    if (cut.replace) {
      volume.durable = LogPosition();
    } else if (cut.to.index < volume.durable.index) {
      volume.durable = cut.to;
    }
  }
}

void JournalImpl::completeEntry(Queued& entry) {
  JournalVolume& volume = *entry.volume;
  entriesDurable_ = std::max(entriesDurable_, entry.entry);
  while (!volume.cuts.empty() && volume.cuts.front().entry <= entry.entry) {
    volume.cuts.pop_front();
  }
  if (entry.kind == EntryKind::kCheckpoint) volume.durableCheckpoint = entry.position;
  if (entry.kind == EntryKind::kDrop) --dropsPending_;
}

void JournalImpl::complete(Batch& batch) {
  snapshotDue_ = false;
  previousHash_ = batch.headerHash;
  batchDurable_ = batchSequence_++;

  const uint64_t us = env_.clock.stopwatchUs() - batchStartedUs_;
  statistics_.lastLatencyUs = us;
  statistics_.latency.add(us);
  ++statistics_.batches;
  statistics_.entries += batch.entries.size();

  bool mayRecycle = batch.snapshot;
  for (auto& entry : batch.entries) {
    completeEntry(entry);
    if (entry.kind != EntryKind::kRecord && entry.kind != EntryKind::kPromise) mayRecycle = true;
  }
  // A batch in flight is the only one: what is encoded is now durable.
  for (auto& entry : batch.entries) {
    JournalVolume& volume = *entry.volume;
    volume.durable = volume.encodedLast;
    settleDurable(volume);
    if (mayRecycle && !volume.dropped) applyRelease(volume);
  }
  if (mayRecycle) recycle();
  trimRecent();
  for (auto& entry : batch.entries) {
    KJ_IF_MAYBE (done, entry.done) { (*done)->fulfill(); }
  }
  if (!marking_) {
    marking_ = true;
    tasks_.add(writeMarker());
  }
}

// Runs while there is something that the marker does not know, with a pause before each write.
Co<void> JournalImpl::writeMarker() {
  while (marker_.get() != nullptr && batchMarked_ < batchDurable_ && broken_ == nullptr) {
    co_await env_.timer.afterDelay(markerInterval_);
    if (closing_) co_return;
    const uint64_t sequence = batchDurable_;
    co_await marker_->write(sequence, false);
    batchMarked_ = sequence;
  }
  marking_ = false;
}

// ---- Failure and end ----------------------------------------------------------------------------

kj::Function<void(kj::Exception)> JournalImpl::failureHandler() {
  return [this](kj::Exception exception) { fail(kj::mv(exception)); };
}

void JournalImpl::fail(kj::Exception exception) {
  if (broken_ != nullptr) return;
  auto sentence = kj::str("The journal in ", folder_.c_str(),
                          " could not be written, so nothing more can be acknowledged: ",
                          exception.getDescription());
  broken_ = kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                          kj::heapString(sentence));
  auto queue = kj::mv(queue_);
  queue_.clear();
  for (auto& entry : queue) {
    KJ_IF_MAYBE (done, entry.done) { (*done)->reject(kj::cp(KJ_ASSERT_NONNULL(broken_))); }
  }
  // In production this does not return. A test's may throw, which must not reach the loop.
  kj::runCatchingExceptions([&]() { fatal_(sentence); });
}

void JournalImpl::taskFailed(kj::Exception&& exception) { fail(kj::mv(exception)); }

Co<void> JournalImpl::closeBody() {
  closing_ = true;
  if (writing_) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    idleWaiters_.add(kj::mv(paf.fulfiller));
    co_await kj::mv(paf.promise);
  }
  if (broken_ != nullptr || marker_.get() == nullptr) co_return;
  co_await marker_->write(batchDurable_, true);
  batchMarked_ = batchDurable_;
}

kj::Promise<void> JournalImpl::start(Start start) {
  identity_ = start.identity;
  pool_ = kj::mv(start.pool);
  marker_ = kj::mv(start.marker);
  segments_ = std::move(start.segments);
  segmentSequence_ = start.segmentSequence;
  offset_ = start.offset;
  auto active = segments_.find(segmentSequence_);
  if (active != segments_.end()) {
    active_ = active->second;
    if (start.newSegment) offset_ = active_->bytes;
  }
  batchSequence_ = start.batchSequence;
  previousHash_ = start.previousHash;
  mayMissVolumes_ = start.mayMissVolumes;
  for (auto& volume : start.volumes) {
    volumes_[volume->id] = volume;
    encoded_[volume->id] = volume;
  }
  pool_->start();
  return writeFirstSnapshot();
}

Co<void> JournalImpl::writeFirstSnapshot() {
  writing_ = true;
  batchStarted_ = env_.timer.now();
  batchStartedUs_ = env_.clock.stopwatchUs();
  kj::Maybe<kj::Exception> failure;
  try {
    co_await writeBatch();
  } catch (kj::Exception& exception) {
    failure = kj::mv(exception);
  }
  KJ_IF_MAYBE (exception, failure) { fail(kj::mv(*exception)); }
  writing_ = false;
  requireUsable();
}

}  // namespace packmoor::replicator
