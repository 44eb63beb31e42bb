// JournalImpl: the journal while it is open. Split by concern:
//   journal.cc           the calls: what is appended, and each volume's log in memory
//   journal_writer.cc    batches: forming, encoding, writing, completing; segments and marker
//   journal_read.cc      records back, from memory and from segments
//   journal_check.cc     a closed segment read again
//   journal_recovery.cc  open(): creation, scan, replay, the first snapshot
//
// Three states of a volume are kept apart. *Appended* is what callers see at once (log). *Encoded*
// is what the batches given to the disk say so far (encoded*): snapshots are made of it.
// *Durable* follows when the one batch in flight completes.
#pragma once

#include "journal_marker.h"
#include "journal_segments.h"
#include "kernelio/check.h"
#include "kernelio/co.h"
#include "replicator/journal.h"
#include "volume_log.h"

#include <deque>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

namespace packmoor::replicator {

struct JournalVolume {
  VolumeId id;

  // Appended.
  VolumeLog log;
  RecordIndex released;       // asked for; what is durable of the checkpoint bounds it
  bool dropped = false;
  struct Recent {
    RecordRef record;
    uint64_t entry;           // its number in the order of calls
  };
  std::deque<Recent> recent;  // the end of the log, without holes

  // A truncation or replacement that is not durable. What it cut is needed until then.
  struct Cut {
    LogPosition to;
    bool replace;
    uint64_t entry;
  };
  std::deque<Cut> cuts;

  // Encoded.
  FencePromise promise;
  LogPosition encodedCheckpoint, encodedLast;
  bool suspect = false;

  // Durable.
  LogPosition durable, durableCheckpoint;
};
using JournalVolumeRef = std::shared_ptr<JournalVolume>;

class JournalImpl final : public Journal, private kj::TaskSet::ErrorHandler {
 public:
  // Where writing goes on, and what recovery found.
  struct Start {
    format::JournalIdentity identity;
    kj::Own<SegmentPool> pool;
    kj::Own<MarkerRing> marker;                // may be null, see setMarker()
    std::map<uint64_t, SegmentRef> segments;   // in use, by sequence
    uint64_t segmentSequence = 0;              // the highest; 0: none yet
    bool newSegment = false;                   // begin another one
    uint64_t offset = 0;                       // where to go on in it otherwise
    uint64_t batchSequence = 0;                // of the next batch
    Hash128 previousHash;
    bool mayMissVolumes = false;
    std::vector<JournalVolumeRef> volumes;
  };

  JournalImpl(kernelio::Env& env, const JournalOptions& options,
              kj::Function<void(kj::StringPtr)> fatal);
  ~JournalImpl() noexcept(false);

  // Once, before anything else. Resolves when the first snapshot is durable.
  kj::Promise<void> start(Start start);
  // When the marker was lost: it is made anew only when the first snapshot, which says so, is
  // durable.
  void setMarker(kj::Own<MarkerRing> marker) { marker_ = kj::mv(marker); }
  // For the pool, which is made before start().
  kj::Function<void(kj::Exception)> failureHandler();

  Uuid uuid() override { return identity_.journal; }
  kj::Promise<void> append(VolumeId volume, RecordRef record) override;
  kj::Promise<void> append(VolumeId volume, kj::ArrayPtr<const RecordRef> records) override;
  kj::Promise<void> truncate(VolumeId volume, LogPosition last) override;
  kj::Promise<void> promise(VolumeId volume, FencePromise promise) override;
  kj::Promise<void> checkpoint(VolumeId volume, LogPosition position, bool replace) override;
  kj::Promise<void> drop(VolumeId volume) override;
  kj::Promise<void> markWhole(VolumeId volume) override;
  void release(VolumeId volume, RecordIndex index) override;
  LogPosition base(VolumeId volume) override;
  LogPosition last(VolumeId volume) override;
  LogPosition durable(VolumeId volume) override;
  kj::Promise<kj::Array<RecordRef>> read(VolumeId volume, RecordIndex first,
                                         size_t bytesMax) override;
  kj::Maybe<LogPosition> position(VolumeId volume, RecordIndex index) override;
  std::vector<uint64_t> closedSegments() override;
  kj::Promise<SegmentCheck> checkSegment(uint64_t sequence, Pace& pace) override;
  JournalStatistics statistics() override;
  int64_t inFlightSinceMs() override;
  kj::Promise<void> close() override;

