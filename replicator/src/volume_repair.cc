// How a damaged member becomes whole again (DESIGN section 6 rule 17).
//
// Rot may have eaten promises and acknowledgements, so the member promises the coordinator's epoch
// anew, learns how far that epoch's active primary had written, and counts again only when it has
// everything up to there. The records come as to any standby, or a checkpoint where no log holds them any
// more; meanwhile they are not acknowledged.
#include "volume_impl.h"

#include "kernelio/check.h"
#include "planted_fault.h"
#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

constexpr int64_t kRepairPauseMs = 200;
constexpr int64_t kRepairAskMs = 2000;
constexpr int64_t kRepairExtentMs = 30'000;
// An epoch that is not active by then belongs to an attempt that was given up.
constexpr int64_t kRepairStalledMs = 3000;

}  // namespace

void VolumeImpl::beginRepair() {
  repairStep_ = "it waits for the coordinator";
  tasks_.add(repair());
}

void VolumeImpl::repairStep(std::string step, const NodeId& source, bool stuck) {
  repairSource_ = source;
  repairStuck_ = stuck;
  if (step == repairStep_) return;
  KJ_LOG(INFO, "repair of a volume", record_.name.c_str(), step.c_str());
  repairStep_ = std::move(step);
}

void VolumeImpl::addRepairTo(VolumeStatus& status) {
  if (!status.repairing) return;
  RepairStatus& repair = status.repair;
  repair.damage = stateDamaged() ? stateDamage_ : problem_;
  repair.step = repairStep_.empty() && stateDamaged() ? "it has just been found" : repairStep_;
  repair.source = repairSource_;
  repair.stuck = repairStuck_ || repair.step.empty();
  if (repairTarget_.value == 0) return;
  repair.target = repairTarget_;
  repair.reached = member_.repairedUpTo(log_).index;
}

std::string VolumeImpl::repairProblem() {
  const std::string& damage = stateDamaged() ? stateDamage_ : problem_;
  if (repairStep_.empty()) return damage;
  std::string text = damage + "; to be repaired, " + repairStep_;
  if (repairTarget_.value > 0) {
    text += kj::str(" (its log holds up to ", member_.repairedUpTo(log_).index, " of ",
                    repairTarget_, ")").cStr();
  }
  return text;
}

// A higher promise begins it again; so does a restart, which finds the mark of the journal.
Co<void> VolumeImpl::repair() {
  for (;;) {
    auto attempt = repairOnce().promise();
    auto outcome = co_await outcomeOf(kj::mv(attempt));
    if (!member_.repairing()) co_return;  // or an operator took it as it is
    if (outcome.ok() && *outcome.value) co_return;
    repairTarget_ = RecordIndex();
    KJ_IF_MAYBE(exception, outcome.exception) {
      repairStep(kj::str("it tries again after: ", exception->getDescription()).cStr());
    }
    co_await moved_.waitFor(parts_.env.timer, kRepairPauseMs);
  }
}

Co<bool> VolumeImpl::repairOnce() {
  VolumeConfiguration current;
  const bool follows = co_await followForRepair(current);
  if (!follows) co_return false;
  const Epoch epoch = current.epoch;
  if (stateDamaged()) co_return false;  // what is left of the log is compared with the state
  if (!repairPrepared_) co_await prepareRepair(current.primary.node);
  member_.acceptRepairs();
  // Rule 17: the last index, not the committed one: it may have acknowledged what no one has
  // counted yet.
  const RecordIndex target = co_await askLastIndex(current);
  repairTarget_ = target;
  const std::string source = current.primary.node;
  while (member_.repairedUpTo(log_).index < target) {
    // What the primary has released comes as a checkpoint.
    const bool transfers = transfer_ != nullptr && transferWanted_;
    repairStep((transfers ? "it fetches a checkpoint from " : "it takes records from ") + source,
               source);
    const bool superseded = record_.current.epoch > epoch &&
                            !planted(PlantedFault::kRepairForgetsPromise);
    if (member_.promise().epoch != epoch || superseded) co_return false;
    co_await repaired_.waitFor(parts_.env.timer, kRepairPauseMs);
  }
  // A checkpoint that is being installed moves state and log.
  while (installing_) co_await moved_.waitFor(parts_.env.timer, kRepairPauseMs);
  if (member_.promise().epoch != epoch || member_.repairedUpTo(log_).index < target) {
    co_return false;
  }
  co_await becomeWhole();
  co_return true;
}

