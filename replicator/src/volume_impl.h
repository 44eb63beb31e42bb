// VolumeImpl: a volume on this node: member always, primary at times.
//
// Why: the protocol's parts are kept apart (MemberCore decides, MemberLog writes, Primary leads,
// Takeover becomes primary, Applier applies); this holds them together. It raises promises and
// ends roles in the same turn (rule 3), answers the other nodes, and serves fronts: a proposal or a
// read goes to the primary, wherever it is, and again when the lead moves.
//
// Sources: volume_impl.cc (life, roles), volume_takeover.cc (when this node tries to lead),
// volume_members.cc (changes of members, pairs), volume_end.cc (deleting it, and leaving it),
// volume_repair.cc (how a damaged member becomes whole again), volume_state_repair.cc (and how a damaged
// state does), volume_loss.cc (losses that an operator accepts), volume_peers.cc (what other nodes ask),
// volume_front.cc (what fronts ask), volume_transfer.cc (checkpoints from and to other nodes),
// volume_room.cc (a disk that is short of room).
//
// Lifetime: owned by the Replicator. What it returned to callers is cancelled when it goes.
// Loop: the node's.
#pragma once

#include "applier.h"
#include "checkpoint_offers.h"
#include "configuration_change.h"
#include "consent.h"
#include "disk_room.h"
#include "extent_exchange.h"
#include "primary.h"
#include "primary_watch.h"
#include "state_transfer.h"
#include "takeover.h"

#include <kj/async.h>

