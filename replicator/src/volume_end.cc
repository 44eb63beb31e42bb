// How a volume ends: it is deleted for good, or leaves this node.
#include "volume_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

namespace packmoor::replicator {

// ---- Deleting ----------------------------------------------------------------------------------

kj::Promise<void> VolumeImpl::deleteForGood() { return canceler_.wrap(deleteIt().promise()); }

// Durable: the compare-and-swap that marks the record as deleted. No push can land in between, since
//   - the record is read first and names this primary's own epoch as active; whoever takes another
//     epoch after that changes its revision, and the swap fails (rule 1);
//   - this primary orders nothing from before it looks until it knows that the swap has failed and
//     that it cannot succeed later; and once it has succeeded no epoch is ever taken again.
Co<void> VolumeImpl::deleteIt() {
  if (changing_ || takeover_ != nullptr) co_await whenNothingChanges();
  requireMayChange();
  changing_ = true;
  const Epoch epoch = primary_->configuration().epoch;
  auto looking = outcomeOf(closeAndLook(epoch).promise());
  auto looked = co_await kj::mv(looking);
  KJ_IF_MAYBE(exception, looked) {
    reopen(epoch);
    kj::throwFatalException(kj::mv(*exception));
  }
  VolumeRecord next = record_;
  next.traits.deleted = true;
  auto stored = co_await outcomeOf(parts_.coordinator.compareAndSwap(next));
  if (stored.ok() && !*stored.value) {
    reopen(epoch);
    KJ_FAIL_REQUIRE("the volume was changed at the same time; try again");
  }
  parts_.coordinatorWanted.notify();  // the node lets go of it
  if (stored.ok()) co_return;
  tasks_.add(settleDeletion(kj::mv(next)));
  kj::throwFatalException(KJ_EXCEPTION(
      DISCONNECTED, "the coordinator's answer was lost: the volume may be deleted, and takes no push "
                    "until the coordinator answers"));
}

// Rejects when the volume holds anything, with everything applied that was ordered.
Co<void> VolumeImpl::closeAndLook(Epoch epoch) {
  auto read = co_await outcomeOf(parts_.coordinator.readVolume(record_.name));
  KJ_IF_MAYBE(exception, read.exception) {  // nothing was changed
    kj::throwFatalException(KJ_EXCEPTION(OVERLOADED, "the coordinator cannot be asked",
                                         exception->getDescription()));
  }
  const auto& found = *read.value;
  KJ_REQUIRE(found.has_value() && found->id == record_.id && !found->traits.deleted,
             "the coordinator does not know the volume");
  KJ_REQUIRE(found->phase == VolumePhase::kActive && found->current.epoch == epoch &&
                 primary_ != nullptr && primary_->configuration().epoch == epoch,
             "the lead of the volume moved meanwhile");
  noteRecord(*found);
  const int64_t revision = record_.revision;
  primary_->close(true);
  auto drained = parts_.env.timer.timeoutAfter(kDeleteDrainMs * kj::MILLISECONDS, primary_->drain());
  auto failure = co_await outcomeOf(kj::mv(drained));
  KJ_REQUIRE(failure == nullptr, "what is being pushed to the volume did not end in time");
  KJ_REQUIRE(primary_ != nullptr && primary_->configuration().epoch == epoch &&
                 record_.revision == revision,
             "the volume was changed at the same time; try again");
  const std::string holds = stateMachine_->holds();
  if (holds.empty()) co_return;
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str("the volume holds ", holds.c_str())));
}

// The answer to the swap was lost, and the swap may still arrive at the coordinator. Storing the record
// as it is makes it fail for good; only then anything is ordered again.
Co<void> VolumeImpl::settleDeletion(VolumeRecord asked) {
  const Epoch epoch = asked.current.epoch;
  for (;;) {
    auto found = co_await outcomeOf(parts_.coordinator.readVolume(asked.name));
    if (found.ok() && found.value->has_value()) {
      const VolumeRecord& now = **found.value;
      if (now.id != asked.id || now.traits.deleted) break;  // the node hears of it
      bool moved = now.current.epoch != epoch;
      if (!moved) {
        auto stored = co_await outcomeOf(parts_.coordinator.compareAndSwap(now));
        moved = stored.ok() && *stored.value;
      }
      if (moved) {
        reopen(epoch);
        break;
      }
    }
    co_await parts_.env.timer.afterDelay(kDeleteRetryMs * kj::MILLISECONDS);
  }
  parts_.coordinatorWanted.notify();
}

void VolumeImpl::reopen(Epoch epoch) {
  changing_ = false;
  if (primary_ != nullptr && primary_->configuration().epoch == epoch) primary_->close(false);
}

// ---- Leaving this node -------------------------------------------------------------------------

void VolumeImpl::failGone() {
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::str(gone_.c_str())));
}

void VolumeImpl::retire(std::string why) {
  gone_ = std::move(why);
  stopped_ = true;
  stepDown(NodeId());
  primaryNode_.clear();
  moved_.notify();
}

// Repeated until it succeeds.
Co<void> VolumeImpl::discard() {
  while (takeover_ != nullptr || installing_) {
    co_await moved_.waitFor(parts_.env.timer, kInstallPauseMs);
  }
  transfer_ = nullptr;
  if (!parked_) {
    auto parked = outcomeOf(parkApplier());
    auto failure = co_await kj::mv(parked);
    (void)failure;  // an applier that has failed does nothing either
    parked_ = true;
  }
  log_.close();
  co_await offers_.clean();
  auto discarded = stateMachine_->discard();
  co_await kj::mv(discarded);
}

// Resolves when nothing is applied or made durable, now or ever again.
kj::Promise<void> VolumeImpl::parkApplier() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  tasks_.add(applier_->alone([fulfiller = kj::mv(paf.fulfiller)]() mutable -> kj::Promise<void> {
    fulfiller->fulfill();
    return kj::NEVER_DONE;
  }).catch_([](kj::Exception&&) {}));
  if (!member_.repairing()) return kj::mv(paf.promise);
  // It may not have been started.
  return paf.promise.exclusiveJoin(parts_.env.timer.afterDelay(kParkMs * kj::MILLISECONDS));
}

}  // namespace packmoor::replicator
