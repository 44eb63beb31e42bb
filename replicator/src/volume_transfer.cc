// Checkpoints of a volume from and to other nodes.
#include "volume_impl.h"

#include "kernelio/check.h"
#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

// ---- To others --------------------------------------------------------------------------------

kj::Promise<OpenCheckpointReply> VolumeImpl::handleOpenCheckpoint(const NodeId& from,
                                                                  OpenCheckpointRequest request) {
  KJ_REQUIRE(!member_.repairing() && !stateDamaged() && !stateAbsent_,
             "this member's copy is damaged");
  return offers_.open(from, request);
}

kj::Promise<ExtentBlockReply> VolumeImpl::handleReadCheckpoint(const NodeId& from,
                                                               CheckpointBlockRequest request) {
  return offers_.readBlock(from, request);
}

void VolumeImpl::handleCloseCheckpoint(const NodeId& from,
                                       const CloseCheckpointRequest& request) {
  offers_.close(from, request.checkpoint);
}

kj::Promise<void> VolumeImpl::makeCheckpoint(
    std::string folder, kj::Function<void(const CheckpointContent&)> made) {
  return applier_->alone(
      [this, folder = std::move(folder), made = kj::mv(made)]() mutable -> kj::Promise<void> {
        return makeCheckpointAlone(std::move(folder), kj::mv(made));
      });
}

Co<void> VolumeImpl::makeCheckpointAlone(std::string folder,
                                         kj::Function<void(const CheckpointContent&)> made) {
  auto making = stateMachine_->makeCheckpoint(folder);
  auto content = co_await kj::mv(making);
  // Whoever installs it may forget its own log: only what is committed may be in it.
  PACKMOOR_CHECK(content.position.index == applier_->applied() &&
                     content.position.index <= member_.committed(),
                 "a checkpoint of what is not committed", content.position.index,
                 member_.committed());
  made(content);
}

// Members that fetch a checkpoint, and such as are behind and get on, need the log from there. Not
// without end: the brake sees to it that they come nearer before.
RecordIndex VolumeImpl::keptForTransfers() {
  RecordIndex hold = offers_.hold();
  if (primary_ != nullptr) hold = std::min(hold, primary_->neededByFollowers());
  if (hold.value == UINT64_MAX) return hold;
  const uint64_t bytes =
      kTransferLogFactor * std::max(parts_.options.logRetainBytes, parts_.options.lagBytesMax);
  return std::max(hold, log_.indexBeforeBytes(bytes));
}

// ---- From others ------------------------------------------------------------------------------

// The primary says that its log does not go on from this member's.
void VolumeImpl::noteBehind(const AppendRequest& request) {
  if (!request.behind.has_value() || stopped_) return;
  // In repair, once it takes records at all, a checkpoint is as good (rule 17).
  if (member_.repairing() && !member_.acceptsRepairs()) return;
  // What it says may be of the time before a checkpoint was installed.
  auto held = log_.position(request.behind->index);
  KJ_IF_MAYBE(own, held) {
    if (own->hash != request.behind->hash) return;
  } else {
    return;
  }
  wantTransfer(request.primary.node, "records that no log holds any more");
}

// A primary has what its log names until its state, durably, names it no more and the record was applied
// in an earlier life. So its checkpoint goes past that record.
Co<bool> VolumeImpl::isDropped(const NodeId& primary, ExtentId extent) {
  auto asked = parts_.peers.peer(primary).extentInfo(extent);
  auto info = co_await outcomeOf(kj::mv(asked));
  co_return info.ok() && info.value->first == 0 && info.value->second == Hash128();
}

void VolumeImpl::wantTransfer(const NodeId& primary, const char* why) {
  if (stopped_ || (member_.repairing() && !member_.acceptsRepairs())) return;
  if (unproven() && log_.last().index.value > 0) {
    partedAt_ = LogPosition();  // whether the logs agree cannot be compared any more
    return;
  }
  transferWanted_ = true;
  if (transfer_ != nullptr) return;
  KJ_LOG(INFO, "this member fetches a checkpoint, since it needs what is gone", why,
         record_.name.c_str(), log_.last().index, primary.c_str());
  beginTransfer();
}

