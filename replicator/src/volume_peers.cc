// What other nodes ask of a volume.
#include "volume_impl.h"

#include "kernelio/check.h"
#include "replicator/outcome.h"
#include "planted_fault.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

// ---- Records from the primary (rules 3, 13-15) -----------------------------------------------

kj::Promise<AppendReply> VolumeImpl::handleAppend(const NodeId& from, AppendRequest request) {
  KJ_REQUIRE(request.primary.node == from, "records of a primary that the sender is not", from,
             request.primary.node);
  AppendReply reply;
  reply.epoch = request.epoch;
  if (request.member != parts_.self.journal) {
    // Meant for the journal that was here before this one.
    reply.outcome = AppendReply::Outcome::kNotMember;
    return reply;
  }
  return append(kj::mv(request));
}

Co<AppendReply> VolumeImpl::append(AppendRequest request) {
  AppendReply reply;
  reply.epoch = request.epoch;
  const int64_t untilMs = nowMs() + kExtentWaitMs;
  std::vector<ExtentId> missing;
  for (;;) {
    if (!claim(request.epoch, request.nonce, request.primary.node)) {
      if (planted(PlantedFault::kAcksOfAnyEpoch)) {
        reply.position = member_.acknowledgement(log_);
        co_return reply;
      }
      reply.outcome = AppendReply::Outcome::kRefused;
      reply.promised = member_.promise().epoch;
      co_return reply;
    }
    if (!mayFollow(request)) {
      reply.outcome = AppendReply::Outcome::kRepairing;
      co_return reply;
    }
    KJ_REQUIRE(primary_ == nullptr, "records of another primary in this node's own epoch",
               request.epoch, request.primary.node);
    const bool proven = !unproven();
    const AppendPlan plan = member_.plan(request, log_, proven);
    if (plan.outcome != AppendReply::Outcome::kDurable) {
      KJ_IF_MAYBE(fork, plan.truncateTo) { partedAt_ = *fork; }
      noteBehind(request);
      reply.outcome = plan.outcome;
      reply.position = plan.position;
      co_return reply;
    }
    missing.clear();
    const bool complete = writeRecords(request, plan, missing);
    transferWanted_ = log_.last().index < droppedAt_;  // else the logs agree
    if (complete || nowMs() >= untilMs) break;
    // What comes before the extent is written. The rest waits a little, and then is sent again.
    auto obtained = parts_.exchange.obtain(missing, {request.primary.node});
    auto failure = co_await outcomeOf(obtained.exclusiveJoin(
        parts_.env.timer.afterDelay((untilMs - nowMs()) * kj::MILLISECONDS)));
    if (failure == nullptr) continue;
    auto dropped = co_await isDropped(request.primary.node, missing.front());
    if (!dropped) continue;
    droppedAt_ = log_.last().index.next();
    wantTransfer(request.primary.node, "extents that were dropped since");
    break;
  }
  everywhere_ = std::max(everywhere_, std::min(request.everywhere, log_.last().index));
  const bool waits = !member_.promiseDurable() || !request.records.empty();
  if (waits && !planted(PlantedFault::kAckBeforeDurable)) co_await log_.whenWritten();  // rule 14
  if (member_.promise().epoch != request.epoch) {
    reply.outcome = AppendReply::Outcome::kRefused;
    reply.promised = member_.promise().epoch;
    co_return reply;
  }
  if (member_.repairing()) {
    reply.outcome = AppendReply::Outcome::kRepairing;
    reply.position = member_.repairedUpTo(log_);
    repaired_.notify();
  } else {
    reply.position = member_.acknowledgement(log_);
  }
  co_return reply;
}

// Writes what the log lacks, up to the first record with an extent that is not here; false: there
// is one. Everything that is then in the log is verified against the sender's.
bool VolumeImpl::writeRecords(const AppendRequest& request, const AppendPlan& plan,
                              std::vector<ExtentId>& missing) {
  auto records = kj::arrayPtr(request.records.data() + plan.have,
                              request.records.size() - plan.have);
  auto unsealed = log_.firstUnsealed(records);
  if (planted(PlantedFault::kApplyBeforeSealed)) unsealed = nullptr;
  bool complete = true;
  KJ_IF_MAYBE(place, unsealed) {
    for (const ExtentId& extent : records[*place]->extents) {
      if (!parts_.extents.isSealed(extent)) missing.push_back(extent);
    }
    records = records.slice(0, *place);
    complete = false;
  }
  KJ_IF_MAYBE(cut, plan.truncateTo) {
    // The record that conflicts is replaced in the same turn, or the log is left alone: without
    // its extent there is nothing to replace it with yet.
    if (records.size() > 0 || planted(PlantedFault::kTruncateOnDuplicate)) log_.truncate(*cut);
  }
  log_.append(records);
  const RecordIndex agreed(request.previous.index.value + plan.have + records.size());
  member_.verified(request.epoch, agreed);
  announced(request.epoch, request.committed);
  if (request.committed.value > 0) {
    noteLevel();
    heardCommitted_ = request.committed;
    heardCommittedMs_ = nowMs();
  }
  return complete;
}

