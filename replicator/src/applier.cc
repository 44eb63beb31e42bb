#include "applier.h"

#include "kernelio/check.h"
#include "kernelio/co.h"
#include "replicator/outcome.h"

#include <kj/debug.h>

namespace packmoor::replicator {

Applier::Applier(MemberLog& log, MemberCore& member, StateMachine& stateMachine, ApplyHost& host,
                 RecordIndex durable)
    : log_(log), member_(member), stateMachine_(stateMachine), host_(host), applied_(durable),
      checkpointed_(durable) {}

Applier::~Applier() noexcept(false) {}

void Applier::start() {
  started_ = true;
  failed_ = absent_ = false;
  running_ = run().promise().eagerlyEvaluate([this](kj::Exception&& exception) {
    failed_ = true;
    for (auto& [index, waiter] : waiters_) waiter->reject(kj::cp(exception));
    waiters_.clear();
    for (auto& waiter : checkpointWaiters_) waiter->reject(kj::cp(exception));
    checkpointWaiters_.clear();
    for (auto& waiting : alone_) waiting.done->reject(kj::cp(exception));
    alone_.clear();
    host_.applyFailed(exception);
  });
}

void Applier::pause(bool paused) {
  paused_ = paused;
  wake();
}

void Applier::wake() { wake_.notify(); }

kj::Promise<void> Applier::whenApplied(RecordIndex index) {
  if (absent_) {
    return KJ_EXCEPTION(OVERLOADED, "the state of the volume is damaged on this node, and not here yet "
                                    "from another one");
  }
  if (applied_ >= index) return kj::READY_NOW;
  if (failed_) return KJ_EXCEPTION(FAILED, "the state machine of the volume has failed");
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiters_.emplace(index, kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

kj::Promise<void> Applier::checkpoint() {
  if (failed_) return KJ_EXCEPTION(FAILED, "the state machine of the volume has failed");
  auto paf = kj::newPromiseAndFulfiller<void>();
  checkpointWaiters_.push_back(kj::mv(paf.fulfiller));
  checkpointWanted_ = true;
  wake();
  return kj::mv(paf.promise);
}

kj::Promise<void> Applier::alone(kj::Function<kj::Promise<void>()> work) {
  if (failed_) return KJ_EXCEPTION(FAILED, "the state machine of the volume has failed");
  auto paf = kj::newPromiseAndFulfiller<void>();
  alone_.push_back(Alone{kj::mv(work), kj::mv(paf.fulfiller)});
  wake();
  return kj::mv(paf.promise);
}

Co<void> Applier::runAlone() {
  Alone next = kj::mv(alone_.front());
  alone_.pop_front();
  auto worked = outcomeOf(kj::evalNow([&next]() { return next.work(); }));
  auto failure = co_await kj::mv(worked);
  KJ_IF_MAYBE(exception, failure) {
    next.done->reject(kj::mv(*exception));
  } else {
    next.done->fulfill();
  }
}

void Applier::jumpTo(RecordIndex index) {
  PACKMOOR_CHECK(index >= checkpointed_, "a state goes back", index, checkpointed_);
  applied_ = checkpointed_ = index;
  checkpointBytes_ = log_.bytesWritten();
  resolveWaiters();
}

void Applier::resolveWaiters() {
  while (!waiters_.empty() && waiters_.begin()->first <= applied_) {
    waiters_.begin()->second->fulfill();
    waiters_.erase(waiters_.begin());
  }
}

bool Applier::checkpointDue(uint64_t bytes, int64_t nowMs, int64_t intervalMs) const {
  if (failed_ || checkpointWanted_ || applied_ == checkpointed_) return false;
  if (refused_ && nowMs - lastCheckpointMs < kRefusedPauseMs) return false;
  return log_.bytesWritten() - checkpointBytes_ >= bytes || nowMs - lastCheckpointMs >= intervalMs;
}

Co<void> Applier::run() {
  for (;;) {
    const RecordIndex target = member_.applicable(log_);
    if (!alone_.empty()) {
      co_await runAlone();
    } else if (checkpointWanted_) {
      co_await makeCheckpoint();
    } else if (applied_ < target && !paused_) {
      co_await applyNext(target);
    } else {
      co_await wake_.wait();
    }
  }
}

Co<void> Applier::applyNext(RecordIndex target) {
  std::vector<RecordRef> records;
  const bool atHand = log_.recent(applied_.next(), target, kBytesMax, kRecordsMax, records);
  if (!atHand) {
    auto read = co_await outcomeOf(log_.read(applied_.next(), kBytesMax));
    KJ_IF_MAYBE(exception, read.exception) {
      host_.logUnreadable(applied_.next(), *exception);
      kj::throwFatalException(kj::mv(*exception));
    }
    for (RecordRef& record : *read.value) {
      if (record->index <= target && records.size() < kRecordsMax) records.push_back(kj::mv(record));
    }
  }
  // Invariant 6. The other place is MemberCore::applicable.
  PACKMOOR_CHECK(!records.empty() && records.front()->index == applied_.next(),
                 "the log does not give the records to apply", applied_, target);
  const RecordIndex first = records.front()->index, last = records.back()->index;
  PACKMOOR_CHECK(last <= member_.committed() && last <= log_.durable(),
                 "applying beyond what is committed and durable", last, target);
  const size_t count = records.size();
  auto results = co_await stateMachine_.apply(kj::mv(records));
  PACKMOOR_CHECK(results.size() == count, "a state machine gave a wrong number of results",
                 results.size(), count);
  PACKMOOR_CHECK(stateMachine_.applied().index == last, "a state machine is elsewhere than told",
                 stateMachine_.applied().index, last);
  applied_ = last;
  host_.recordsApplied(first, results);
  resolveWaiters();
}

Co<void> Applier::makeCheckpoint() {
  checkpointWanted_ = false;
  auto waiting = kj::mv(checkpointWaiters_);
  checkpointWaiters_.clear();
  const uint64_t bytes = log_.bytesWritten();
  auto flushed = co_await outcomeOf(stateMachine_.flush());
  KJ_IF_MAYBE(exception, flushed.exception) {
    if (exception->getType() != kj::Exception::Type::OVERLOADED) {
      kj::throwFatalException(kj::mv(*exception));
    }
    // The disk is full. Nothing is lost by waiting: the journal keeps what is not flushed.
    if (!refused_) {
      KJ_LOG(WARNING, "no checkpoint of the volume could be made; it is tried again",
             exception->getDescription());
    }
    refused_ = true;
    for (auto& waiter : waiting) waiter->reject(kj::cp(*exception));
    co_return;
  }
  if (refused_) KJ_LOG(INFO, "checkpoints of the volume can be made again");
  refused_ = false;
  const LogPosition position = *flushed.value;
  PACKMOOR_CHECK(position.index <= applied_, "a state is durable that was never applied",
                 position.index, applied_);
  if (position.index > checkpointed_) {
    co_await log_.checkpoint(position);
    checkpointed_ = position.index;
    log_.release(host_.releasable(position.index));
  }
  checkpointBytes_ = bytes;
  for (auto& waiter : waiting) waiter->fulfill();
}

}  // namespace packmoor::replicator
