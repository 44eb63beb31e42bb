// Reads a journal that is not open, for `packmoorctl journal dump` and `verify`.
//
// Why: an operator must be able to look at what a stopped node has on its disk, by the same rule
// that recovery follows, without changing a byte. The rule is in journal_format.h.
//
// Everything is checked: header and body checksums, the chain of batches, each record's own hash
// and that it continues its volume's log. The sentences of damage are those that recovery gives.
// Memory: one segment at a time, and 32 bytes for each record held. Loop: that of the Disk. Reading
// the journal of a running node gives no wrong data but may report damage that is not there.
#pragma once

#include "kernelio/disk.h"
#include "replicator/journal.h"

namespace packmoor::replicator {

struct JournalBatchInfo {
  kj::StringPtr file;          // in the journal's folder
  uint64_t offset = 0;         // in the file
  uint64_t bytes = 0;          // with header and padding
  uint64_t segmentSequence = 0, batchSequence = 0;
  Hash128 hash, previousHash;  // of headers: the chain
  int64_t wallMs = 0;          // when it was written, by the node's clock
  uint32_t entryCount = 0;
  bool snapshot = false, mayMissVolumes = false;
};

enum class JournalEntryKind : uint8_t {
  kRecord = 1, kTruncate, kPromise, kCheckpoint, kDrop, kFacts, kWhole
};
kj::StringPtr entryKindName(JournalEntryKind kind);  // "record", "truncate", ...

struct JournalEntryInfo {
  JournalEntryKind kind{};
  VolumeId volume;
  uint64_t offset = 0, bytes = 0;        // of the entry in the file
  // record: its own; truncate, checkpoint: the one given; facts: the log's last.
  LogPosition position;
  Hash128 previousHash;                  // record
  RecordKind recordKind{};               // record
  kj::ArrayPtr<const ExtentId> extents;  // record
  kj::ArrayPtr<const kj::byte> payload;  // record
  bool hashMatches = true;               // record: the hash it carries is that of its content
  bool replace = false;                  // checkpoint
  bool suspect = false;                  // facts
  FencePromise promise;                  // promise, facts
  LogPosition checkpoint;                // facts
};

// What it points to is valid during the call.
class JournalReadVisitor {
 public:
  virtual ~JournalReadVisitor() noexcept(false) {}
  virtual void batch(const JournalBatchInfo& batch) {}
  virtual void entry(const JournalBatchInfo& batch, const JournalEntryInfo& entry) {}
  // As soon as it is certain: a gap in the oldest segment only at the end.
  virtual void damage(kj::StringPtr sentence) {}
};

struct JournalReadResult {
  RecoveryReport recovery;        // what an opening would find; its damage is complete
  uint64_t entries = 0, records = 0, payloadBytes = 0;
  uint64_t segments = 0, segmentsUnused = 0;
  uint64_t firstBatch = 0, lastBatch = 0;   // sequences
  uint64_t markerBatch = 0;       // known to be acknowledged
  uint32_t markerSlots = 0;       // intact ones
  bool closed = false;            // the marker says that nothing was written after it

  bool sound() const { return recovery.damage.size() == 0; }
};

// Rejects when there is no journal in the folder, or when a newer version wrote it.
kj::Promise<JournalReadResult> readJournal(kernelio::Disk& disk, kj::StringPtr folder,
                                           JournalReadVisitor& visitor);

}  // namespace packmoor::replicator
