// AppendTimes: when records were appended, to about kStepMs.
//
// Why: how far a standby is behind in seconds is the time since the oldest record that it lacks was
// appended at the primary. One entry per step of time answers that for any index at the cost of a
// comparison per batch; a log that grows for long without the standby is remembered ever more coarsely,
// never forgotten. By the monotonic clock of one primary in one epoch. Bounded: kEntriesMax.
#pragma once

#include "replicator/types.h"

#include <deque>

namespace packmoor::replicator {

class AppendTimes final {
 public:
  static constexpr int64_t kStepMs = 100;
  static constexpr size_t kEntriesMax = 4096;

  // What the log holds up to `last` when this is made counts as appended then.
  AppendTimes(RecordIndex last, int64_t nowMs) : last_(last) {
    entries_.push_back({RecordIndex(), nowMs});
  }

  // The log ends at `last` now.
  void appended(RecordIndex last, int64_t nowMs);
  // Since the record behind `has` was appended, or at most a step longer; 0: there is none.
  int64_t lagMs(RecordIndex has, int64_t nowMs) const;

 private:
  struct Entry {
    RecordIndex before;   // the log's end when the first record of the step came
    int64_t atMs;
  };
  void thin();

  RecordIndex last_;
  std::deque<Entry> entries_;   // both fields grow
};

}  // namespace packmoor::replicator
