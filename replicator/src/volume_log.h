// VolumeLog: where each record of one volume's log lies in the journal.
//
// Why: the journal mixes all volumes; reading one volume's records, answering for a position and
// deciding what may be recycled need an index. It lives in memory only and is rebuilt from the
// segments at open. A node may hold millions of records between checkpoints, so an entry is 32
// bytes and epochs, which seldom change, are kept as runs.
//
// A record that was appended and not yet given a place in a segment has segment 0.
#pragma once

#include "replicator/types.h"

#include <kj/common.h>

#include <deque>

namespace packmoor::replicator {

struct RecordPlace {
  uint32_t segment = 0;  // sequence; a journal of 2^32 segments of 64 MiB outlives its disks
  uint32_t offset = 0;   // of the entry's header in the segment
  uint32_t bytes = 0;    // of the entry with header and padding
};

class VolumeLog {
 public:
  VolumeLog() = default;
  explicit VolumeLog(const LogPosition& base) : base_(base) {}

  const LogPosition& base() const { return base_; }
  LogPosition last() const;
  uint64_t count() const { return entries_.size(); }
  bool contains(RecordIndex index) const {
    return index > base_.index && index.value <= base_.index.value + entries_.size();
  }

  // index, epoch and hash of a record in [base, last]; nullptr outside.
  kj::Maybe<LogPosition> position(RecordIndex index) const;
  bool holds(const LogPosition& position) const;  // by index and hash
  bool follows(RecordIndex index, const Hash128& previousHash) const;

  // The next record. The caller has checked that it follows.
  void append(const LogPosition& position, RecordPlace place);
  void setPlace(RecordIndex index, RecordPlace place);
  RecordPlace place(RecordIndex index) const;  // must be contained
  Hash128 hash(RecordIndex index) const;       // must be contained

  // Drops records above, which must be in [base, last] / up to `index` inclusive.
  void truncate(RecordIndex index);
  void release(RecordIndex index);
  void reset(const LogPosition& base);
  // Completes what is known of the base, whose index stays.
  void setBase(const LogPosition& base);

  // The segment of the first record held; UINT64_MAX when none has a place in a segment.
  uint64_t firstSegment() const;
  // The first record in that segment or a later one; beyond last() when there is none.
  RecordIndex firstIn(uint64_t segment) const;

 private:
  struct Entry {
    Hash128 hash;
    RecordPlace place;
  };
  static_assert(sizeof(Entry) == 32);
  struct EpochRun {
    uint64_t first;  // index
    Epoch epoch;
  };

  const Entry& entry(RecordIndex index) const;
  Epoch epoch(RecordIndex index) const;

  LogPosition base_;
  std::deque<Entry> entries_;   // [0] is base + 1
  std::deque<EpochRun> runs_;
};

}  // namespace packmoor::replicator
