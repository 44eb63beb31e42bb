#include "volume_impl.h"

#include "epoch_start.h"
#include "kernelio/check.h"
#include "replicator/outcome.h"
#include "planted_fault.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

kj::StringPtr roleName(VolumeRole role) {
  switch (role) {
    case VolumeRole::kNone: return "none";
    case VolumeRole::kStandby: return "standby";
    case VolumeRole::kAsync: return "async standby";
    case VolumeRole::kTakingOver: return "taking over";
    case VolumeRole::kPrimary: return "primary";
  }
  return "unknown";
}

VolumeImpl::VolumeImpl(VolumeParts parts, VolumeRecord record, const RecoveredVolume& found,
                       kj::Own<StateMachine> stateMachine)
    : parts_(parts), record_(std::move(record)), stateMachine_(kj::mv(stateMachine)),
      log_(parts.journal, parts.extents, record_.id, found, [this]() {
        if (primary_ != nullptr) primary_->ownLogDurable();
        if (applier_ != nullptr) applier_->wake();
      }),
      checkpointFound_(found.checkpoint),
      member_(found.promise, std::max(found.base.index, found.checkpoint.index), found.suspect),
      watch_(parts.options.suspectAfterMs, parts.options.heartbeatMs),
      offers_(static_cast<OfferHost&>(*this), parts.env, parts.extents,
              CheckpointOffers::folderOf(record_.id)) {
  if (found.suspect) {
    problem_ = "the journal is damaged and may have lost records of this volume";
  }
}

VolumeImpl::~VolumeImpl() noexcept(false) {}

Co<void> VolumeImpl::open() {
  if (checkpointFound_.index.value > 0) {  // before the first one there is nothing to remove
    co_await offers_.clean();
    co_await StateTransfer::clean(parts_.env.disk, record_.id, checkpointFound_.index);
  }
  if (checkpointFound_ == LogPosition() && log_.last() == LogPosition() &&
      member_.promise().epoch.value > 0 && !member_.repairing()) {
    // A diverged member was discarded: it begins as an empty one.
    auto removed = stateMachine_->removeState();
    co_await kj::mv(removed);
  }
  stateMachine_->journalCheckpoint(checkpointFound_);
  auto opening = openState();
  const LogPosition durable = co_await kj::mv(opening);
  bool matches = false;
  auto held = log_.position(durable.index);
  KJ_IF_MAYBE(position, held) { matches = position->hash == durable.hash; }
  RecordIndex applied = durable.index;
  stateAt_ = durable;
  pinnedTo_ = applied;
  journalSuspect_ = member_.repairing();
  if (journalSuspect_) {
    // What the state has applied is committed; of the log nothing else is certain.
  } else if (!matches) {
    damaged("the journal does not hold the record at which the state of the volume stands");
  }
  // What the state has applied, and what was a checkpoint, is committed (rule 15).
  const RecordIndex committed =
      journalSuspect_ ? applied : std::max(applied, member_.committed());
  const bool contradiction = member_.repairing() && !journalSuspect_;
  member_ = MemberCore(member_.promise(), committed, member_.repairing());
  log_.keepCommitted(std::min(member_.committed(), log_.last().index));
  if (!member_.repairing()) co_await pinRecovered(applied);
  applier_ = std::make_unique<Applier>(log_, member_, *stateMachine_,
                                       static_cast<ApplyHost&>(*this), applied);
  applier_->lastCheckpointMs = nowMs();
  openedMs_ = nowMs();
  watch_.follow(openedMs_);
  if (stateAbsent_) applier_->withoutState();
  if (!member_.repairing()) {
    if (!stateAbsent_) applier_->start();
  } else if (!contradiction) {
    beginRepair();
  }
  if (stateDamaged()) tasks_.add(repairState());
}

// Invariant 5, for what a restart finds. The other place is MemberLog::pin.
Co<void> VolumeImpl::pinRecovered(RecordIndex applied) {
  RecordIndex next = applied.next();
  while (next <= log_.last().index) {
    auto records = co_await log_.read(next, kAppendBytesMax);
    KJ_REQUIRE(records.size() > 0, "the journal ends early", next, log_.last().index);
    for (const RecordRef& record : records) {
      if (!log_.pinRecovered(*record)) {
        damaged(kj::str("an extent that record ", record->index, " names is lost here").cStr());
        co_return;
      }
      pinnedTo_ = record->index;
    }
    next = records.back()->index.next();
  }
}

void VolumeImpl::damaged(std::string problem) {
  // Invariant 8: from here on it acknowledges nothing, is not counted in fences and never leads.
  KJ_LOG(ERROR, "volume is damaged on this node", record_.name.c_str(), problem.c_str());
  member_.beginRepair();
  problem_ = std::move(problem);
}

