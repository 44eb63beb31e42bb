#include "maintenance.h"

#include "settler.h"

namespace packmoor::gitlayer {

void Maintenance::wake() {
  wanted_ = true;
  KJ_IF_MAYBE(fulfiller, sleeping_) { (*fulfiller)->fulfill(); }
}

kj::Promise<void> Maintenance::run(replicator::Replicator& replicator) {
  return loop(replicator);
}

Co<void> Maintenance::loop(replicator::Replicator& replicator) {
  for (;;) {
    while (wanted_) {
      wanted_ = false;
      // Volumes may come and go while one is worked on.
      std::vector<std::string> names;
      for (auto* volume : replicator.volumes()) names.push_back(volume->name());
      for (const auto& name : names) {
        auto found = replicator.findVolume(name);
        KJ_IF_MAYBE(volume, found) {
          auto done = settleVolume(*volume);
          co_await kj::mv(done);
        }
      }
    }
    auto paf = kj::newPromiseAndFulfiller<void>();
    sleeping_ = kj::mv(paf.fulfiller);
    co_await paf.promise.exclusiveJoin(env_.timer.afterDelay(kInterval));
    sleeping_ = nullptr;
    wanted_ = true;
  }
}

Co<void> Maintenance::settleVolume(replicator::Volume& volume) {
  auto& machine = kj::downcast<GitStateMachine>(volume.stateMachine());
  for (const auto& repository : machine.settleCandidates()) {
    if (volume.status().role != replicator::VolumeRole::kPrimary) co_return;
    kj::Promise<bool> settling = settleRepository(env_, extents_, volume, machine, repository);
    const bool settled = co_await settling.catch_([this](kj::Exception&& exception) {
      lastError_ = exception.getDescription().cStr();
      return false;
    });
    if (settled) ++settled_;
  }
}

}  // namespace packmoor::gitlayer