// Promises the epoch of the active primary, as the coordinator has it now. False: there is none.
Co<bool> VolumeImpl::followForRepair(VolumeConfiguration& primary) {
  if (planted(PlantedFault::kRepairForgetsPromise)) {
    // As if nothing could have been forgotten: it follows whoever leads in the epoch that is left.
    primary = record_.current;
    primary.epoch = member_.promise().epoch;
    primary.nonce = member_.promise().nonce;
    primary.primary.node = primaryNode_;
    co_return !primaryNode_.empty() && primaryNode_ != parts_.self.node;
  }
  std::string name = record_.name;
  auto found = co_await parts_.coordinator.readVolume(kj::mv(name));  // linearizable
  if (!found.has_value()) co_return false;
  primary = found->current;
  noteRecord(*found);
  if (primary.members.size() == 1 && primary.hasMember(parts_.self.node)) {
    repairStep("there would have to be another member, and there is none: the volume has this one "
               "copy only, and what is damaged cannot be fetched from anywhere", NodeId(), true);
    co_return false;
  }
  if (found->phase != VolumePhase::kActive) {
    awaitActiveEpoch(primary);
    co_return false;
  }
  if (primary.primary.node == parts_.self.node) {
    repairStep("it waits until another member leads");
    co_return false;
  }
  if (!claim(primary.epoch, primary.nonce, primary.primary.node)) {
    repairStep("it waits until the coordinator's epoch is the one that it has promised");
    co_return false;
  }
  co_await log_.whenWritten();
  co_return member_.promise().epoch == primary.epoch && member_.promiseDurable();
}

// The coordinator's current epoch is to be promised, and it has no active primary. If its candidate is
// gone, the primary of an earlier epoch may go on for ever (rule 10). The promise makes it take a new
// epoch, since it is refused here.
void VolumeImpl::awaitActiveEpoch(const VolumeConfiguration& candidate) {
  if (!stallsFor(candidate.epoch, kRepairStalledMs)) {
    repairStep("it waits until another member leads");
    return;
  }
  repairStep(kj::str("it has promised epoch ", candidate.epoch, ", in which nobody leads, and waits for "
                     "a new one").cStr());
  claim(candidate.epoch, candidate.nonce, candidate.primary.node);
}

// Once: the log begins at the state, or it is whole and has its extents.
Co<void> VolumeImpl::prepareRepair(const NodeId& primary) {
  bool holdsState = false;
  auto held = log_.position(stateAt_.index);
  KJ_IF_MAYBE(position, held) { holdsState = position->hash == stateAt_.hash; }
  if (journalSuspect_ && !(acceptsAsIs_ && holdsState)) {
    // What is left of the log is not kept, unless it is all that there is: it may lie where the next start
    // does not read, in a segment that has lost its beginning. What the state has applied is committed, so
    // the primary has it.
    KJ_LOG(WARNING, "the log of a damaged volume begins anew where its state stands",
           record_.name.c_str(), stateAt_.index, log_.last().index);
    log_.reset(stateAt_);
    pinnedTo_ = stateAt_.index;
    co_await log_.whenWritten();
  }
  while (pinnedTo_ < log_.last().index) {
    auto records = co_await log_.read(pinnedTo_.next(), kAppendBytesMax);
    KJ_REQUIRE(records.size() > 0, "the journal ends early", pinnedTo_, log_.last().index);
    for (const RecordRef& record : records) {
      const RecordIndex stands = stateAt_.index;
      co_await pinForRepair(record, primary);
      if (stateAt_.index > stands || record->index > log_.last().index) break;  // the log may be another
      pinnedTo_ = record->index;
    }
  }
  repairPrepared_ = true;
}

