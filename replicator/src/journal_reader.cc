#include "replicator/journal_reader.h"

#include "journal_replay.h"

#include <cstring>

namespace packmoor::replicator {

using format::Entry;
using format::EntryKind;
using format::FrameHeader;

static_assert(static_cast<int>(JournalEntryKind::kRecord) == static_cast<int>(EntryKind::kRecord));
static_assert(static_cast<int>(JournalEntryKind::kTruncate) ==
              static_cast<int>(EntryKind::kTruncate));
static_assert(static_cast<int>(JournalEntryKind::kPromise) ==
              static_cast<int>(EntryKind::kPromise));
static_assert(static_cast<int>(JournalEntryKind::kCheckpoint) ==
              static_cast<int>(EntryKind::kCheckpoint));
static_assert(static_cast<int>(JournalEntryKind::kDrop) == static_cast<int>(EntryKind::kDrop));
static_assert(static_cast<int>(JournalEntryKind::kFacts) == static_cast<int>(EntryKind::kFacts));
static_assert(static_cast<int>(JournalEntryKind::kWhole) == static_cast<int>(EntryKind::kWhole));

kj::StringPtr entryKindName(JournalEntryKind kind) {
  switch (kind) {
    case JournalEntryKind::kRecord: return "record";
    case JournalEntryKind::kTruncate: return "truncate";
    case JournalEntryKind::kPromise: return "promise";
    case JournalEntryKind::kCheckpoint: return "checkpoint";
    case JournalEntryKind::kDrop: return "drop";
    case JournalEntryKind::kFacts: return "facts";
    case JournalEntryKind::kWhole: return "whole";
  }
  return "unknown";
}

namespace {

// Passes frames to the replay, as recovery does, and to the visitor in the words of its interface.
class Reader final : public ScanVisitor {
 public:
  explicit Reader(JournalReadVisitor& visitor) : visitor_(visitor) {}

  void frame(kj::StringPtr file, uint64_t offset, const FrameHeader& header,
             kj::ArrayPtr<const kj::byte> body) override {
    JournalBatchInfo batch;
    batch.file = file;
    batch.offset = offset;
    batch.bytes = format::frameBytes(header.bodyBytes);
    batch.segmentSequence = header.segmentSequence;
    batch.batchSequence = header.batchSequence;
    batch.hash = header.headerHash;
    batch.previousHash = header.previousHash;
    batch.wallMs = header.wallMs;
    batch.entryCount = header.entryCount;
    batch.snapshot = (header.flags & format::kFrameSnapshot) != 0;
    batch.mayMissVolumes = (header.flags & format::kFrameMayMissVolumes) != 0;
    if (result.firstBatch == 0) result.firstBatch = header.batchSequence;
    result.lastBatch = header.batchSequence;
    visitor_.batch(batch);

    size_t at = 0;
    for (uint32_t i = 0; i < header.entryCount; ++i) {
      entry(batch, format::parseEntry(body, at));
    }
    replay.frame(file, offset, header, body);
    tellNewDamage();
  }
  void gap(kj::StringPtr sentence, bool oldest) override {
    replay.gap(sentence, oldest);
    tellNewDamage();
  }
  void blemish(kj::StringPtr sentence) override {
    replay.blemish(sentence);
    tellNewDamage();
  }
  void finish() {
    replay.finish();
    tellNewDamage();
  }

  JournalReplay replay;
  JournalReadResult result;

 private:
  void entry(const JournalBatchInfo& batch, const Entry& entry) {
    JournalEntryInfo info;
    info.kind = JournalEntryKind(entry.kind);
    info.volume = entry.volume;
    info.offset = batch.offset + sizeof(FrameHeader) + entry.offset;
    info.bytes = entry.bytes;
    info.replace = entry.replace;
    info.suspect = entry.suspect;
    info.promise = entry.promise;
    info.checkpoint = entry.checkpoint;
    info.position = entry.kind == EntryKind::kFacts ? entry.last : entry.position;
    RecordRef record;
    if (entry.kind == EntryKind::kRecord) {
      record = format::toRecord(entry);
      info.position = {record->index, record->epoch, entry.record.hash};
      info.previousHash = record->previousHash;
      info.recordKind = record->kind;
      info.extents = kj::arrayPtr(record->extents.data(), record->extents.size());
      info.payload = record->payload;
      info.hashMatches = record->hash == entry.record.hash;
      ++result.records;
      result.payloadBytes += record->payload.size();
      if (!info.hashMatches) {
        replay.blemish(kj::str("Record ", record->index, " of volume ", entry.volume, " in ",
                               batch.file, " at offset ", info.offset,
                               " has another hash than it says, inside an intact batch."));
      }
    }
    ++result.entries;
    visitor_.entry(batch, info);
  }

  void tellNewDamage() {
    for (; told_ < replay.damage.size(); ++told_) visitor_.damage(replay.damage[told_]);
  }

  JournalReadVisitor& visitor_;
  size_t told_ = 0;
};

Co<JournalReadResult> readBody(kernelio::Disk& disk, kj::String folder,
                               JournalReadVisitor& visitor) {
  Reader reader(visitor);
  ScanResult scan = co_await scanJournal(disk, kj::heapString(folder), reader);
  KJ_REQUIRE(scan.identity.known() || scan.marker.present, "There is no journal in this folder.",
             folder);
  reader.finish();

  JournalReadResult result = kj::mv(reader.result);
  result.segments = scan.segments.size();
  result.segmentsUnused = scan.unused.size();
  result.markerSlots = scan.marker.slotsIntact;
  if (scan.marker.slotsIntact > 0) {
    result.markerBatch = scan.marker.newest.batchSequence;
    result.closed = (scan.marker.newest.flags & format::kMarkerClosed) != 0 &&
                    result.markerBatch == result.lastBatch;
  }
  result.recovery = makeReport(scan, reader.replay);
  co_return result;
}

}  // namespace

kj::Promise<JournalReadResult> readJournal(kernelio::Disk& disk, kj::StringPtr folder,
                                           JournalReadVisitor& visitor) {
  return readBody(disk, kj::heapString(folder), visitor);
}

}  // namespace packmoor::replicator
