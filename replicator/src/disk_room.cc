#include "disk_room.h"

#include "replicator/outcome.h"
#include "wake_signal.h"

namespace packmoor::replicator {

DiskRoom::DiskRoom(kernelio::Env& env, uint64_t reserveBytes) : env_(env) {
  status_.reserveBytes = reserveBytes;
}

void DiskRoom::tick() {
  const int64_t now = monotonicMs(env_.timer);
  if (measuring_ || status_.reserveBytes == 0) return;
  if (measuredMs_ != 0 && now - measuredMs_ < kMeasureMs) return;
  measuredMs_ = now;
  measuring_ = true;
  tasks_.add(measure());
}

Co<void> DiskRoom::measure() {
  auto measuring = outcomeOf(env_.disk.space());
  auto measured = co_await kj::mv(measuring);
  measuring_ = false;
  if (!measured.ok()) co_return;  // what is known stays
  if (measured.value->totalBytes == 0) co_return;  // a file system that does not tell
  status_.availableBytes = measured.value->availableBytes;
  const uint64_t enough = status_.isShort ? status_.reserveBytes + status_.reserveBytes / 4
                                          : status_.reserveBytes;
  status_.isShort = status_.availableBytes < enough;
}

}  // namespace packmoor::replicator
