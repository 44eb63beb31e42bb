// LagBrake: how fast a primary may order while a counted member is far behind.
//
// Why: the log is kept for members that are behind only up to a bound. Under a load that is
// faster than a member catches up, that member would fall out of the log, fetch a checkpoint, and
// fall out again. So once a member lags more than the bound and gets on, the primary orders less
// than the member takes, and it comes nearer whatever the load. One that does not get on is not
// waited for: a dead member must stop nobody.
//
// Pure: the caller brings the clock and what it knows. Loop: the node's.
#pragma once

#include "replicator/volume.h"

#include <map>
#include <vector>

namespace packmoor::replicator {

class LagBrake final {
 public:
  static constexpr int64_t kSampleMs = 250;      // between two measurements
  static constexpr int64_t kStillMs = 15'000;    // so long without progress: not waited for
  static constexpr uint64_t kFloorBytesPerSecond = 64u << 10;
  // Of what the member takes, what may be ordered: at the bound, and at twice the bound and beyond.
  static constexpr double kShareMax = 0.9, kShareMin = 0.25;

  struct Follower {
    NodeId node;
    bool counted = true;          // one that is not is measured, and not waited for
    uint64_t lagBytes = 0;        // of the log, behind what the member has
    uint64_t takenBytes = 0;      // that it has got so far; only differences count
    uint64_t progress = 0;        // any number that grows while it gets on
  };

  explicit LagBrake(uint64_t lagBytesMax) : lagBytesMax_(lagBytesMax) {}

  // The members that are connected. True: what status() says has changed.
  bool sample(int64_t nowMs, const std::vector<Follower>& followers);
  const BrakeStatus& status() const { return status_; }
  // Has the member got on of late?
  bool getsOn(const NodeId& node, int64_t nowMs) const;

 private:
  struct Pace {
    int64_t sampledMs = 0, movedMs = 0;
    uint64_t takenBytes = 0, progress = 0;
    double bytesPerSecond = 0;
    bool lags = false;
  };
  void measure(Pace& pace, int64_t nowMs, const Follower& follower);
  uint64_t allowed(const Pace& pace, uint64_t lagBytes) const;

  const uint64_t lagBytesMax_;
  int64_t lastMs_ = 0;
  std::map<NodeId, Pace> paces_;
  BrakeStatus status_;
};

}  // namespace packmoor::replicator
