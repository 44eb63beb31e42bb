// Journal: the node's one on-disk log, carrying the records of all its volumes.
//
// Why: one durable write serves every volume, and everything else on the node is derived from
// it. The byte layout and the validity rule are in journal_format.h.
//
// Durability: append() resolves when the entry is durable; entries become durable in the order
// of the calls. Exactly one batch is being made durable at a time; what arrives meanwhile forms
// the next (group commit). A failed write or sync is never retried: the fatal handler given at
// open is called and does not return (invariant 9).
//
// Reading: read() serves entries that were appended, durable or not, from memory where recent
// and from the segments otherwise. A truncation hides the records above it at once.
//
// Recycling: a segment is reused when every volume in it has been released up to beyond its last
// entry there (release()), so the journal's size is bounded by how far checkpoints lag.
//
// Loop: all calls on the loop of its Env. The journal outlives all promises it returned, or is
// dropped after the disk.
#pragma once

#include "kernelio/env.h"
#include "kernelio/latency_histogram.h"
#include "replicator/pace.h"
#include "replicator/types.h"

#include <kj/function.h>
#include <kj/one-of.h>

#include <map>

namespace packmoor::replicator {

constexpr uint64_t kSegmentBytesDefault = 64ull << 20;
constexpr size_t kBatchBytesMax = 1u << 20;

struct JournalOptions {
  kj::StringPtr folder = "journal"_kj;
  uint64_t segmentBytes = kSegmentBytesDefault;
  size_t batchBytesMax = kBatchBytesMax;  // a larger single entry still gets a batch of its own
  size_t segmentsSpare = 2;               // pre-written ahead of need
  bool create = true;                     // false: opening an absent journal is an error
  size_t recentBytesMax = 32u << 20;      // records kept in memory for read()
  int64_t markerIntervalMs = 100;         // the marker lags acknowledgements by about this much
};

// A member's promise to refuse epochs below `epoch` of a volume (rule 3), bound to the nonce.
struct FencePromise {
  Epoch epoch;
  Uuid nonce;
};

// What recovery found for one volume: the log that is on disk, in order.
struct RecoveredVolume {
  FencePromise promise;          // zeros: never promised
  LogPosition base;              // below the first record kept; not above the checkpoint
  LogPosition last;              // of the last record; equals base when there is none
  LogPosition checkpoint;        // zeros: none
  // Rot within the journal may have eaten entries of this volume: records, truncations, promises.
  // Stays over restarts until markWhole(). The log ends before what is known to be lost.
  bool suspect = false;
};

struct RecoveryReport {
  Uuid journal;                            // this journal's identity
  bool created = false;                    // nothing was there before
  std::map<VolumeId, RecoveredVolume> volumes;
  uint64_t batches = 0, bytes = 0;
  uint64_t tornBytes = 0;                  // cut as a torn tail (never acknowledged)
  // Rot may have eaten all that was known of some volume: one that should be here and is not
  // listed is suspect too. Stays for the life of this journal.
  bool mayMissVolumes = false;
  kj::Vector<kj::String> damage;           // sentences: what is rotten and where
};

struct JournalStatistics {
  uint64_t batches = 0, entries = 0, bytes = 0;
  uint64_t segments = 0, segmentsFree = 0, segmentBytes = 0, queuedEntries = 0;
  kernelio::LatencyHistogram latency;  // of durable batches, from the write's start to its end
  uint64_t lastLatencyUs = 0;
  int64_t inFlightSinceMs = 0;   // 0: none; else monotonic time when the batch was started
};

// What a closed segment was found to be when it was read again.
struct SegmentCheck {
  uint64_t bytes = 0, batches = 0;         // zeros: the segment is needed no more
  std::vector<std::string> damage;         // sentences: what is rotten and where
  // Volumes with records there that are needed and cannot be read: the highest of each.
  std::map<VolumeId, RecordIndex> volumes;
};

class Journal {
 public:
  struct Opened {
    kj::Own<Journal> journal;
    RecoveryReport report;
  };
  // Opens or creates the journal and scans it. `fatal` is called with a sentence when a write
  // fails; it must end the process (a test's may throw; the journal then accepts nothing more).
  static kj::Promise<Opened> open(kernelio::Env& env, JournalOptions options,
                                  kj::Function<void(kj::StringPtr)> fatal);
  virtual ~Journal() noexcept(false) {}

  virtual Uuid uuid() = 0;

  // Each resolves when durable. Record order per volume is checked: index and previous hash
  // must continue that volume's log (PACKMOOR_CHECK).
  virtual kj::Promise<void> append(VolumeId volume, RecordRef record) = 0;
  virtual kj::Promise<void> append(VolumeId volume, kj::ArrayPtr<const RecordRef> records) = 0;
  // The volume's log ends at `last` from here on.
  virtual kj::Promise<void> truncate(VolumeId volume, LogPosition last) = 0;
  virtual kj::Promise<void> promise(VolumeId volume, FencePromise promise) = 0;
  // The volume's state up to `position` is durable elsewhere; the log below it may be recycled
  // once released. With `replace` the log's content is dropped and continues from `position`
  // (a checkpoint was installed).
  virtual kj::Promise<void> checkpoint(VolumeId volume, LogPosition position, bool replace) = 0;
  // Forgets a volume.
  virtual kj::Promise<void> drop(VolumeId volume) = 0;
  // A suspect volume has been repaired (rule 17): the next recovery takes it for whole again.
  virtual kj::Promise<void> markWhole(VolumeId volume) = 0;

  // Allows recycling of the volume's records up to and including `index`, never beyond its last
  // durable checkpoint. Does not survive a restart; called again from the checkpoint then.
  virtual void release(VolumeId volume, RecordIndex index) = 0;

  virtual LogPosition base(VolumeId volume) = 0;  // below the first record that read() can serve
  virtual LogPosition last(VolumeId volume) = 0;  // appended, durable or not
  virtual LogPosition durable(VolumeId volume) = 0;

  // Records from `first`, at most `bytesMax` of payload but at least one when there is one.
  // Empty when first > last. Rejects when first <= base. A record whose checksum fails
  // rejects with a sentence (the caller starts repair).
  virtual kj::Promise<kj::Array<RecordRef>> read(VolumeId volume, RecordIndex first,
                                                 size_t bytesMax) = 0;
  // Position of a record that is still held; nullptr when index is outside [base, last].
  virtual kj::Maybe<LogPosition> position(VolumeId volume, RecordIndex index) = 0;

  // Segments that are written no more and hold what is needed, oldest first, by sequence; and one of
  // them read again as recovery would, from the disk, at the pace given: checksums, chain, entries,
  // and that the records which the volumes' logs have there are there. Changes nothing.
  virtual std::vector<uint64_t> closedSegments() = 0;
  virtual kj::Promise<SegmentCheck> checkSegment(uint64_t sequence, Pace& pace) = 0;

  virtual JournalStatistics statistics() = 0;
  // As in the statistics: when the batch that is being made durable was started; 0: none.
  virtual int64_t inFlightSinceMs() = 0;
  // Waits for what is in flight and writes the tail marker. Nothing may be appended after.
  virtual kj::Promise<void> close() = 0;
};

}  // namespace packmoor::replicator