// ---- Fences (rules 3-5, 11) ------------------------------------------------------------------

kj::Promise<FenceReply> VolumeImpl::handleFence(const NodeId& from, FenceRequest request) {
  KJ_REQUIRE(request.coordinator.current.primary.node == from,
             "a fence for a primary that the sender is not", from);
  KJ_REQUIRE(request.coordinator.id == record_.id, "a fence for another volume of this name");
  // Rule 18: who takes over may follow another past than this member knows, and fence what was not
  // the last active configuration.
  KJ_REQUIRE(parts_.coordinator.doubt().empty(),
             "this member promises nothing while its coordinator has another past than it knows");
  return fence(kj::mv(request));
}

kj::Promise<FenceReply> VolumeImpl::fenceSelf(FenceRequest request) {
  return fence(kj::mv(request));
}

Co<FenceReply> VolumeImpl::fence(FenceRequest request) {
  const VolumeConfiguration& next = request.coordinator.current;
  FenceReply reply;
  reply.member = parts_.self;
  reply.highest = member_.promise().epoch;
  // Rule 11: by the record that the fence carries, not by what this node last read.
  if (!isMember(configurationAsked(request), parts_.self)) co_return reply;
  if (!claim(next.epoch, next.nonce, next.primary.node)) co_return reply;
  noteRecord(request.coordinator);
  // Rule 4: the promise and everything before it are durable before the report leaves.
  while (!planted(PlantedFault::kReportBeforeDurable)) {
    co_await log_.whenWritten();
    if (log_.durable() == log_.last().index) break;
  }
  reply.highest = member_.promise().epoch;
  if (member_.promise().epoch != next.epoch) co_return reply;
  // Invariant 1. The other place is MemberCore::acknowledgement.
  PACKMOOR_CHECK((member_.promiseDurable() && log_.durable() == log_.last().index) ||
                     planted(PlantedFault::kReportBeforeDurable),
                 "reporting to a fence before the promise is durable");
  reply.promised = true;
  // Invariant 8; the other place is countsAsFenced.
  const bool damaged = member_.repairing() && !(request.acceptsLoss && acceptsAsIs_);
  reply.repairing = damaged || !isProven(request.coordinator, parts_.self, log_.last());
  reply.last = log_.last();
  reply.base = log_.base().index;
  co_return reply;
}

// ---- Records and positions for others ---------------------------------------------------------

kj::Promise<FetchReply> VolumeImpl::handleFetch(FetchRequest request) {
  return fetch(kj::mv(request));
}

Co<FetchReply> VolumeImpl::fetch(FetchRequest request) {
  FetchReply reply;
  if (request.first <= log_.base().index || request.first > log_.last().index) co_return reply;
  if (!log_.recent(request.first, request.last, kAppendBytesMax, kInFlightRecordsMax,
                   reply.records)) {
    auto read = co_await log_.read(request.first, kAppendBytesMax);
    for (RecordRef& record : read) {
      if (record->index <= request.last) reply.records.push_back(kj::mv(record));
    }
  }
  co_return reply;
}

// The positions asked for are sparse, and may all lie outside of this log or behind where it parts.
// What is known to be committed here is in the log of every primary, unless it was released there.
LogPosition VolumeImpl::handleCommonPrefix(const CommonPrefixRequest& request) {
  for (auto it = request.positions.rbegin(); it != request.positions.rend(); ++it) {
    auto held = log_.position(it->index);
    KJ_IF_MAYBE(position, held) {
      if (position->hash == it->hash) return *position;
    }
  }
  auto committed = log_.position(std::min(member_.committed(), log_.last().index));
  KJ_IF_MAYBE(position, committed) { return *position; }
  return LogPosition();
}

// ---- Proposals and reads ----------------------------------------------------------------------

kj::Promise<ConsentReply> VolumeImpl::handleConsent(const NodeId& from,
                                                    const ConsentRequest& request) {
  if (!request.handOver || primary_ == nullptr) return consentTo(from, request);
  auto drained = primary_->drain();
  if (waitsForRoom()) drained = kj::READY_NOW;  // nothing would be answered here; the fronts ask again
  return drained.then([this]() {
    ConsentReply reply;
    reply.consents = true;
    reply.member = parts_.self;
    reply.promised = member_.promise().epoch;
    reply.last = log_.last();
    return reply;
  });
}

// Rule 9. The answer binds nobody: it keeps a node that is cut off, or too eager, from stopping a
// volume that works.
ConsentReply VolumeImpl::consentTo(const NodeId& from, const ConsentRequest& request) {
  ConsentReply reply;
  reply.member = parts_.self;
  reply.promised = member_.promise().epoch;
  reply.last = log_.last();
  if (request.candidate.node != from) {
    reply.reason = "asked in another node's name";
  } else if (member_.repairing()) {
    reply.reason = "its copy is damaged";
  } else if (unproven()) {
    reply.reason = "an accepted loss ignored it, and it has not followed since";
  } else if (journalStuck()) {
    reply.reason = "its journal does not get on";
  } else if (request.epoch < reply.promised) {
    reply.reason = "it has promised a higher epoch";
  } else if (from != primaryNode_ && hearsPrimary()) {
    reply.reason = kj::str("it hears from ", primary_ != nullptr || takeover_ != nullptr
                                                 ? "itself" : primaryNode_.c_str()).cStr();
  } else {
    reply.consents = true;
    // Who has the newer log needs to fetch nothing, and goes first.
    if (tryAtMs_ != 0 && isNewer(reply.last, request.last)) tryAfter(0);
  }
  return reply;
}

