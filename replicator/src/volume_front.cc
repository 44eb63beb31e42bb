// What fronts ask of a volume: proposals and reads, wherever the primary is.
#include "volume_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

constexpr int64_t kRetryMsMin = 5, kRetryMsMax = 200;
constexpr int64_t kHolderTimeoutMs = 1000;

// Proposals are sent again with the same bytes; each request refers to them.
struct SharedPayload {
  std::shared_ptr<kj::Array<const kj::byte>> bytes;
  kj::Array<const kj::byte> reference() const {
    if (bytes->size() == 0) return nullptr;
    return bytes->asPtr().attach(bytes);
  }
};

}  // namespace

// ---- Proposals -------------------------------------------------------------------------------

kj::Promise<ProposeOutcome> VolumeImpl::propose(Proposal proposal) {
  return canceler_.wrap(proposeUntilDone(kj::mv(proposal)).promise());
}

// Why there can be no record with such a payload; empty: there can. The journal ends the process for one
// that fills more than half a segment.
std::string VolumeImpl::tooLargeForJournal(size_t payloadBytes) {
  constexpr size_t kAlwaysFits = 256u << 10, kEntryBytes = 4096;   // in any segment; beside the payload
  if (payloadBytes <= kAlwaysFits) return {};
  const uint64_t segment = parts_.journal.statistics().segmentBytes;
  if (payloadBytes + kEntryBytes <= segment / 2) return {};
  return kj::str("a record of ", payloadBytes, " bytes does not fit into the journal, whose segments have ",
                 segment, " (replication.segment); change fewer refs at once").cStr();
}

Co<ProposeOutcome> VolumeImpl::proposeUntilDone(Proposal proposal) {
  // Else only the primary would say so, and be asked until the deadline.
  const std::string tooLarge = tooLargeForJournal(proposal.payload.size());
  if (!tooLarge.empty()) {
    kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                          kj::str(tooLarge.c_str())));
  }
  const SharedPayload payload{
      std::make_shared<kj::Array<const kj::byte>>(kj::mv(proposal.payload))};
  const int64_t deadlineMs = nowMs() + parts_.options.proposeTimeoutMs;
  int64_t retryMs = kRetryMsMin;
  bool mayBeWritten = false;
  std::string reason = "the volume has no primary";
  for (;;) {
    if (!gone_.empty()) failGone();
    KJ_REQUIRE(!stopped_, "this node is stopping; nothing was written by this request");
    requireProven();
    ProposeRequest request{record_.id,       proposal.txn,      proposal.kind,
                           proposal.extents, proposal.sealedOn, payload.reference()};
    auto reply = co_await proposeOnce(kj::mv(request), deadlineMs);
    switch (reply.outcome) {
      case ProposeReply::Outcome::kDone:
        co_return ProposeOutcome{reply.index, kj::mv(reply.result)};
      case ProposeReply::Outcome::kUnknown:
        mayBeWritten = true;
        break;
      case ProposeReply::Outcome::kNotPrimary:
        if (!reply.primary.empty() && reply.primary != primaryNode_) {
          hinted(reply.primary);
          retryMs = kRetryMsMin;
        }
        break;
      case ProposeReply::Outcome::kUnavailable: break;
    }
    if (!reply.reason.empty()) reason = reply.reason;
    // Without an id it cannot be known whether the first attempt will still be applied.
    bool again = !mayBeWritten || !proposal.txn.isNull();
    const int64_t leftMs = deadlineMs - nowMs();
    if (again && leftMs > 0) co_await moved_.waitFor(parts_.env.timer, std::min(retryMs, leftMs));
    // What is sent at the deadline leaves no time for an answer, and so in doubt what is certain now.
    again = again && nowMs() < deadlineMs;
    if (!again) {
      KJ_REQUIRE(!mayBeWritten,
                 "whether the transaction was committed is unknown", reason);
      KJ_FAIL_REQUIRE("the transaction was not committed and will not be", reason);
    }
    retryMs = std::min(retryMs * 2, kRetryMsMax);
    if (!proposal.extents.empty()) co_await addHolders(proposal);
  }
}