// ---- Promises and roles ----------------------------------------------------------------------

// Rule 3: the one place where a promise is raised. False: refused.
bool VolumeImpl::claim(Epoch epoch, const Uuid& nonce, const NodeId& primary) {
  if (!gone_.empty()) failGone();
  switch (member_.compare(epoch, nonce)) {
    case MemberCore::Claim::kLower: return false;
    case MemberCore::Claim::kSame: break;
    case MemberCore::Claim::kHigher: {
      if (!planted(PlantedFault::kDeposedCounts)) stepDown(primary);
      member_.raise(FencePromise{epoch, nonce});
      log_.promise(member_.promise());
      tasks_.add(log_.whenWritten().then([this, epoch]() { member_.promiseIsDurable(epoch); }));
      break;
    }
  }
  followed(primary);
  heardPrimary();
  return true;
}

void VolumeImpl::followed(const NodeId& primary) {
  if (primaryNode_ == primary) return;
  primaryNode_ = primary;
  watch_.follow(nowMs());
  moved_.notify();
}

// By an answer, which may be older than what is known here: where to ask next, and nothing else. It
// does not begin the time anew after which the primary is suspected.
void VolumeImpl::hinted(const NodeId& primary) {
  if (primary == primaryNode_ || primary == parts_.self.node || primary_ != nullptr ||
      takeover_ != nullptr) {
    return;
  }
  primaryNode_ = primary;
  moved_.notify();
}

void VolumeImpl::stepDown(const NodeId& primary) {
  if (primary_ == nullptr) return;
  KJ_LOG(INFO, "this node leads the volume no more", record_.name.c_str(),
         primary_->configuration().epoch);
  VolumeStatus counts;
  primary_->addTo(counts);
  proposals_ += counts.proposals;
  rejections_ += counts.rejections;
  confirmRounds_ += counts.confirmRounds;
  primary_->depose(primary);
  // One of its own calls may be under way.
  retired_.push_back(Retired{nowMs(), std::move(primary_)});
  moved_.notify();
}

void VolumeImpl::refusedBy(Epoch epoch, Epoch promised) {
  if (primary_ == nullptr || primary_->configuration().epoch != epoch) return;
  // Rule 10. Who took the higher epoch, the coordinator knows. Whoever it is has as long as any
  // primary to be heard of; then this node, as any other, may take an epoch itself.
  KJ_LOG(INFO, "a member has promised a higher epoch", record_.name.c_str(), epoch, promised);
  stepDown(NodeId());
  followed(NodeId());
  parts_.coordinatorWanted.notify();
}

void VolumeImpl::noteRecord(const VolumeRecord& record) {
  if (record.revision < record_.revision) return;
  record_ = record;
  const Epoch epoch = record.current.epoch;
  const bool active = record.phase == VolumePhase::kActive;
  if (primary_ != nullptr && active && epoch > primary_->configuration().epoch) {
    stepDown(record.current.primary.node);  // rule 10
  }
  if (active) moved_.notify();
  if (epoch < member_.promise().epoch || record.current.primary.node.empty()) return;
  // Rule 10: an epoch that is not active takes the lead from nobody who is heard.
  if (!active && hearsPrimary()) return;
  followed(record.current.primary.node);
}

void VolumeImpl::lead(const VolumeConfiguration& configuration) {
  // Invariants 3 and 8; the other places are CommitCounter and Takeover::run.
  // It may have been found damaged since the attempt began.
  KJ_REQUIRE(!mayNotLead(), "this member's copy of the volume is damaged");
  PACKMOOR_CHECK(primary_ == nullptr, "leading twice");
  const LogPosition adopted = log_.last();
  auto record = makeRecord(adopted.index.next(), configuration.epoch, adopted.hash,
                           RecordKind::kEpochStart, {}, encodeEpochStart(configuration));
  const RecordIndex start = record->index;
  applier_->pause(false);
  log_.append(kj::arrayPtr(&record, 1));
  primary_ = std::make_unique<Primary>(static_cast<PrimaryHost&>(*this), configuration, adopted,
                                       start);
  moved_.notify();
}

kj::Promise<void> VolumeImpl::whenStarted() {
  if (primary_ == nullptr) {
    return KJ_EXCEPTION(DISCONNECTED, "the takeover was superseded by a higher epoch");
  }
  return primary_->whenStarted();
}

void VolumeImpl::activate(const VolumeRecord& record) {
  PACKMOOR_CHECK(primary_ != nullptr, "activating without a role");
  const int64_t tookMs = nowMs() - takeoverSinceMs_;
  KJ_LOG(INFO, "this node leads the volume", record_.name.c_str(), record.current.epoch, tookMs);
  const int64_t revision = record_.revision;
  record_ = record;
  record_.revision = std::max(revision, record.revision);  // the next read tells the new one
  takeoverProblem_.clear();
  primary_->activate();
  moved_.notify();
}