 private:
  struct Queued {
    format::EntryKind kind{};
    bool replace = false;
    JournalVolumeRef volume;
    RecordRef record;
    LogPosition position;
    FencePromise promise;
    uint64_t entry = 0;
    kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> done;
  };
  struct Batch {
    std::vector<Queued> entries;
    bool snapshot = false;
    size_t bodyBytes = 0;
    uint64_t offset = 0;
    Hash128 headerHash;
  };
  struct RecentRef {
    JournalVolumeRef volume;
    uint64_t entry;
    size_t bytes;
  };
  struct Wanted;

  // journal.cc
  JournalVolume* find(const VolumeId& id);
  const JournalVolumeRef& findOrAdd(const VolumeId& id);
  kj::Promise<void> enqueue(Queued entry);
  void appendRecord(const JournalVolumeRef& volume, const RecordRef& record);
  void requireUsable();
  void cutLog(JournalVolume& volume, const LogPosition& to, bool replace, uint64_t entry);
  void applyRelease(JournalVolume& volume);
  void recycle();
  void dropRecent(JournalVolume& volume);
  void trimRecent();

  // journal_writer.cc
  void wakeWriter();
  Co<void> writeQueue();
  Co<void> writeBatch();
  Co<void> writeFirstSnapshot();
  size_t planBatch(bool snapshot, size_t& bodyBytes) const;
  size_t factsBytes() const;
  kernelio::IoBuffer encode(Batch& batch);
  void encodeFacts(format::BodyWriter& body);
  void encodeEntry(format::BodyWriter& body, const Batch& batch, Queued& entry);
  void complete(Batch& batch);
  void completeEntry(Queued& entry);
  void settleDurable(JournalVolume& volume);
  Co<void> writeMarker();
  void fail(kj::Exception exception);
  void taskFailed(kj::Exception&& exception) override;
  Co<void> closeBody();

  // journal_read.cc
  Co<kj::Array<RecordRef>> readBody(VolumeId id, std::vector<Wanted> wanted);
  Co<void> readRun(const VolumeId& id, kj::ArrayPtr<Wanted> run);

  // journal_check.cc
  Co<SegmentCheck> checkBody(uint64_t sequence, Pace& pace);

  kernelio::Env& env_;
  const size_t batchBytesMax_, recentBytesMax_;
  const kj::Duration markerInterval_;
  const uint64_t segmentBytes_;
  const std::string folder_;
  kj::Function<void(kj::StringPtr)> fatal_;
  kj::Maybe<kj::Exception> broken_;
  bool closing_ = false;

  format::JournalIdentity identity_;
  kj::Own<MarkerRing> marker_;
  std::map<uint64_t, SegmentRef> segments_;
  SegmentRef active_;
  uint64_t segmentSequence_ = 0;
  uint64_t offset_ = 0;
  uint64_t batchSequence_ = 1;   // of the next batch
  Hash128 previousHash_;
  bool snapshotDue_ = true, mayMissVolumes_ = false;

  std::unordered_map<VolumeId, JournalVolumeRef> volumes_;   // appended
  std::map<VolumeId, JournalVolumeRef> encoded_;             // named by the batches so far
  size_t dropsPending_ = 0;

  std::deque<Queued> queue_;
  uint64_t entries_ = 0;         // enqueued, ever
  uint64_t entriesDurable_ = 0;
  bool writing_ = false;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> idleWaiters_;
  kj::TimePoint batchStarted_ = kj::origin<kj::TimePoint>();
  uint64_t batchStartedUs_ = 0;

  std::deque<RecentRef> recentOrder_;
  size_t recentBytes_ = 0;

  uint64_t batchDurable_ = 0;    // sequence
  uint64_t batchMarked_ = 0;
  bool marking_ = false;

  JournalStatistics statistics_;
  kj::Own<SegmentPool> pool_;
  kj::TaskSet tasks_;
};

}  // namespace packmoor::replicator