// Rule 22: extents go on streaming after their seal; members may hold them now that did not when
// the proposal was made.
Co<void> VolumeImpl::addHolders(Proposal& proposal) {
  std::vector<NodeId> asked;
  for (const MemberIdentity& member : record_.current.members) {
    const auto& known = proposal.sealedOn;
    if (member.node == parts_.self.node ||
        std::find(known.begin(), known.end(), member.node) != known.end()) {
      continue;
    }
    asked.push_back(member.node);
  }
  for (const NodeId& node : asked) {
    bool holds = true;
    for (const ExtentId& extent : proposal.extents) {
      auto info = parts_.env.timer.timeoutAfter(kHolderTimeoutMs * kj::MILLISECONDS,
                                                parts_.peers.peer(node).extentInfo(extent));
      auto outcome = co_await outcomeOf(kj::mv(info));
      holds = holds && outcome.ok() && outcome.value->first > 0;
      if (!holds) break;
    }
    if (holds) proposal.sealedOn.push_back(node);
  }
}

// One attempt. A failure on the way is the reply kUnknown.
Co<ProposeReply> VolumeImpl::proposeOnce(ProposeRequest request, int64_t deadlineMs) {
  if (primary_ != nullptr || primaryNode_.empty() || primaryNode_ == parts_.self.node) {
    auto local = handlePropose(parts_.self.node, kj::mv(request));
    auto reply = co_await kj::mv(local);
    co_return kj::mv(reply);
  }
  // Ends early when the lead moves: the new primary is asked with the same transaction id. Without an
  // id only the primary that was asked can tell what became of it.
  const NodeId asked = primaryNode_;
  auto moved = whenMoved(request.txn.isNull() ? NodeId() : asked, deadlineMs).promise();
  auto sent = parts_.peers.peer(asked).propose(kj::mv(request));
  auto outcome = co_await outcomeOf(sent.exclusiveJoin(kj::mv(moved)));
  if (outcome.ok()) co_return kj::mv(*outcome.value);
  ProposeReply reply;
  KJ_IF_MAYBE(exception, outcome.exception) {
    reply.reason = exception->getDescription().cStr();
  }
  co_return reply;
}

// `asked` empty: only the deadline ends it.
Co<ProposeReply> VolumeImpl::whenMoved(NodeId asked, int64_t deadlineMs) {
  ProposeReply reply;
  reply.reason = "the primary did not answer in time";
  // Before the new primary is active nobody can serve, and the old one may yet answer.
  while (nowMs() < deadlineMs) {
    co_await moved_.waitFor(parts_.env.timer, deadlineMs - nowMs());
    if (!asked.empty() && primaryNode_ != asked && primaryIsActive()) {
      reply.reason = "the lead moved to another node";
      break;
    }
  }
  co_return reply;
}

// ---- Reads -----------------------------------------------------------------------------------

kj::Promise<RecordIndex> VolumeImpl::readBarrier() {
  ++readBarriers_;
  return canceler_.wrap(readUntilConfirmed().promise());
}

Co<RecordIndex> VolumeImpl::readUntilConfirmed() {
  requireProven();
  const int64_t deadlineMs = nowMs() + parts_.options.readTimeoutMs;
  int64_t retryMs = kRetryMsMin;
  for (;;) {
    if (!gone_.empty()) failGone();
    KJ_REQUIRE(problem_.empty(), "this node's copy of the volume cannot be read", problem_);
    auto outcome = co_await outcomeOf(confirmOnce());
    const int64_t leftMs = deadlineMs - nowMs();
    if (outcome.ok()) {
      const RecordIndex index = *outcome.value;
      if (applier_->applied() >= index) co_return index;
      auto applied = co_await outcomeOf(applier_->whenApplied(index).exclusiveJoin(
          parts_.env.timer.afterDelay(std::max<int64_t>(1, leftMs) * kj::MILLISECONDS)
              .then([this]() -> kj::Promise<void> { return tooLate(); })));
      KJ_IF_MAYBE(exception, applied) { kj::throwFatalException(kj::mv(*exception)); }
      co_return index;
    }
    if (leftMs <= 0) {
      KJ_IF_MAYBE(exception, outcome.exception) { kj::throwFatalException(kj::mv(*exception)); }
    }
    co_await moved_.waitFor(parts_.env.timer, std::max<int64_t>(1, std::min(retryMs, leftMs)));
    retryMs = std::min(retryMs * 2, kRetryMsMax);
  }
}

kj::Exception VolumeImpl::tooLate() {
  const std::string why = stateMachine_->problem();
  return kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                       kj::str("this node did not catch up with the primary in time",
                               why.empty() ? "" : ": ", why.c_str()));
}