void VolumeImpl::committed(Epoch epoch, RecordIndex index) {
  if (planted(PlantedFault::kDeposedCounts)) epoch = member_.promise().epoch;
  member_.verified(epoch, index);
  announced(epoch, index);
}

// The epoch's primary says so; the first time shows that the epoch is active (rule 8).
void VolumeImpl::announced(Epoch epoch, RecordIndex index) {
  const bool first = !member_.hasAnnounced();
  member_.announced(epoch, index);
  if (first && member_.hasAnnounced()) moved_.notify();
  advanced();
}

void VolumeImpl::advanced() {
  log_.keepCommitted(std::min(member_.committed(), log_.last().index));
  if (!member_.repairing()) applier_->wake();
}

void VolumeImpl::recordsApplied(RecordIndex first,
                                std::vector<kj::Array<const kj::byte>>& results) {
  if (primary_ != nullptr) primary_->recordsApplied(first, results);
}

void VolumeImpl::applyFailed(const kj::Exception& exception) {
  if (!stateDamaged()) noteStateDamage();
  if (!stateDamaged()) {
    damaged(kj::str("the state machine cannot go on: ", exception.getDescription()).cStr());
  }
  stepDown(NodeId());
}

kj::Promise<void> VolumeImpl::obtainExtents(std::vector<ExtentId> extents,
                                            std::vector<NodeId> holders) {
  return parts_.exchange.obtain(kj::mv(extents), kj::mv(holders));
}

// ---- Housekeeping ----------------------------------------------------------------------------

RecordIndex VolumeImpl::releasable(RecordIndex checkpoint) {
  if (primary_ != nullptr) everywhere_ = std::max(everywhere_, primary_->everywhere());
  // Members that are behind read from here, but the journal must not grow without end for them.
  const RecordIndex bound = log_.indexBeforeBytes(parts_.options.logRetainBytes);
  // What all had acknowledged one may lose to rot, and needs again (rule 17).
  const RecordIndex repair = log_.indexBeforeBytes(parts_.options.logRepairBytes);
  const RecordIndex acknowledged = std::min(everywhere_, repair);
  const RecordIndex kept = std::min(std::max(acknowledged, bound), keptForTransfers());
  return std::min(checkpoint, kept);
}

void VolumeImpl::tick() {
  const int64_t now = nowMs();
  while (!retired_.empty() && now - retired_.front().sinceMs >= kRetiredMs) {
    retired_.erase(retired_.begin());
  }
  if (watch_.tick(now)) lateTickMs_ = now;
  noteStateDamage();
  if (primary_ != nullptr) {
    primary_->yield(journalStuck());
    primary_->tick();
  }
  tickMembers();
  tickLoss();
  tickRoom();
  maybeLead();
  tickTransfer();
  if (member_.repairing() || !applier_->runs()) return;
  log_.release(std::min(releasable(applier_->checkpointed()), member_.committed()));
  const ReplicatorOptions& options = parts_.options;
  if (applier_->checkpointDue(options.checkpointBytes, now, options.checkpointIntervalMs) ||
      (applier_->applied() > applier_->checkpointed() &&
       stateMachine_->unflushedBytes() >= options.checkpointBytes &&
       now - applier_->lastCheckpointMs >= 1000)) {
    applier_->lastCheckpointMs = now;
    tasks_.add(applier_->checkpoint().catch_([](kj::Exception&& exception) {
      // On a full disk the next one comes when it is due again.
      if (exception.getType() != kj::Exception::Type::OVERLOADED) {
        kj::throwFatalException(kj::mv(exception));
      }
    }));
  }
}

void VolumeImpl::connectivityChanged() {
  if (primary_ != nullptr) primary_->connectivityChanged();
  if (takeover_ != nullptr) takeover_->connectivityChanged();
  maybeLead();
}

kj::Promise<void> VolumeImpl::checkpointNow() {
  applier_->lastCheckpointMs = nowMs();
  return canceler_.wrap(applier_->checkpoint());
}

Co<void> VolumeImpl::stop() {
  if (primary_ != nullptr && primary_->active()) {
    auto moved = co_await handOver();
    (void)moved;
  }
  stopped_ = true;
  stepDown(NodeId());
  if (!member_.repairing() && applier_->runs()) co_await applier_->checkpoint();
}

