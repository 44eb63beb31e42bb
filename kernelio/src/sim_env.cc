#include "kernelio/sim_env.h"

namespace packmoor::kernelio {

int64_t SimClock::nowMs() {
  return kStartMs + (timer_.now() - kj::origin<kj::TimePoint>()) / kj::MILLISECONDS + skewMs_;
}

kj::Promise<void> LoopWorkerPool::runJob(kj::Function<void()> job) {
  // Eager, so that jobs run in the order of submission and not of waiting.
  return kj::evalLater([job = kj::mv(job)]() mutable { job(); }).eagerlyEvaluate(nullptr);
}

SimFaultPoints::Point& SimFaultPoints::arm(kj::StringPtr name, Action action, uint64_t skip,
                                           uint64_t count) {
  Point& point = points_[name.cStr()];
  point.action = action;
  point.skip = skip;
  point.count = count;
  return point;
}

void SimFaultPoints::delay(kj::StringPtr name, kj::Duration delay, uint64_t skip,
                           uint64_t count) {
  arm(name, Action::kDelay, skip, count).delay = delay;
}

void SimFaultPoints::reject(kj::StringPtr name, kj::Exception reason, uint64_t skip,
                            uint64_t count) {
  arm(name, Action::kReject, skip, count).reason = kj::mv(reason);
}

void SimFaultPoints::hang(kj::StringPtr name, uint64_t skip, uint64_t count) {
  arm(name, Action::kHang, skip, count);
}

void SimFaultPoints::disarm(kj::StringPtr name) { arm(name, Action::kNone, 0, 0); }

void SimFaultPoints::release(kj::StringPtr name) {
  Point& point = arm(name, Action::kNone, 0, 0);
  for (auto& fulfiller : point.hanging) fulfiller->fulfill();
  point.hanging.clear();
}

kj::Promise<void> SimFaultPoints::whenHit(kj::StringPtr name) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  points_[name.cStr()].watchers.add(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

uint64_t SimFaultPoints::hits(kj::StringPtr name) const {
  auto found = points_.find(name.cStr());
  return found == points_.end() ? 0 : found->second.hits;
}

kj::Promise<void> SimFaultPoints::hit(const char* name) {
  Point& point = points_[name];
  ++point.hits;
  for (auto& watcher : point.watchers) watcher->fulfill();
  point.watchers.clear();
  if (point.action == Action::kNone || point.count == 0) return kj::READY_NOW;
  if (point.skip > 0) {
    --point.skip;
    return kj::READY_NOW;
  }
  if (point.count != kForever) --point.count;
  switch (point.action) {
    case Action::kDelay:
      return timer_.afterDelay(point.delay);
    case Action::kReject: {
      auto& reason = KJ_ASSERT_NONNULL(point.reason);
      return kj::cp(reason);
    }
    default: {
      auto paf = kj::newPromiseAndFulfiller<void>();
      point.hanging.add(kj::mv(paf.fulfiller));
      return kj::mv(paf.promise);
    }
  }
}

SimEnv::SimEnv(VirtualLoop& loop, SimStorage& storage, uint64_t seed)
    : disk_(storage, loop.timer()),
      clock_(loop.timer()),
      random_(seed),
      faults_(loop.timer()),
      env_{disk_, loop.timer(), clock_, random_, workers_, faults_} {}

}  // namespace packmoor::kernelio