namespace packmoor::replicator {

// What a volume uses of its node; all outlive it.
struct VolumeParts {
  kernelio::Env& env;
  const ReplicatorOptions& options;
  MemberIdentity self;
  Journal& journal;
  ExtentStore& extents;
  ExtentExchange& exchange;
  Coordinator& coordinator;
  Peers& peers;
  DiskRoom& room;
  Signal& coordinatorWanted;   // notify: the coordinator's record should be read again
};

class VolumeImpl final : public Volume,
                         private PrimaryHost,
                         private TakeoverHost,
                         private ApplyHost,
                         private OfferHost,
                         private TransferHost {
 public:
  // After a failed attempt to lead. Doubles; times 1 to 2, at random.
  static constexpr int64_t kLeadPauseMsMin = 50, kLeadPauseMsMax = 1000;
  // After a round without consent: short at first, since the others may be about to find out.
  // Doubles; times 1 to 2, at random.
  static constexpr int64_t kConsentPauseMsMin = 25, kConsentPauseMsMax = 100;
  static constexpr int64_t kStaggerMs = 60;           // between members that could try to lead
  static constexpr int64_t kJitterMs = 15;
  static constexpr int64_t kDrainedRanks = 3;         // a drained member lets so many others go first
  // An epoch that is not active by then is not left to its candidate any longer.
  static constexpr int64_t kStalledTakeoverMs = 10'000;
  // Nor does the primary of the epoch before: what an order waits for (Takeover::kChangeTimeoutMs) is over.
  static constexpr int64_t kStalledAboveMs = 6000;
  static constexpr int64_t kParkMs = 2000;            // a candidate keeps requests so long
  static constexpr int64_t kRetiredMs = 1000;
  static constexpr int64_t kExtentWaitMs = 100;       // an append waits so long for an extent
  static constexpr int64_t kForwardTimeoutMs = 2000;
  static constexpr int64_t kCatchUpTimeoutMs = 30'000;
  static constexpr int64_t kHandOverTimeoutMs = 2000;  // of a node that stops
  static constexpr int64_t kDrainMs = 300;            // before a change
  static constexpr int64_t kJoinWaitMs = 200;         // for a joiner, while nothing new is ordered
  static constexpr int64_t kJoinPauseMs = 500;        // after a joiner could not be counted
  static constexpr int64_t kPartnerLostMs = 1000;     // a silent partner of a pair counts as lost
  static constexpr int64_t kPartnerWaitMs = 3000;     // after a start, for the partner to be there
  static constexpr int64_t kInstallPauseMs = 100;
  static constexpr int64_t kNoConsentMs = 3000;       // of it before it is told: nodes start and come back
  static constexpr int64_t kChangeWaitMs = 6000;      // for the change before; longer than that may take
  static constexpr int64_t kChangePollMs = 20;
  static constexpr int64_t kDeleteDrainMs = 2000;     // what is ordered is waited for
  static constexpr int64_t kDeleteRetryMs = 500;      // while it is not known whether it is deleted
  // The log is kept for members that fetch a checkpoint up to so many times its usual bound.
  static constexpr uint64_t kTransferLogFactor = 4;

  VolumeImpl(VolumeParts parts, VolumeRecord record, const RecoveredVolume& found,
             kj::Own<StateMachine> stateMachine);
  ~VolumeImpl() noexcept(false);
  KJ_DISALLOW_COPY(VolumeImpl);

  // Loads the state and compares it with the log. Until it resolves nothing else may be called.
  Co<void> open();
  // The coordinator's record, as read; older ones are ignored.
  void noteRecord(const VolumeRecord& record);
  void tick();  // every heartbeatMs
  // This node is not to have the volume any more: no role, no proposal, no read from here on. `why` is
  // a sentence for who asks. Call discard() once, in a later turn.
  void retire(std::string why);
  // Resolves when nothing of the volume but its entries in the journal is left on the disk.
  Co<void> discard();
  void connectivityChanged();  // what could not be reached is tried again at once
  // Stops proposing and makes a checkpoint.
  Co<void> stop();
  const VolumeConfiguration& configuration() const { return record_.current; }
  // The extents that its state names are known.
  bool stateKnown() const { return !stateAbsent_; }
  const NodeId& primaryNode() const { return primaryNode_; }
  const VolumeRecord& record() const { return record_; }
  // By order its diverged log is no more, durably: it is to be opened anew, as an empty member's.
  bool beginsAnew() const { return discardDurable_; }
  FencePromise promised() const { return member_.promise(); }

  // Volume
  const VolumeId& id() override { return record_.id; }
  const std::string& name() override { return record_.name; }
  StateMachine& stateMachine() override { return *stateMachine_; }
  kj::Promise<ProposeOutcome> propose(Proposal proposal) override;
  kj::Promise<RecordIndex> readBarrier() override;
  kj::Promise<void> whenApplied(RecordIndex index) override;
  kj::Promise<void> takeOver() override;
  kj::Promise<void> switchOver(NodeId node) override;
  kj::Promise<void> changeConfiguration(ConfigurationChange change) override;
  kj::Promise<bool> whenCounted(NodeId node, int64_t timeoutMs) override;
  LogKnowledge logKnowledge() override;
  kj::Promise<std::vector<RecordRef>> readLog(RecordIndex first) override;
  kj::Maybe<LogPosition> positionAt(RecordIndex index) override { return log_.position(index); }
  kj::Promise<void> acceptLoss(LossOrder order) override;
  kj::Promise<void> discardDiverged() override;
  kj::Promise<void> deleteForGood() override;
  kj::Promise<void> checkpointNow() override;
  kj::Promise<void> letGoOfDamaged(RecordIndex upTo) override;
  VolumeStatus status() override;

  // What other nodes ask (PeerService)
  kj::Promise<AppendReply> handleAppend(const NodeId& from, AppendRequest request);
  kj::Promise<FenceReply> handleFence(const NodeId& from, FenceRequest request);
  kj::Promise<FetchReply> handleFetch(FetchRequest request);
  LogPosition handleCommonPrefix(const CommonPrefixRequest& request);
  kj::Promise<ProposeReply> handlePropose(const NodeId& from, ProposeRequest request);
  bool isCandidate() const { return takeover_ != nullptr && primary_ == nullptr; }
  kj::Promise<ReadIndexReply> handleReadIndex(const NodeId& from, ReadIndexRequest request);
  ConfirmReply handleConfirm(const ConfirmRequest& request);
  kj::Promise<ConsentReply> handleConsent(const NodeId& from, const ConsentRequest& request);
  kj::Promise<OpenCheckpointReply> handleOpenCheckpoint(const NodeId& from,
                                                        OpenCheckpointRequest request);
  kj::Promise<ExtentBlockReply> handleReadCheckpoint(const NodeId& from,
                                                     CheckpointBlockRequest request);
  void handleCloseCheckpoint(const NodeId& from, const CloseCheckpointRequest& request);

 private:
  // PrimaryHost, TakeoverHost, ApplyHost
  MemberLog& log() override { return log_; }
  MemberCore& member() override { return member_; }
  kernelio::Env& env() override { return parts_.env; }
  Peers& peers() override { return parts_.peers; }
  Coordinator& coordinator() override { return parts_.coordinator; }
  const ReplicatorOptions& options() override { return parts_.options; }
  VolumeId volumeId() override { return record_.id; }
  const std::string& volumeName() override { return record_.name; }
  const MemberIdentity& selfIdentity() override { return parts_.self; }
  RecordIndex appliedIndex() override { return applier_->applied(); }
  Epoch lossEpoch() override {
    return record_.losses.empty() ? Epoch() : record_.losses.back().epoch;
  }
  bool transferTo(const NodeId& member, uint64_t& bytes, RecordIndex& position) override {
    return offers_.progressOf(member, bytes, position);
  }
  void committed(Epoch epoch, RecordIndex index) override;
  void refusedBy(Epoch epoch, Epoch promised) override;
  kj::Promise<void> obtainExtents(std::vector<ExtentId> extents,
                                  std::vector<NodeId> holders) override;
  bool claim(Epoch epoch, const Uuid& nonce, const NodeId& primary) override;
  kj::Promise<FenceReply> fenceSelf(FenceRequest request) override;
  void lead(const VolumeConfiguration& configuration) override;
  kj::Promise<void> whenStarted() override;
  bool leads() override { return primary_ != nullptr; }
  Epoch knownEpoch() override { return record_.current.epoch; }
  bool journalStuck() override;
  void lossAccepted(const AcceptedLoss& loss) override;
  void activate(const VolumeRecord& record) override;
  void takeoverProblem(std::string problem) override { takeoverProblem_ = std::move(problem); }
  void recordsApplied(RecordIndex first,
                      std::vector<kj::Array<const kj::byte>>& results) override;
  void applyFailed(const kj::Exception& exception) override;
  void logUnreadable(RecordIndex index, const kj::Exception& exception) override;
  RecordIndex releasable(RecordIndex checkpoint) override;

  // OfferHost and TransferHost
  kj::Promise<void> makeCheckpoint(std::string folder,
                                   kj::Function<void(const CheckpointContent&)> made) override;
  NodeId transferSource() override;
  bool transferWanted() override {
    const bool dropped = stateAt_.index < repairFloor_;
    return (transferWanted_ || stateDamaged() || dropped) && primary_ == nullptr;
  }
  std::string refuses(RecordIndex position) override;
  bool replacesState() override { return stateDamaged(); }
  kj::Promise<void> install(std::string folder, LogPosition position) override;

  // State transfer
  Co<void> makeCheckpointAlone(std::string folder,
                               kj::Function<void(const CheckpointContent&)> made);
  void noteBehind(const AppendRequest& request);
  void beginTransfer();
  // True: the primary does not have the extent either, which the next record names.
  Co<bool> isDropped(const NodeId& primary, ExtentId extent);
  void wantTransfer(const NodeId& primary, const char* why);
  void tickTransfer();
  RecordIndex keptForTransfers();
  Co<void> installWhenFree(std::string folder, LogPosition position);
  Co<void> installAlone(std::string folder, LogPosition position);
  void addTransferTo(VolumeStatus& status);

  // Roles
  void stepDown(const NodeId& primary);
  void followed(const NodeId& primary);
  void hinted(const NodeId& primary);
  void heardPrimary() { watch_.heard(nowMs()); }
  // Rule 9: does this member hear from a primary, or from a candidate that gets on?
  bool hearsPrimary();
  bool primaryIsActive() const;  // as known here, of the epoch that is promised
  void announced(Epoch epoch, RecordIndex index);
  Epoch highestEpoch() const;
  ConsentReply consentTo(const NodeId& from, const ConsentRequest& request);
  kj::Promise<void> beginTakeover(TakeoverCause cause);
  Co<void> runTakeover(TakeoverCause cause);
  Co<bool> handOver();                  // false: nobody took the lead
  void maybeLead();
  void tryAfter(int64_t milliseconds);
  int64_t staggerMs();
  Co<void> askAndLead(VolumeConfiguration target, bool bounded, Epoch expected);
  // Members and pairs
  Co<void> whenNothingChanges();
  Co<void> change(ConfigurationChange change);
  Co<void> deleteIt();
  Co<void> closeAndLook(Epoch epoch);
  Co<void> settleDeletion(VolumeRecord asked);
  void reopen(Epoch epoch);
  [[noreturn]] void failGone();
  kj::Promise<void> parkApplier();
  Co<void> changeTo(VolumeConfiguration target, kj::Maybe<MemberIdentity> joiner);
  Co<bool> waitCounted(NodeId node, int64_t timeoutMs);
  Co<void> countJoiner(MemberIdentity joiner);
  Co<void> goOnAlone(MemberIdentity lost);
  void requireMayChange();
  void tickMembers();
  bool endStalledAttempt();
  bool partnerIsLost(const MemberIdentity& partner);
  kj::Maybe<VolumeConfiguration> automaticTarget();

  // Loss that cannot be repaired, in volume_loss.cc
  bool unproven() const { return !isProven(record_, parts_.self, log_.last()); }
  bool isIgnored(const MemberIdentity& who) const;
  bool isLeftOut(const NodeId& node);
  bool mayFollow(const AppendRequest& request);
  Co<void> acceptLossAlone(LossOrder order);
  Co<void> endAttempt();
  void takeAsIs();
  Co<void> forgetDiverged();
  void requireProven();
  Co<std::vector<RecordRef>> readHere(RecordIndex first);
  std::string divergedProblem();
  std::string consentProblem();
  void tickLoss();

  void damaged(std::string problem);

  // Repair (rule 17), in volume_repair.cc
  void beginRepair();                   // once, from open()
  Co<void> repair();
  Co<bool> repairOnce();                // true: whole
  Co<bool> followForRepair(VolumeConfiguration& primary);
  void awaitActiveEpoch(const VolumeConfiguration& candidate);
  bool stallsFor(Epoch epoch, int64_t boundMs);
  Co<void> prepareRepair(const NodeId& primary);
  Co<void> pinForRepair(const RecordRef& record, const NodeId& primary);
  Co<bool> fetchPastDropped(const RecordRef& record, const NodeId& primary);
  Co<RecordIndex> askLastIndex(const VolumeConfiguration& primary);
  Co<void> becomeWhole();
  ReadIndexReply lastIndexFor(const ReadIndexRequest& request);
  void repairStep(std::string step, const NodeId& source = NodeId(), bool stuck = false);
  std::string repairProblem();          // a sentence: what is damaged, and how far the repair is
  void addRepairTo(VolumeStatus& status);

  // A damaged state, in volume_state_repair.cc
  bool stateDamaged() const { return !stateDamage_.empty(); }
  bool mayNotLead() const;              // invariant 8, and a state that cannot be gone on from
  bool isOnlyCopy() const;
  void noteStateDamage();
  void beginStateRepair(std::string damage);
  Co<LogPosition> openState();
  Co<void> repairState();
  Co<void> giveLeadAway(int64_t& pauseMs);
  void fetchState();
  Co<void> letGo(RecordIndex upTo);
  void stateReplaced();

  // A disk that is short of room, in volume_room.cc
  bool shortOfRoom();
  bool waitsForRoom();
  void tickRoom();
  Co<void> giveAwayForRoom();
  void requireRoom();
  std::string roomProblem();

  void advanced();
  Co<void> pinRecovered(RecordIndex applied);

  // Parts of handleAppend, takeOver and the front
  Co<AppendReply> append(AppendRequest request);
  bool writeRecords(const AppendRequest& request, const AppendPlan& plan,
                    std::vector<ExtentId>& missing);
  Co<FenceReply> fence(FenceRequest request);
  Co<FetchReply> fetch(FetchRequest request);
  Co<void> takeOverPlanned();
  Co<ProposeOutcome> proposeUntilDone(Proposal proposal);
  Co<void> addHolders(Proposal& proposal);
  Co<ProposeReply> proposeOnce(ProposeRequest request, int64_t deadlineMs);
  Co<ProposeReply> whenMoved(NodeId asked, int64_t deadlineMs);
  Co<RecordIndex> readUntilConfirmed();
  kj::Exception tooLate();
  kj::Promise<RecordIndex> confirmOnce();
  Co<void> forwardReads();
  kj::Promise<ReadIndexReply> askReadIndex();
  std::string tooLargeForJournal(size_t payloadBytes);
  kj::Promise<ProposeReply> proposeLeading(const NodeId& from, ProposeRequest request);
  Co<ProposeReply> proposeWhenLeading(NodeId from, ProposeRequest request);
  Co<ReadIndexReply> readIndexWhenLeading(NodeId from, ReadIndexRequest request);
  void addMembers(VolumeStatus& status);
  void noteLevel();
  int64_t staleMs();
  int64_t nowMs() { return monotonicMs(parts_.env.timer); }

  VolumeParts parts_;
  VolumeRecord record_;                 // as last seen at the coordinator
  kj::Own<StateMachine> stateMachine_;
  MemberLog log_;
  const LogPosition checkpointFound_;   // by the journal, at start
  MemberCore member_;
  std::unique_ptr<Applier> applier_;    // from open() on
  RecordIndex everywhere_;              // durable on every counted member

  NodeId primaryNode_;                  // who leads or will, as known here; empty: unknown
  std::unique_ptr<Primary> primary_;    // this node's lead, from EpochStart on
  struct Retired {
    int64_t sinceMs;
    std::unique_ptr<Primary> primary;
  };
  std::vector<Retired> retired_;        // deposed, kept until nothing of them runs any more
  std::unique_ptr<Takeover> takeover_;  // the running attempt
  kj::ForkedPromise<void> takeoverDone_ = nullptr;
  int64_t takeoverSinceMs_ = 0;
  PrimaryWatch watch_;                  // of primaryNode_
  int64_t lateTickMs_ = 0;              // when this node last found that it had not run
  int64_t leadAfterMs_ = 0, leadPauseMs_ = kLeadPauseMsMin;
  int64_t tryAtMs_ = 0;                 // when this node tries to lead; 0: nothing is suspected
  int64_t wakeAtMs_ = 0;                // the timer that is set for it
  bool asking_ = false;                 // for consent
  int64_t consentPauseMs_ = kConsentPauseMsMin;
  bool deferred_ = false;               // let a member with a newer log go first
  std::string noConsent_;               // why, when last asked; told once
  std::string toldDiverged_, toldNoConsent_;
  int64_t noConsentSinceMs_ = 0;        // 0: a takeover is not wanted, or can be made
  // An unproven member's log holds other records than the primary's behind this; zeros: it is not known
  // where they part.
  std::optional<LogPosition> partedAt_;
  bool acceptsAsIs_ = false;            // by order, its damaged copy is to become the volume's history
  // Of a diverged member: its log is no more; that is durable.
  bool discarded_ = false, discardDurable_ = false;
  bool stopped_ = false;
  bool changing_ = false;               // a change of the configuration is under way
  bool stalledTogether_ = false;        // a pair's last attempt with both of them did not succeed
  int64_t changeAfterMs_ = 0;           // no change that nobody ordered before
  int64_t openedMs_ = 0;
  // What the primary said last, when, and when this node had applied what it had said.
  RecordIndex heardCommitted_;
  int64_t heardCommittedMs_ = 0, levelMs_ = 0;
  int64_t partnerSilentSinceMs_ = 0;    // to questions for consent; 0: it answers
  int64_t partnerAwaySinceMs_ = 0;      // no connection to the other of the pair; 0: there is one
  Signal moved_;                        // role, primary or promise changed

  CheckpointOffers offers_;
  std::unique_ptr<StateTransfer> transfer_;   // the running one, or the last
  uint64_t transfersDone_ = 0;
  bool transferWanted_ = false;         // as the primary last said
  RecordIndex droppedAt_;               // a record whose extents were dropped; only a checkpoint leads past it
  bool installing_ = false;             // no takeover may begin

  std::vector<kj::Own<kj::PromiseFulfiller<RecordIndex>>> forwardedReads_;
  bool forwarding_ = false;

  std::string stateDamage_;             // what of the stored state is damaged; empty: nothing
  RecordIndex stateFloor_;              // a checkpoint below it would be of no use
  int64_t sourcelessSinceMs_ = 0;       // nobody leads of whom it could be fetched; 0: somebody does
  bool stateAbsent_ = false;            // there is no state to be read, or it is not the volume's

  bool journalSuspect_ = false;         // else it is extents that are to be repaired
  bool repairPrepared_ = false;
  LogPosition stateAt_;                 // where the durable state stood at start, or was installed
  RecordIndex pinnedTo_;                // what was found at start has its extents pinned up to here
  RecordIndex repairTarget_;            // what the primary had; 0: not known
  RecordIndex repairFloor_;             // a record whose extents nobody has any more: a state above it is needed
  Epoch stalledEpoch_;                  // of the coordinator, not active, as it was found
  int64_t stalledSinceMs_ = 0;
  std::string repairStep_;              // what the repair does or waits for
  NodeId repairSource_;                 // and from whom
  bool repairStuck_ = false;            // it gets on only by an operator's hand
  Signal repaired_;                     // records came while in repair

  bool givingAway_ = false;             // the lead, for want of room
  int64_t roomPauseMs_ = 0, roomRetryMs_ = 0;

  bool parked_ = false;                 // the applier does nothing any more
  std::string gone_;                    // a sentence: this node is not to have the volume any more
  std::string problem_, takeoverProblem_;
  uint64_t proposals_ = 0, rejections_ = 0, readBarriers_ = 0, confirmRounds_ = 0;
  Tasks tasks_{"volume"};
  kj::Canceler canceler_;
};

}  // namespace packmoor::replicator