// A node that stops moves the lead first, to the standby that has most of the log; to another one where
// that refuses.
Co<bool> VolumeImpl::handOver() {
  std::vector<MemberStatus> standbys;
  for (const MemberStatus& member : primary_->memberStatus()) {
    if (!member.isSelf && member.counted && member.connected && member.acknowledged.value > 0) {
      standbys.push_back(member);
    }
  }
  std::stable_sort(standbys.begin(), standbys.end(), [](const auto& a, const auto& b) {
    return a.acknowledged > b.acknowledged;
  });
  for (const MemberStatus& standby : standbys) {
    auto moved = parts_.env.timer.timeoutAfter(kHandOverTimeoutMs * kj::MILLISECONDS,
                                               switchOver(standby.node));
    auto failure = co_await outcomeOf(kj::mv(moved));
    if (failure == nullptr) co_return true;
    KJ_IF_MAYBE(exception, failure) {
      KJ_LOG(INFO, "the lead could not be handed over", record_.name.c_str(),
             standby.node.c_str(), exception->getDescription());
    }
    if (primary_ == nullptr) co_return true;
  }
  co_return false;
}

// As the coordinator names them; how far they are only the primary knows.
void VolumeImpl::addMembers(VolumeStatus& status) {
  auto add = [&](const MemberIdentity& member, bool counted) {
    MemberStatus entry;
    entry.node = member.node;
    entry.counted = counted;
    entry.isSelf = member == parts_.self;
    entry.connected = entry.isSelf || parts_.peers.peer(member.node).connected();
    const auto& joining = record_.current.joining;
    entry.joining = std::find(joining.begin(), joining.end(), member) != joining.end();
    status.members.push_back(entry);
  };
  for (const MemberIdentity& member : record_.current.members) add(member, true);
  for (const MemberIdentity& member : record_.current.async) add(member, false);
}

void VolumeImpl::noteLevel() {
  if (heardCommitted_.value > 0 && applier_ != nullptr && applier_->applied() >= heardCommitted_) {
    levelMs_ = heardCommittedMs_;
  }
}

int64_t VolumeImpl::staleMs() {
  if (primary_ != nullptr && primary_->active()) return primary_->quorumSilentMs();
  noteLevel();
  return levelMs_ == 0 ? -1 : nowMs() - levelMs_;
}

VolumeStatus VolumeImpl::status() {
  VolumeStatus status;
  status.id = record_.id;
  status.name = record_.name;
  status.primary = primaryNode_;
  status.epoch = member_.promise().epoch;
  status.promised = member_.promise().epoch;
  status.writeQuorum = record_.current.writeQuorum;
  status.base = log_.base().index;
  status.last = log_.last().index;
  status.durable = log_.durable();
  status.committed = member_.committed();
  if (applier_ != nullptr) {
    status.applied = applier_->applied();
    status.checkpoint = applier_->checkpointed();
  }
  status.losses = record_.losses;
  status.diverged = divergedProblem();
  status.noConsent = toldNoConsent_;
  status.staleMs = staleMs();
  status.repairing = member_.repairing() || stateDamaged();
  addRepairTo(status);
  status.traits = record_.traits;
  status.proposals = proposals_;
  status.rejections = rejections_;
  status.readBarriers = readBarriers_;
  status.confirmRounds = confirmRounds_;
  status.role = isAsync(record_.current, parts_.self) ? VolumeRole::kAsync : VolumeRole::kStandby;
  if (!isMember(record_.current, parts_.self) && status.role != VolumeRole::kAsync) {
    status.role = VolumeRole::kNone;
    status.problem =
        namesNode(record_.current, parts_.self.node)
            ? "the configuration names this node with another journal: an empty disk is not the "
              "member that it replaces"
            : "this node is no member of the volume any more";
  }
  if (takeover_ != nullptr) status.role = VolumeRole::kTakingOver;
  if (primary_ != nullptr) {
    if (primary_->active()) status.role = VolumeRole::kPrimary;
    primary_->addTo(status);
  } else {
    addMembers(status);
  }
  addTransferTo(status);
  if (!status.diverged.empty()) {
    status.problem = status.diverged;
  } else if (status.repairing) {
    status.problem = repairProblem();
  } else if (!problem_.empty()) {
    status.problem = problem_;
  } else if (!takeoverProblem_.empty() && status.role != VolumeRole::kPrimary && !hearsPrimary()) {
    status.problem = takeoverProblem_;
  } else if (!noConsent_.empty() && !hearsPrimary()) {
    const std::string whom = primaryNode_.empty() ? "a primary" : "the primary " + primaryNode_;
    status.problem = "this node does not hear from " + whom +
                     ", and the members do not consent to a takeover: " + noConsent_;
  } else {
    status.problem = stateMachine_->problem();
  }
  if (!gone_.empty()) status.problem = gone_;
  return status;
}

}  // namespace packmoor::replicator
