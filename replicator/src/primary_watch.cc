#include "primary_watch.h"

#include <algorithm>

namespace packmoor::replicator {

void PrimaryWatch::follow(int64_t nowMs) {
  followedMs_ = heardMs_ = nowMs;
  refusedMs_ = -1;
}

void PrimaryWatch::connection(bool refused, int64_t nowMs) {
  if (!refused) {
    refusedMs_ = -1;
  } else if (refusedMs_ < 0) {
    refusedMs_ = nowMs;
  }
}

bool PrimaryWatch::tick(int64_t nowMs) {
  const int64_t sinceMs = nowMs - tickedMs_;
  const bool late = sinceMs > lateTickMs_;
  if (late) heardMs_ = std::min(heardMs_ + sinceMs, nowMs);
  tickedMs_ = nowMs;
  return late;
}

bool PrimaryWatch::suspects(int64_t nowMs) const {
  if (silentMs(nowMs) >= suspectAfterMs_) return true;
  // What it sent after the refusal shows that it is there all the same.
  return refusedMs_ >= 0 && heardMs_ <= refusedMs_ + underwayMs_;
}

}  // namespace packmoor::replicator
