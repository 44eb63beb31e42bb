// PrimaryWatch: does this member hear from the primary that it follows?
//
// Why: a primary that is gone must be replaced soon, and one that works must be left alone. A
// member suspects its primary when it has heard nothing from it for a while (rule 12), or at once
// when the connection to it was closed and a new one refused: then no process is there. Suspecting
// decides nothing: it makes a member ask the others (rule 9), and answer when they ask. No safety
// rests on the times here.
//
// A node that was itself stopped for a while (its loop did not run) has not listened; the time in
// which it did not run does not count as silence.
//
// Pure: the caller gives the time, in monotonic milliseconds.
#pragma once

#include <cstdint>

namespace packmoor::replicator {

class PrimaryWatch {
 public:
  // `tickMs`: how often tick() is called, about.
  PrimaryWatch(int64_t suspectAfterMs, int64_t tickMs)
      : suspectAfterMs_(suspectAfterMs), lateTickMs_(4 * tickMs), underwayMs_(tickMs) {}

  // Another primary, or would-be primary, is followed from now on.
  void follow(int64_t nowMs);
  // It sent records, a heartbeat or a fence.
  void heard(int64_t nowMs) { heardMs_ = nowMs; }
  // `refused`: no connection to it exists and the last attempt to make one was refused.
  void connection(bool refused, int64_t nowMs);
  // True when the tick is late: this node did not run.
  bool tick(int64_t nowMs);

  bool suspects(int64_t nowMs) const;
  int64_t silentMs(int64_t nowMs) const { return nowMs - heardMs_; }
  // Since when this primary is followed.
  int64_t followedMs() const { return followedMs_; }

 private:
  const int64_t suspectAfterMs_, lateTickMs_;
  const int64_t underwayMs_;   // so long after a refusal, what was sent before may arrive
  int64_t followedMs_ = 0, heardMs_ = 0, tickedMs_ = 0;
  int64_t refusedMs_ = -1;   // since when refused; -1: not
};

}  // namespace packmoor::replicator
