// MemberLog: one volume's log in the node's journal.
//
// Why: the journal carries all volumes and resolves one promise per call. The protocol asks
// other questions: what is durable of the log as it is now, is all that was written so far
// durable, what are the records from here on. MemberLog answers them, keeps the newest records
// at hand without a promise, and keeps the extents that the log names.
//
// Invariants that it checks: 4 (a committed record is never truncated), 5 (a record with extents is
// written only when they are sealed here), and the hash chain.
//
// Extents named by records in the log are pinned until the log below them is released, so that
// a member that is behind can still fetch them here.
//
// Loop: the node's. The journal and the extent store outlive it.
#pragma once

#include "replicator/extent_store.h"
#include "replicator/journal.h"
#include "wake_signal.h"
#include "tasks.h"

#include <kj/function.h>

#include <deque>
#include <map>

namespace packmoor::replicator {

// What protocol decisions need to know of a log. MemberLog is one; tests have others.
class LogView {
 public:
  virtual LogPosition base() const = 0;     // below the first record held
  virtual LogPosition last() const = 0;     // written, durable or not
  virtual RecordIndex durable() const = 0;  // of the log as it is now, durable up to here
  // nullptr outside [base, last].
  virtual kj::Maybe<LogPosition> position(RecordIndex index) const = 0;

 protected:
  ~LogView() = default;
};

class MemberLog final : public LogView {
 public:
  static constexpr size_t kRecentBytesMax = 16u << 20;
  static constexpr size_t kRecentRecordsMax = 16384;

  // `onDurable` is called when durable() has grown; it must not destroy the log.
  MemberLog(Journal& journal, ExtentStore& extents, VolumeId volume, const RecoveredVolume& found,
            kj::Function<void()> onDurable);
  ~MemberLog() noexcept(false);
  KJ_DISALLOW_COPY(MemberLog);

  LogPosition base() const override;
  LogPosition last() const override { return last_; }
  RecordIndex durable() const override { return durable_; }
  kj::Maybe<LogPosition> position(RecordIndex index) const override;

  // Consecutive records behind last(). All their extents are sealed here.
  void append(kj::ArrayPtr<const RecordRef> records);
  // The log ends at `to`, which is a position of it.
  void truncate(LogPosition to);
  // In repair: drops all records. The log goes on behind `to`, where the durable state stands.
  void reset(LogPosition to);
  // Writes that the volume is whole again (rule 17). Durable as a promise is.
  void markWhole();
  // Writes the promise. It is durable when whenWritten() called after this resolves.
  void promise(FencePromise promise);
  // Resolves when everything written before this call is durable.
  kj::Promise<void> whenWritten();

  // Nothing at or below this index may ever be truncated. Never goes down.
  void keepCommitted(RecordIndex index);

  // Adds the records from `first` to `out` while they are at hand and within the bounds (at least
  // one when `first` is at hand). False: `first` is not at hand, use read().
  bool recent(RecordIndex first, RecordIndex last, size_t bytesMax, size_t countMax,
              std::vector<RecordRef>& out) const;
  kj::Promise<kj::Array<RecordRef>> read(RecordIndex first, size_t bytesMax);

  // The first index whose extents are not all sealed here, among `records`; nullptr: none.
  kj::Maybe<size_t> firstUnsealed(kj::ArrayPtr<const RecordRef> records) const;
  // Pins the extents of a record that was in the log at start. False: one is not sealed here.
  bool pinRecovered(const Record& record);

  // A checkpoint: what is applied up to `position` is durable outside the log.
  kj::Promise<void> checkpoint(LogPosition position);
  // A checkpoint was installed: the state at `position`, which is committed, is durable here. By one
  // entry of the journal the log goes on behind it; what of the log is behind it already
  // stays (rule 13).
  void install(LogPosition position);
  // Nothing more is written: whoever tries fails. All extents are let go.
  void close();
  // Allows recycling up to `index`; extents named only there are let go.
  void release(RecordIndex index);
  RecordIndex released() const { return released_; }

  // Bytes written since the log was opened, and up to about `index` (to a mark's accuracy).
  uint64_t bytesWritten() const { return bytesWritten_; }
  uint64_t bytesAfter(RecordIndex index) const;
  // The lowest index behind which at most `bytes` were written.
  RecordIndex indexBeforeBytes(uint64_t bytes) const;

 private:
  struct Written {          // an operation given to the journal, not yet durable
    uint64_t sequence;
    RecordIndex lastAfter;  // of the log when it was given
    bool truncates;
  };
  struct Mark {             // where the log stood at some number of bytes
    RecordIndex index;
    uint64_t bytes;
  };
  static constexpr uint64_t kMarkBytes = 1u << 20;

  void requireOpen() const;
  void wrote(bool truncates, kj::Promise<void> durable);
  void becameDurable(uint64_t sequence);
  void remember(kj::ArrayPtr<const RecordRef> records);
  void pin(const Record& record);
  void unpinFrom(RecordIndex first);

  Journal& journal_;
  ExtentStore& extents_;
  const VolumeId volume_;
  kj::Function<void()> onDurable_;

  LogPosition last_;
  RecordIndex durable_, committed_, released_;
  std::deque<RecordRef> recent_;  // consecutive, ends with last_
  size_t recentBytes_ = 0;
  std::map<RecordIndex, std::vector<ExtentId>> pinned_;

  uint64_t sequence_ = 0, sequenceDurable_ = 0;
  std::deque<Written> written_;
  struct Waiter {
    uint64_t sequence;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };
  std::deque<Waiter> waiters_;  // by sequence

  uint64_t bytesWritten_ = 0;
  std::deque<Mark> marks_;

  bool closed_ = false;
  Tasks tasks_{"member log"};
};

}  // namespace packmoor::replicator
