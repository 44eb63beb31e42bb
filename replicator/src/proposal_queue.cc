#include "proposal_queue.h"

#include "kernelio/check.h"

#include <kj/debug.h>

namespace packmoor::replicator {

namespace {

ProposeReply unavailable(kj::StringPtr reason) {
  ProposeReply reply;
  reply.outcome = ProposeReply::Outcome::kUnavailable;
  reply.reason = reason.cStr();
  return reply;
}

ProposeReply lostRole(ProposeReply::Outcome outcome, const NodeId& primary) {
  ProposeReply reply;
  reply.outcome = outcome;
  reply.primary = primary;
  reply.reason = outcome == ProposeReply::Outcome::kUnknown
                     ? "the lead moved to another node while the record was on its way"
                     : "this node does not lead the volume";
  return reply;
}

ProposeReply done(RecordIndex index, kj::Array<const kj::byte> result) {
  ProposeReply reply;
  reply.outcome = ProposeReply::Outcome::kDone;
  reply.index = index;
  reply.result = kj::mv(result);
  return reply;
}

}  // namespace

ProposalQueue::~ProposalQueue() noexcept(false) {}

kj::Promise<ProposeReply> ProposalQueue::propose(ProposeRequest request) {
  KJ_REQUIRE(static_cast<uint16_t>(request.kind) >= kStateMachineKindMin,
             "this kind of record cannot be proposed", static_cast<uint16_t>(request.kind));
  KJ_REQUIRE(request.payload.size() <= kRecordPayloadBytesMax, "a record's payload is too large",
             request.payload.size(), kRecordPayloadBytesMax);
  if (ended_) return lostRole(ProposeReply::Outcome::kNotPrimary, endedFor_);
  if (queued_.size() + ordered_.size() >= kInFlightMax || bytes_ >= kInFlightBytesMax) {
    return unavailable("too many proposals of this volume wait to be committed; try again");
  }
  if (!request.extents.empty() && !host_.heldByQuorum(request.sealedOn)) {
    return unavailable("fewer members than the write quorum hold the extents of the proposal");
  }
  auto paf = kj::newPromiseAndFulfiller<ProposeReply>();
  bytes_ += request.payload.size();
  queued_.push_back(Queued{Proposal{request.txn, request.kind, kj::mv(request.extents),
                                    kj::mv(request.sealedOn), kj::mv(request.payload)},
                           monotonicMs(host_.timer()), kj::mv(paf.fulfiller)});
  schedule();
  return kj::mv(paf.promise);
}

void ProposalQueue::open() {
  open_ = true;
  schedule();
}

void ProposalQueue::schedule() {
  if (!open_ || ended_ || held_ || scheduled_ || queued_.empty()) return;
  scheduled_ = true;
  if (!mayOrder()) {
    tasks_.add(host_.timer().afterDelay(kPaceMs * kj::MILLISECONDS).then([this]() { flush(); }));
    return;
  }
  // After everything else of this turn, so that all its proposals go together.
  tasks_.add(kj::evalLast([this]() { flush(); }));
}

void ProposalQueue::pace(uint64_t bytesPerSecond) {
  if (pace_ == 0) {
    budget_ = 0;
    budgetMs_ = monotonicMs(host_.timer());
  }
  pace_ = bytesPerSecond;
}

bool ProposalQueue::mayOrder() {
  if (pace_ == 0) return true;
  const int64_t now = monotonicMs(host_.timer());
  const int64_t rate = static_cast<int64_t>(std::min<uint64_t>(pace_, INT32_MAX));
  const int64_t passedMs = std::min(now - budgetMs_, kPaceBurstMs);
  budget_ = std::min(budget_ + rate * passedMs / 1000, rate * kPaceBurstMs / 1000 + 1);
  budgetMs_ = now;
  return budget_ > 0;
}

void ProposalQueue::flush() {
  scheduled_ = false;
  if (ended_ || held_) return;
  std::vector<RecordRef> batch;
  LogPosition tail = host_.log().last();
  if (ordered_.empty()) firstOrdered_ = tail.index.next();
  for (size_t i = 0; i < kPerTurnMax && !queued_.empty() && mayOrder(); ++i) {
    Queued queued = kj::mv(queued_.front());
    queued_.pop_front();
    if (!queued.fulfiller->isWaiting()) {  // the proposer has gone; nothing was written
      bytes_ -= queued.proposal.payload.size();
      continue;
    }
    if (needsExtents(queued)) continue;
    order(kj::mv(queued), tail, batch);
  }
  if (!batch.empty()) {
    host_.log().append(kj::arrayPtr(batch.data(), batch.size()));
    accepted_ += batch.size();
    host_.appended();
  }
  schedule();
}

// Rule 22, the primary's own copy: true when it must first be fetched.
bool ProposalQueue::needsExtents(Queued& queued) {
  if (queued.proposal.extents.empty() || queued.extentsAsked) return false;
  queued.extentsAsked = true;
  auto obtained = host_.obtainExtents(queued.proposal.extents, queued.proposal.sealedOn);
  auto place = std::make_shared<Queued>(kj::mv(queued));
  tasks_.add(obtained.then(
      [this, place]() {
        if (ended_) return;
        queued_.push_back(kj::mv(*place));
        schedule();
      },
      [this, place](kj::Exception&& exception) {
        bytes_ -= place->proposal.payload.size();
        place->fulfiller->fulfill(unavailable(
            kj::str("the primary cannot get the extents of the proposal: ",
                    exception.getDescription())));
      }));
  return true;
}

// A state that cannot be read (StateMachine::damage) fails the proposal that needs it, and no other: what
// was ordered before it in this turn is in `batch` and is yet to be appended.
void ProposalQueue::order(Queued&& queued, LogPosition& tail, std::vector<RecordRef>& batch) {
  auto failure = kj::runCatchingExceptions([&]() { orderReadable(queued, tail, batch); });
  KJ_IF_MAYBE(exception, failure) {
    bytes_ -= queued.proposal.payload.size();
    queued.fulfiller->fulfill(unavailable(kj::str(
        "the primary cannot read the state of the volume: ", exception->getDescription())));
  }
}

// Nothing of the queue is changed before what may throw has returned.
void ProposalQueue::orderReadable(Queued& queued, LogPosition& tail,
                                  std::vector<RecordRef>& batch) {
  Proposal& proposal = queued.proposal;
  const size_t bytes = proposal.payload.size();
  if (!proposal.txn.isNull()) {
    // Rule 20, invariant 7: an applied transaction keeps its result, one in flight its record.
    auto found = host_.stateMachine().findResult(proposal.txn);
    KJ_IF_MAYBE(result, found) {
      bytes_ -= bytes;
      queued.fulfiller->fulfill(done(result->index, kj::mv(result->result)));
      return;
    }
    auto inFlight = byTxn_.find(proposal.txn);
    if (inFlight != byTxn_.end()) {
      bytes_ -= bytes;
      Ordered& ordered = ordered_[inFlight->second.value - firstOrdered_.value];
      ordered.waiters.push_back(Waiter{queued.sinceMs, kj::mv(queued.fulfiller)});
      return;
    }
  }
  const RecordIndex index = tail.index.next();
  Verdict verdict = host_.stateMachine().validate(proposal, index);
  if (!verdict.accepted) {
    bytes_ -= bytes;
    rejectLater(kj::mv(queued), kj::mv(verdict));
    return;
  }
  auto record = makeRecord(index, host_.epoch(), tail.hash, proposal.kind,
                           kj::mv(proposal.extents), kj::mv(proposal.payload));
  tail = LogPosition{index, host_.epoch(), record->hash};
  budget_ -= static_cast<int64_t>(record->bytes());
  batch.push_back(kj::mv(record));
  Ordered ordered{proposal.txn, bytes, {}};
  ordered.waiters.push_back(Waiter{queued.sinceMs, kj::mv(queued.fulfiller)});
  if (!proposal.txn.isNull()) byTxn_.emplace(proposal.txn, index);
  ordered_.push_back(kj::mv(ordered));
}

void ProposalQueue::rejectLater(Queued&& queued, Verdict&& verdict) {
  // Rule 20: a rejection is a read. It is given out once what it rests on is committed and
  // this primary is confirmed to lead still.
  ++rejected_;
  auto reply = std::make_shared<ProposeReply>(done(verdict.restsOn, kj::mv(verdict.result)));
  auto waiter = std::make_shared<Waiter>(Waiter{queued.sinceMs, kj::mv(queued.fulfiller)});
  rejecting_.push_back(waiter);
  tasks_.add(host_.whenConfirmed(verdict.restsOn).then(
      [reply, waiter]() { waiter->fulfiller->fulfill(kj::mv(*reply)); },
      [this, waiter](kj::Exception&& exception) {
        waiter->fulfiller->fulfill(ended_
                                       ? lostRole(ProposeReply::Outcome::kNotPrimary, endedFor_)
                                       : unavailable(exception.getDescription()));
      }));
}

void ProposalQueue::applied(RecordIndex first, std::vector<kj::Array<const kj::byte>>& results) {
  for (size_t i = 0; i < results.size(); ++i) {
    const RecordIndex index(first.value + i);
    if (ordered_.empty() || index < firstOrdered_) continue;
    PACKMOOR_CHECK(index == firstOrdered_, "applied out of order", index, firstOrdered_);
    Ordered ordered = kj::mv(ordered_.front());
    ordered_.pop_front();
    firstOrdered_ = firstOrdered_.next();
    bytes_ -= ordered.bytes;
    if (!ordered.txn.isNull()) byTxn_.erase(ordered.txn);
    for (size_t w = 0; w < ordered.waiters.size(); ++w) {
      const bool lastWaiter = w + 1 == ordered.waiters.size();
      ordered.waiters[w].fulfiller->fulfill(
          done(index, lastWaiter ? kj::mv(results[i])
                                 : kj::heapArray<const kj::byte>(results[i].asPtr())));
    }
  }
}

void ProposalQueue::end(NodeId primary) {
  if (ended_) return;
  ended_ = true;
  endedFor_ = primary;
  for (Queued& queued : queued_) {
    queued.fulfiller->fulfill(lostRole(ProposeReply::Outcome::kNotPrimary, primary));
  }
  for (Ordered& ordered : ordered_) {
    for (Waiter& waiter : ordered.waiters) {
      waiter.fulfiller->fulfill(lostRole(ProposeReply::Outcome::kUnknown, primary));
    }
  }
  for (auto& rejection : rejecting_) {
    rejection->fulfiller->fulfill(lostRole(ProposeReply::Outcome::kNotPrimary, primary));
  }
  queued_.clear();
  rejecting_.clear();
  ordered_.clear();
  byTxn_.clear();
}

void ProposalQueue::tick() {
  // Rule 16: an isolated primary answers after a bound.
  const int64_t before = monotonicMs(host_.timer()) - timeoutMs_;
  while (!queued_.empty() && queued_.front().sinceMs <= before) {
    bytes_ -= queued_.front().proposal.payload.size();
    queued_.front().fulfiller->fulfill(
        unavailable("the primary could not take the proposal in time; nothing was written"));
    queued_.pop_front();
  }
  while (!rejecting_.empty() && (rejecting_.front()->sinceMs <= before ||
                                 !rejecting_.front()->fulfiller->isWaiting())) {
    rejecting_.front()->fulfiller->fulfill(
        unavailable("fewer members than the write quorum acknowledge the volume's records; nothing "
                    "was written by this proposal"));
    rejecting_.pop_front();
  }
  for (Ordered& ordered : ordered_) {
    bool young = false;
    for (Waiter& waiter : ordered.waiters) {
      if (waiter.sinceMs > before) {
        young = true;
      } else if (waiter.fulfiller->isWaiting()) {
        ProposeReply reply;
        reply.outcome = ProposeReply::Outcome::kUnknown;
        reply.reason = "fewer members than the write quorum acknowledge the volume's records";
        waiter.fulfiller->fulfill(kj::mv(reply));
      }
    }
    if (young) break;  // later ones were proposed later
  }
}

}  // namespace packmoor::replicator