kj::Promise<ProposeReply> VolumeImpl::handlePropose(const NodeId& from, ProposeRequest request) {
  if ((primary_ != nullptr || isCandidate()) && waitsForRoom()) {
    ProposeReply reply;
    reply.outcome = ProposeReply::Outcome::kUnavailable;
    reply.reason = roomProblem();
    return reply;
  }
  if (primary_ != nullptr) return proposeLeading(from, kj::mv(request));
  if (isCandidate()) return proposeWhenLeading(from, kj::mv(request));
  ProposeReply reply;
  reply.outcome = ProposeReply::Outcome::kNotPrimary;
  if (primaryNode_ != parts_.self.node) reply.primary = primaryNode_;
  reply.reason = "this node does not lead the volume";
  return reply;
}

kj::Promise<ProposeReply> VolumeImpl::proposeLeading(const NodeId& from, ProposeRequest request) {
  ProposeReply reply;
  reply.outcome = ProposeReply::Outcome::kUnavailable;
  reply.reason = tooLargeForJournal(request.payload.size());
  if (!reply.reason.empty()) return reply;
  if (!isLeftOut(from)) return primary_->propose(kj::mv(request));
  reply.reason = kj::str("an accepted loss left out member ", from.c_str(), ", and it has not followed "
                         "since: what it proposes was checked against what may not be the volume's "
                         "history; use another node").cStr();
  return reply;
}

// A front that knows of the takeover need not ask again and again: it is answered by its outcome.
Co<ProposeReply> VolumeImpl::proposeWhenLeading(NodeId from, ProposeRequest request) {
  const int64_t untilMs = nowMs() + kParkMs;
  while (isCandidate() && nowMs() < untilMs) {
    co_await moved_.waitFor(parts_.env.timer, untilMs - nowMs());
  }
  if (primary_ != nullptr) {
    auto proposed = proposeLeading(from, kj::mv(request));
    auto reply = co_await kj::mv(proposed);
    co_return kj::mv(reply);
  }
  ProposeReply reply;
  reply.outcome = ProposeReply::Outcome::kNotPrimary;
  if (primaryNode_ != parts_.self.node) reply.primary = primaryNode_;
  reply.reason = "this node does not lead the volume yet";
  co_return reply;
}

Co<ReadIndexReply> VolumeImpl::readIndexWhenLeading(NodeId from, ReadIndexRequest request) {
  const int64_t untilMs = nowMs() + kParkMs;
  while (takeover_ != nullptr && nowMs() < untilMs) {
    co_await moved_.waitFor(parts_.env.timer, untilMs - nowMs());
  }
  ReadIndexReply reply;
  if (takeover_ != nullptr) {
    reply.reason = "this node does not lead the volume yet";
    co_return reply;
  }
  auto asked = handleReadIndex(from, kj::mv(request));
  reply = co_await kj::mv(asked);
  co_return reply;
}

kj::Promise<ReadIndexReply> VolumeImpl::handleReadIndex(const NodeId& from,
                                                        ReadIndexRequest request) {
  if (takeover_ != nullptr) return readIndexWhenLeading(from, kj::mv(request));
  if (primary_ == nullptr || !primary_->active()) {
    ReadIndexReply reply;
    if (primaryNode_ != parts_.self.node) reply.primary = primaryNode_;
    reply.reason = "this node does not lead the volume, or not yet";
    return reply;
  }
  const VolumeConfiguration& current = primary_->configuration();
  const Epoch epoch = current.epoch;
  if (request.repairs) return lastIndexFor(request);
  const bool follows = request.follows == epoch && request.nonce == current.nonce;
  const MemberIdentity asker{from, request.member};
  if (isIgnored(asker) && !primary_->hasAcknowledged(asker)) {
    // What it has applied may not be this volume's history, whatever the index.
    ReadIndexReply reply;
    reply.reason = "an accepted loss ignored this member, and it has not followed since";
    return reply;
  }
  auto confirmed = follows ? primary_->confirmRead(asker) : primary_->confirmRead();
  return confirmed.then(
      [epoch](RecordIndex index) {
        ReadIndexReply reply;
        reply.ok = true;
        reply.epoch = epoch;
        reply.committed = index;
        return reply;
      },
      [](kj::Exception&& exception) {
        ReadIndexReply reply;
        reply.reason = exception.getDescription().cStr();
        return reply;
      });
}

ConfirmReply VolumeImpl::handleConfirm(const ConfirmRequest& request) {
  ConfirmReply reply;
  reply.round = request.round;
  reply.promised = member_.promise().epoch;
  reply.follows = !member_.repairing() && !unproven() && reply.promised <= request.epoch &&
                  request.member == parts_.self.journal;
  return reply;
}

}  // namespace packmoor::replicator