void VolumeImpl::beginTransfer() {
  transfer_ = std::make_unique<StateTransfer>(
      static_cast<TransferHost&>(*this),
      TransferParts{parts_.env, parts_.extents, parts_.exchange, parts_.peers, record_.id,
                    parts_.self.journal, parts_.options.transferBytesPerSecond});
  transfer_->begin();
}

NodeId VolumeImpl::transferSource() {
  return primaryNode_ == parts_.self.node ? NodeId() : primaryNode_;
}

// Invariant 6: what is applied only grows, also by a checkpoint. A damaged state is replaced by one that
// is as new; any other by a newer one.
std::string VolumeImpl::refuses(RecordIndex position) {
  const RecordIndex applied = applier_->applied();
  if (position < applied || (position == applied && !stateDamaged())) {
    return kj::str("the checkpoint is not newer than the state here, which stands at ",
                   applied).cStr();
  }
  if (position < std::max(stateFloor_, repairFloor_)) return "the checkpoint ends below a record that cannot be read here";
  return {};
}

void VolumeImpl::tickTransfer() {
  if (transfer_ != nullptr && transfer_->done()) {
    transfersDone_ += transfer_->status().installed;
    transfer_ = nullptr;
  }
  offers_.tick();
  if (primary_ == nullptr) return;
  for (const MemberStatus& member : primary_->memberStatus()) {
    if (!member.isSelf) offers_.reached(member.node, member.acknowledged);
  }
}

kj::Promise<void> VolumeImpl::install(std::string folder, LogPosition position) {
  return installWhenFree(folder, position);
}

Co<void> VolumeImpl::installWhenFree(std::string folder, LogPosition position) {
  // A takeover compares and extends the log; one that begins is refused from here on.
  while (takeover_ != nullptr) co_await moved_.waitFor(parts_.env.timer, kInstallPauseMs);
  KJ_REQUIRE(primary_ == nullptr, "this node leads the volume and needs no checkpoint");
  installing_ = true;
  KJ_DEFER(installing_ = false);
  // Where nothing is applied, there is nothing to keep from running meanwhile.
  auto installed = applier_->runs() ? applier_->alone([this, folder, position]() {
    return kj::Promise<void>(installAlone(folder, position));
  }) : kj::Promise<void>(installAlone(folder, position));
  co_await kj::mv(installed);
}

Co<void> VolumeImpl::installAlone(std::string folder, LogPosition position) {
  const std::string refusal = refuses(position.index);
  KJ_REQUIRE(refusal.empty(), refusal.c_str(), position.index);
  co_await stateMachine_->stageCheckpoint(folder, position);
  // The switch. Before this entry of the journal is durable, a restart finds the old log and the
  // old state; from then on, the new ones (StateMachine::journalCheckpoint). Whatever fails in
  // between is fatal: the journal's failures end the process.
  log_.install(position);
  member_.installed(position.index);
  co_await log_.whenWritten();
  auto failure = co_await outcomeOf(stateMachine_->switchToStaged(position));
  KJ_IF_MAYBE(exception, failure) {
    damaged(kj::str("the checkpoint that was fetched cannot be used: ",
                    exception->getDescription()).cStr());
    kj::throwFatalException(kj::mv(*exception));
  }
  stateAt_ = position;   // where a repair compares state and log
  pinnedTo_ = std::max(pinnedTo_, position.index);
  applier_->jumpTo(position.index);
  applier_->lastCheckpointMs = nowMs();
  stateReplaced();
  moved_.notify();
}

void VolumeImpl::addTransferTo(VolumeStatus& status) {
  if (transfer_ != nullptr) status.transfer = transfer_->status();
  status.transfer.installed += transfersDone_;
  for (MemberStatus& member : status.members) {
    uint64_t bytes = 0;
    RecordIndex position;
    if (primary_ == nullptr || member.isSelf ||
        !offers_.progressOf(member.node, bytes, position) || member.acknowledged >= position) {
      continue;
    }
    member.problem = kj::str("is behind and fetches a checkpoint of the state at record ",
                             position).cStr();
  }
}

}  // namespace packmoor::replicator
