#include "member_core.h"

#include "kernelio/check.h"
#include "planted_fault.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

// Checked before anything is written: what follows relies on it.
void requireChain(const AppendRequest& request) {
  RecordIndex index = request.previous.index;
  Hash128 hash = request.previous.hash;
  Epoch epoch;
  for (const RecordRef& record : request.records) {
    KJ_REQUIRE(record->index == index.next() && record->previousHash == hash,
               "a primary sent records that do not follow one another", record->index);
    KJ_REQUIRE(record->epoch >= epoch && record->epoch <= request.epoch,
               "a primary sent a record of an impossible epoch", record->index, record->epoch);
    index = record->index;
    hash = record->hash;
    epoch = record->epoch;
  }
}

}  // namespace

MemberCore::Claim MemberCore::compare(Epoch epoch, const Uuid& nonce) const {
  if (epoch < promise_.epoch) return Claim::kLower;
  if (epoch > promise_.epoch) return Claim::kHigher;
  return nonce == promise_.nonce ? Claim::kSame : Claim::kLower;
}

void MemberCore::raise(FencePromise promise) {
  PACKMOOR_CHECK(promise.epoch > promise_.epoch, "a promise goes back", promise.epoch,
                 promise_.epoch);
  promise_ = promise;
  // What was verified against, or announced by, another epoch's primary says nothing about this one's
  // log. What was known to be committed stays so.
  verified_ = announced_ = RecordIndex();
}

void MemberCore::promiseIsDurable(Epoch epoch) {
  promiseDurable_ = std::max(promiseDurable_, epoch);
}

AppendPlan MemberCore::plan(const AppendRequest& request, const LogView& log, bool proven) const {
  AppendPlan plan;
  if (repairing_ && !accepts_) {
    plan.outcome = AppendReply::Outcome::kRepairing;
    return plan;
  }
  const LogPosition base = log.base(), last = log.last();
  if (request.previous.index < base.index) {
    plan.outcome = AppendReply::Outcome::kBehind;
    plan.position = base;
    return plan;
  }
  if (request.previous.index > last.index) {
    plan.outcome = AppendReply::Outcome::kMismatch;
    plan.position = last;
    return plan;
  }
  auto here = KJ_ASSERT_NONNULL(log.position(request.previous.index));
  if (here.hash != request.previous.hash && !planted(PlantedFault::kNoPrevCheck)) {
    plan.outcome = AppendReply::Outcome::kMismatch;
    plan.position = here;
    return plan;
  }
  requireChain(request);
  KJ_REQUIRE(request.records.empty() || request.records.front()->epoch >= here.epoch,
             "a primary sent a record of an impossible epoch", here.index, here.epoch);
  // Rule 13: records that are here already are no-ops; the log is cut only where one differs, so
  // that a late duplicate never shortens it.
  LogPosition agreed = here;
  for (const RecordRef& record : request.records) {
    auto held = log.position(record->index);
    KJ_IF_MAYBE(position, held) {
      if (position->hash != record->hash) {
        if (!proven) {
          plan.outcome = AppendReply::Outcome::kRepairing;
          plan.truncateTo = agreed;
          return plan;
        }
        // Invariant 4. The other place is MemberLog::truncate.
        PACKMOOR_CHECK(agreed.index >= committed_, "a primary replaces a committed record",
                       record->index, committed_);
        PACKMOOR_CHECK(agreed.index >= verified_, "a primary replaces what it has sent",
                       record->index, verified_);
        plan.truncateTo = agreed;
        return plan;
      }
      agreed = *position;
      ++plan.have;
    } else {
      return plan;
    }
  }
  if (planted(PlantedFault::kTruncateOnDuplicate) && plan.have > 0 && agreed.index < last.index) {
    plan.truncateTo = agreed;
  }
  return plan;
}

void MemberCore::verified(Epoch epoch, RecordIndex index) {
  if (epoch != promise_.epoch) return;
  verified_ = std::max(verified_, index);
  advanceCommitted();
}

void MemberCore::announced(Epoch epoch, RecordIndex index) {
  if (epoch != promise_.epoch) return;
  announced_ = std::max(announced_, index);
  advanceCommitted();
}

void MemberCore::advanceCommitted() {
  // Rule 15: min(announced, verified in this epoch).
  committed_ = std::max(committed_, planted(PlantedFault::kApplyUnverified)
                                        ? announced_
                                        : std::min(announced_, verified_));
}

LogPosition MemberCore::acknowledgement(const LogView& log) const {
  // Invariant 1: nothing is acknowledged before the promise is durable, either.
  if (!promiseDurable() || repairing_) return LogPosition();
  if (planted(PlantedFault::kAckUnverified)) {
    return KJ_ASSERT_NONNULL(log.position(log.durable()));
  }
  const RecordIndex upTo = planted(PlantedFault::kAckBeforeDurable)
                               ? verified_
                               : std::min(verified_, log.durable());
  // Invariant 2. The other place is StandbyStream::acknowledged.
  PACKMOOR_CHECK(upTo <= verified_, "acknowledging what was not verified", upTo, verified_);
  PACKMOOR_CHECK(upTo <= log.last().index, "acknowledging what is not there", upTo);
  if (upTo < log.base().index) return LogPosition();
  return KJ_ASSERT_NONNULL(log.position(upTo));
}

LogPosition MemberCore::repairedUpTo(const LogView& log) const {
  const RecordIndex upTo = std::min(verified_, log.durable());
  if (!accepts_ || !promiseDurable() || upTo < log.base().index) return LogPosition();
  return KJ_ASSERT_NONNULL(log.position(upTo));
}

RecordIndex MemberCore::applicable(const LogView& log) const {
  return std::min(committed_, log.durable());
}

}  // namespace packmoor::replicator