kj::Promise<RecordIndex> VolumeImpl::confirmOnce() {
  if (primary_ != nullptr && primary_->active()) return primary_->confirmRead();
  if (primaryNode_.empty() || primaryNode_ == parts_.self.node) {
    return KJ_EXCEPTION(OVERLOADED, "the volume has no primary at present");
  }
  auto paf = kj::newPromiseAndFulfiller<RecordIndex>();
  forwardedReads_.push_back(kj::mv(paf.fulfiller));
  if (!forwarding_) {
    forwarding_ = true;
    tasks_.add(forwardReads());
  }
  return kj::mv(paf.promise);
}

// One question to whoever leads now. Ends early when the lead moves.
kj::Promise<ReadIndexReply> VolumeImpl::askReadIndex() {
  ReadIndexRequest request{record_.id, parts_.self.journal, Epoch(), Uuid()};
  if (!member_.repairing()) {
    request.follows = member_.promise().epoch;
    request.nonce = member_.promise().nonce;
  }
  // While readers waited for the answer before, the lead may have come here.
  if (primaryNode_.empty() || primaryNode_ == parts_.self.node) {
    return handleReadIndex(parts_.self.node, kj::mv(request));
  }
  auto moved = whenMoved(primaryNode_, nowMs() + kForwardTimeoutMs).promise().then(
      [](ProposeReply&& reply) {
        ReadIndexReply none;
        none.reason = reply.reason;
        return none;
      });
  auto asked = parts_.peers.peer(primaryNode_).readIndex(kj::mv(request));
  return asked.exclusiveJoin(kj::mv(moved));
}

// Everyone who waits when a question leaves is served by its answer; who comes later, by the next.
Co<void> VolumeImpl::forwardReads() {
  while (!forwardedReads_.empty()) {
    auto readers = kj::mv(forwardedReads_);
    forwardedReads_.clear();
    auto outcome = co_await outcomeOf(askReadIndex());
    if (outcome.ok() && outcome.value->ok) {
      // The answer is an announcement, too (rule 15).
      announced(outcome.value->epoch, outcome.value->committed);
      for (auto& reader : readers) reader->fulfill(kj::cp(outcome.value->committed));
      continue;
    }
    if (outcome.ok() && !outcome.value->primary.empty()) hinted(outcome.value->primary);
    const std::string reason = outcome.ok() ? outcome.value->reason : "the primary did not answer";
    for (auto& reader : readers) {
      reader->reject(KJ_EXCEPTION(OVERLOADED, "the primary of the volume could not confirm the read",
                                  reason));
    }
  }
  forwarding_ = false;
}

kj::Promise<void> VolumeImpl::whenApplied(RecordIndex index) {
  return canceler_.wrap(applier_->whenApplied(index));
}

// ---- Moving the lead ---------------------------------------------------------------------------

kj::Promise<void> VolumeImpl::takeOver() { return canceler_.wrap(takeOverPlanned().promise()); }

Co<void> VolumeImpl::takeOverPlanned() {
  if (primary_ != nullptr && primary_->active()) co_return;
  KJ_REQUIRE(!stopped_, "this node is stopping");
  KJ_REQUIRE(!mayNotLead() && !stateDamaged(),
             "this node's copy of the volume is damaged and may not lead", problem_, stateDamage_);
  requireRoom();
  if (takeover_ == nullptr) {
    // Catching up first keeps the time short in which nobody leads. Without a primary there is
    // nothing to wait for.
    auto reached = co_await outcomeOf(confirmOnce());
    if (reached.ok() && applier_->applied() < *reached.value) {
      auto late = parts_.env.timer.afterDelay(kCatchUpTimeoutMs * kj::MILLISECONDS)
                      .then([]() -> kj::Promise<void> {
                        return KJ_EXCEPTION(OVERLOADED, "this node is too far behind to take over");
                      });
      co_await applier_->whenApplied(*reached.value).exclusiveJoin(kj::mv(late));
    }
    if (primary_ != nullptr && primary_->active()) co_return;
  }
  auto attempt = beginTakeover({nullptr, true});
  co_await kj::mv(attempt);
}

kj::Promise<void> VolumeImpl::switchOver(NodeId node) {
  KJ_REQUIRE(record_.current.hasMember(node), "that node is not a counted member of the volume",
             node);
  if (node == parts_.self.node) return takeOver();
  return canceler_.wrap(parts_.peers.peer(node).takeOver(record_.id));
}

}  // namespace packmoor::replicator
