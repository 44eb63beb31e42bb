#include "lag_brake.h"

#include <algorithm>

namespace packmoor::replicator {

namespace {
constexpr double kNewest = 0.4;   // weight of the newest measurement
}

void LagBrake::measure(Pace& pace, int64_t nowMs, const Follower& follower) {
  if (pace.sampledMs == 0) {
    pace.sampledMs = pace.movedMs = nowMs;
    pace.takenBytes = follower.takenBytes;
    pace.progress = follower.progress;
    return;
  }
  const double seconds = static_cast<double>(nowMs - pace.sampledMs) / 1000;
  if (seconds <= 0) return;
  const uint64_t taken =
      follower.takenBytes > pace.takenBytes ? follower.takenBytes - pace.takenBytes : 0;
  const double rate = static_cast<double>(taken) / seconds;
  pace.bytesPerSecond = pace.bytesPerSecond * (1 - kNewest) + rate * kNewest;
  if (follower.progress > pace.progress) pace.movedMs = nowMs;
  pace.sampledMs = nowMs;
  pace.takenBytes = follower.takenBytes;
  pace.progress = follower.progress;
}

uint64_t LagBrake::allowed(const Pace& pace, uint64_t lagBytes) const {
  const double over =
      std::clamp(static_cast<double>(lagBytes) / static_cast<double>(lagBytesMax_) - 1, 0.0, 1.0);
  const double share = kShareMax - over * (kShareMax - kShareMin);
  return std::max(kFloorBytesPerSecond, static_cast<uint64_t>(pace.bytesPerSecond * share));
}

bool LagBrake::getsOn(const NodeId& node, int64_t nowMs) const {
  auto it = paces_.find(node);
  return it != paces_.end() && nowMs - it->second.movedMs < kStillMs;
}

bool LagBrake::sample(int64_t nowMs, const std::vector<Follower>& followers) {
  if (nowMs - lastMs_ < kSampleMs) return false;
  lastMs_ = nowMs;
  std::map<NodeId, Pace> before;
  std::swap(before, paces_);
  BrakeStatus next;
  for (const Follower& follower : followers) {
    Pace& pace = paces_[follower.node];
    auto known = before.find(follower.node);
    if (known != before.end()) pace = known->second;
    measure(pace, nowMs, follower);
    // On above the bound, off well below it, so that it does not go on and off.
    const uint64_t bound = pace.lags ? lagBytesMax_ - lagBytesMax_ / 4 : lagBytesMax_;
    pace.lags = follower.counted && lagBytesMax_ > 0 && follower.lagBytes > bound && nowMs - pace.movedMs < kStillMs;
    if (!pace.lags) continue;
    const uint64_t rate = allowed(pace, follower.lagBytes);
    if (next.on && next.bytesPerSecond <= rate) continue;
    next = BrakeStatus{true, follower.node, follower.lagBytes, rate};
  }
  const bool changed = next.on != status_.on || next.member != status_.member;
  status_ = next;
  return changed;
}

}  // namespace packmoor::replicator
