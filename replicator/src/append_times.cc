#include "append_times.h"

#include <algorithm>

namespace packmoor::replicator {

void AppendTimes::appended(RecordIndex last, int64_t nowMs) {
  if (last <= last_) return;
  if (nowMs - entries_.back().atMs >= kStepMs) {
    entries_.push_back({last_, nowMs});
    if (entries_.size() > kEntriesMax) thin();
  }
  last_ = last;
}

// Every second entry goes: the records of two steps count as of the earlier one.
void AppendTimes::thin() {
  std::deque<Entry> kept;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (i % 2 == 0 || i + 1 == entries_.size()) kept.push_back(entries_[i]);
  }
  entries_ = std::move(kept);
}

int64_t AppendTimes::lagMs(RecordIndex has, int64_t nowMs) const {
  if (has >= last_) return 0;
  // The last step that began at or before the end of what it has. The first one begins at 0.
  auto after = std::upper_bound(
      entries_.begin(), entries_.end(), has,
      [](RecordIndex index, const Entry& entry) { return index < entry.before; });
  return std::max<int64_t>(1, nowMs - std::prev(after)->atMs);
}

}  // namespace packmoor::replicator