// A record without its extents does not stay in the log (invariant 5).
Co<void> VolumeImpl::pinForRepair(const RecordRef& record, const NodeId& primary) {
  if (log_.pinRecovered(*record)) co_return;
  repairStep(kj::str("it fetches the extents of record ", record->index).cStr());
  std::vector<NodeId> holders{primary};
  for (const MemberIdentity& member : record_.current.members) {
    if (member.node != primary && member.node != parts_.self.node) holders.push_back(member.node);
  }
  auto fetched = parts_.exchange.obtain(record->extents, kj::mv(holders));
  auto bounded = parts_.env.timer.timeoutAfter(kRepairExtentMs * kj::MILLISECONDS,
                                               kj::mv(fetched));
  auto failure = co_await outcomeOf(kj::mv(bounded));
  if (failure == nullptr && log_.pinRecovered(*record)) co_return;
  if (!acceptsAsIs_) {
    const bool passed = co_await fetchPastDropped(record, primary);
    if (passed) co_return;
  }
  KJ_REQUIRE(acceptsAsIs_, "no member has the extents of a record of the log", record->index);
  // Nobody has them: by the operator's order the log ends before it.
  auto previous = log_.position(RecordIndex(record->index.value - 1));
  KJ_IF_MAYBE(end, previous) {
    log_.truncate(*end);
  } else {
    KJ_FAIL_REQUIRE("the log begins with a record whose extents nobody has", record->index);
  }
}

// Extents that were dropped, because they were pruned, nobody has again; and the primary's state is beyond
// the record that names them. With that state here the record is not needed; what of the log is behind it
// stays (rule 13). False: the primary has not dropped them.
Co<bool> VolumeImpl::fetchPastDropped(const RecordRef& record, const NodeId& primary) {
  const Epoch epoch = member_.promise().epoch;
  for (const ExtentId& extent : record->extents) {
    if (parts_.extents.isSealed(extent)) continue;
    const bool dropped = co_await isDropped(primary, extent);
    if (!dropped) co_return false;
    break;
  }
  repairFloor_ = record->index;
  while (stateAt_.index < repairFloor_) {
    repairStep(kj::str("it fetches a checkpoint from ", primary.c_str(), ", since the extents of record ",
                       record->index, " were dropped everywhere").cStr(), primary);
    if (transfer_ == nullptr) beginTransfer();
    co_await moved_.waitFor(parts_.env.timer, kRepairPauseMs);
    KJ_REQUIRE(member_.promise().epoch == epoch, "another member has come to lead");
  }
  co_return true;
}

Co<RecordIndex> VolumeImpl::askLastIndex(const VolumeConfiguration& primary) {
  ReadIndexRequest request{record_.id, parts_.self.journal, primary.epoch, primary.nonce, true};
  const Epoch epoch = primary.epoch;
  auto asked = parts_.peers.peer(primary.primary.node).readIndex(kj::mv(request));
  auto bounded = parts_.env.timer.timeoutAfter(kRepairAskMs * kj::MILLISECONDS, kj::mv(asked));
  auto reply = co_await kj::mv(bounded);
  KJ_REQUIRE(reply.ok && reply.epoch == epoch, "the primary does not tell its last index",
             reply.reason);
  co_return reply.last;
}

// Asked by a member in repair; this node leads and is active.
ReadIndexReply VolumeImpl::lastIndexFor(const ReadIndexRequest& request) {
  const VolumeConfiguration& current = primary_->configuration();
  ReadIndexReply reply;
  reply.epoch = current.epoch;
  reply.ok = request.follows == current.epoch && request.nonce == current.nonce;
  if (!reply.ok) reply.reason = "this node leads in another epoch";
  reply.last = planted(PlantedFault::kRepairToCommitted) ? member_.committed() : log_.last().index;
  return reply;
}

Co<void> VolumeImpl::becomeWhole() {
  auto held = log_.position(stateAt_.index);
  KJ_IF_MAYBE(position, held) {
    KJ_REQUIRE(position->hash == stateAt_.hash,
               "the state of the volume is not one that the log of the primary leads to",
               stateAt_.index);
  } else {
    KJ_FAIL_REQUIRE("the log of the primary ends below the state of the volume", stateAt_.index);
  }
  // Whole from this turn on: a promise that comes later is journaled behind it, and finds
  // nothing forgotten.
  log_.markWhole();
  co_await log_.whenWritten();
  KJ_LOG(INFO, "the volume is repaired and whole again", record_.name.c_str(), repairTarget_);
  member_.whole();
  problem_.clear();
  repairStep_.clear();
  repairTarget_ = RecordIndex();
  if (!applier_->runs()) applier_->start();
  advanced();
  moved_.notify();
}

}  // namespace packmoor::replicator
