#include "maintenance.h"

#include "discarded.h"
#include "git_state_machine.h"
#include "repacker.h"
#include "settler.h"

#include <replicator/outcome.h>

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {
GitStateMachine& machineOf(replicator::Volume& volume) {
  return kj::downcast<GitStateMachine>(volume.stateMachine());
}
}  // namespace

Maintenance::Maintenance(GitNode& node, replicator::ExtentStore& extents) : node_(node) {
  settling_.candidates = [](replicator::Volume& volume) {
    return machineOf(volume).settleCandidates();
  };
  settling_.work = [this, &extents](replicator::Volume& volume,
                                    RepositoryId repository) -> kj::Promise<bool> {
    return settleRepository(node_.env(), extents, volume, machineOf(volume), repository);
  };
  repacking_.candidates = [](replicator::Volume& volume) {
    return machineOf(volume).repackCandidates();
  };
  repacking_.work = [this, &extents](replicator::Volume& volume,
                                     RepositoryId repository) -> kj::Promise<bool> {
    return repackRepository(node_, extents, volume.name(), repository);
  };
  dropping_.candidates = [this](replicator::Volume& volume) {
    const int64_t keptMs = node_.options().discardedKeepMs;
    return machineOf(volume).discardedUntil(node_.env().clock.nowMs() - keptMs);
  };
  dropping_.work = [this](replicator::Volume& volume, RepositoryId repository) -> kj::Promise<bool> {
    return dropDiscarded(node_.env(), volume, machineOf(volume), repository);
  };
}

void Maintenance::wake() {
  for (Lane* lane : {&settling_, &repacking_, &dropping_}) {
    lane->wanted = true;
    KJ_IF_MAYBE(fulfiller, lane->sleeping) { (*fulfiller)->fulfill(); }
  }
}

GitNode::MaintenanceStatus Maintenance::status() const {
  return {settling_.status, repacking_.status, dropping_.status};
}

kj::Promise<void> Maintenance::run() {
  kj::Promise<void> settling = loop(settling_), repacking = loop(repacking_), dropping = loop(dropping_);
  return kj::joinPromises(kj::arr(kj::mv(settling), kj::mv(repacking), kj::mv(dropping)));
}

Co<void> Maintenance::loop(Lane& lane) {
  auto& timer = node_.env().timer;
  for (;;) {
    while (lane.wanted) {
      lane.wanted = false;
      auto once = round(lane);
      co_await kj::mv(once);
    }
    auto paf = kj::newPromiseAndFulfiller<void>();
    lane.sleeping = kj::mv(paf.fulfiller);
    auto waiting = paf.promise.exclusiveJoin(timer.afterDelay(kInterval));
    co_await kj::mv(waiting);
    lane.sleeping = nullptr;
    lane.wanted = true;
  }
}

Co<void> Maintenance::round(Lane& lane) {
  for (auto& [repository, failing] : lane.failing) failing.candidate = false;
  // Volumes may come and go while one is worked on.
  std::vector<std::string> names;
  for (auto* volume : node_.replicator().volumes()) names.push_back(volume->name());
  for (const auto& name : names) {
    auto one = ofVolume(lane, name);
    co_await kj::mv(one);
  }
  std::erase_if(lane.failing, [](const auto& entry) { return !entry.second.candidate; });
  uint32_t worst = 0;
  for (const auto& [repository, failing] : lane.failing) worst = std::max(worst, failing.times);
  lane.status.failures = worst;
}

Co<void> Maintenance::ofVolume(Lane& lane, std::string volumeName) {
  auto first = node_.replicator().findVolume(volumeName);
  std::vector<RepositoryId> repositories;
  KJ_IF_MAYBE(volume, first) { repositories = lane.candidates(*volume); }
  for (const auto& repository : repositories) {
    auto found = node_.replicator().findVolume(volumeName);
    KJ_IF_MAYBE(volume, found) {
      if (volume->status().role != replicator::VolumeRole::kPrimary) co_return;
      auto failed = lane.failing.find(repository);
      if (failed != lane.failing.end()) {
        failed->second.candidate = true;
        if (node_.env().timer.now() < failed->second.notBefore) continue;
      }
      auto trying = attempt(lane, *volume, repository);
      co_await kj::mv(trying);
    }
  }
}

Co<void> Maintenance::attempt(Lane& lane, replicator::Volume& volume, RepositoryId repository) {
  lane.status.repository = repository;
  auto working = replicator::outcomeOf(lane.work(volume, repository));
  auto outcome = co_await kj::mv(working);
  lane.status.repository = {};
  KJ_IF_MAYBE(failure, outcome.exception) {
    noteFailure(lane, repository, *failure);
    co_return;
  }
  lane.failing.erase(repository);
  if (outcome.value.value_or(false)) ++lane.status.done;
}

void Maintenance::noteFailure(Lane& lane, const RepositoryId& repository,
                              const kj::Exception& failure) {
  auto& failing = lane.failing[repository];
  const uint32_t doublings = std::min(failing.times, 20u);
  failing.candidate = true;
  failing.notBefore =
      node_.env().timer.now() + std::min(kRetryMin * (1 << doublings), kRetryMax);
  ++failing.times;
  lane.status.failures = std::max(lane.status.failures, failing.times);
  lane.status.lastError = failure.getDescription().cStr();
  KJ_LOG(WARNING, "maintenance of a repository failed; it is tried again", repository,
         failing.times, failure.getDescription());
}

}  // namespace packmoor::gitlayer
