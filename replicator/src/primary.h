// Primary: one node's lead of a volume in one epoch, from its EpochStart to its end.
//
// Why: what must end at once when the role is lost is one object: streams, counting, proposals and
// confirm rounds. It is made when EpochStart has been appended (rule 7), counts acknowledgements
// from then on, but commits, announces and answers nothing before activate() (rule 8). depose()
// ends it (rule 3); afterwards it does nothing but wait to be destroyed.
//
// Loop: the node's. The host (the volume) outlives it, and destroys it from a turn of its own,
// never from within one of its calls.
#pragma once

#include "append_times.h"
#include "kernelio/env.h"
#include "lag_brake.h"
#include "proposal_queue.h"
#include "quorum.h"
#include "read_rounds.h"
#include "replicator/replicator.h"
#include "standby_stream.h"

namespace packmoor::replicator {

class PrimaryHost {
 public:
  virtual MemberLog& log() = 0;
  virtual StateMachine& stateMachine() = 0;
  virtual kernelio::Env& env() = 0;
  virtual Peers& peers() = 0;
  virtual const ReplicatorOptions& options() = 0;
  virtual VolumeId volumeId() = 0;
  virtual RecordIndex appliedIndex() = 0;
  virtual Epoch lossEpoch() = 0;  // of the last loss that was accepted; 0: none
  // The checkpoint that a member fetches here: bytes given so far, and its position. False: none.
  virtual bool transferTo(const NodeId& member, uint64_t& bytes, RecordIndex& position) = 0;
  // Rule 15: this epoch's primary has counted W copies of everything up to `index`.
  virtual void committed(Epoch epoch, RecordIndex index) = 0;
  // Rule 10: a member has promised a higher epoch.
  virtual void refusedBy(Epoch epoch, Epoch promised) = 0;
  virtual kj::Promise<void> obtainExtents(std::vector<ExtentId> extents,
                                          std::vector<NodeId> holders) = 0;

 protected:
  ~PrimaryHost() = default;
};

class Primary final : private StreamHost, private ProposalHost, private RoundHost {
 public:
  static constexpr int64_t kAnnounceMs = 2;  // commits of this time are announced together
  static constexpr int64_t kHandOverMs = 500;

  // EpochStart is the record at `start`, already appended behind `adopted`.
  Primary(PrimaryHost& host, VolumeConfiguration configuration, LogPosition adopted,
          RecordIndex start);
  ~Primary() noexcept(false);
  KJ_DISALLOW_COPY(Primary);

  const VolumeConfiguration& configuration() const { return configuration_; }
  RecordIndex start() const { return start_; }
  bool active() const { return active_; }
  bool deposed() const { return deposed_; }
  RecordIndex committedIndex() const { return committed_; }

  // Rule 8: resolves when W members have EpochStart verified and durable; rejects when deposed.
  kj::Promise<void> whenStarted();
  // The compare-and-swap to active is known to have succeeded.
  void activate();
  // Rule 3: proposes nothing, counts nothing from this instant. `primary`: who may lead now.
  void depose(const NodeId& primary);

  kj::Promise<ProposeReply> propose(ProposeRequest request);
  // Resolves to the committed index at the call, confirmed. Only when active.
  kj::Promise<RecordIndex> confirmRead();
  // The same for a reader at another member, which said after the read began that it follows this
  // primary's epoch: that is its echo.
  kj::Promise<RecordIndex> confirmRead(const MemberIdentity& follower);

  void ownLogDurable();  // the own journal made records durable
  void recordsApplied(RecordIndex first, std::vector<kj::Array<const kj::byte>>& results);
  void tick();           // about every heartbeatMs
  // Gives way to another member: no heartbeats, no records, no new proposals until it ends. A
  // primary whose disk hangs does so; if nobody takes the lead meanwhile, it goes on.
  void yield(bool on);
  bool yields() const { return yields_; }
  // Before the lead is moved by order: orders nothing new for kHandOverMs; resolves when everything
  // ordered so far is committed and answered. Rejects when deposed.
  kj::Promise<void> drain();
  void endDrain();       // the lead stays here
  // Orders nothing until it is opened again: whether the volume is deleted is being decided.
  void close(bool on);
  void connectivityChanged();

  // Durable on every member, async ones included: nobody will ask for less.
  RecordIndex everywhere() const;
  // Has the async standby all but the last few records of what is committed? With `all`: everything that is
  // ordered.
  static constexpr uint64_t kJoinLagRecords = 32;
  bool hasCaughtUp(const MemberIdentity& standby, bool all);
  // Has it acknowledged anything of this epoch? Then its log is of this primary's history.
  bool hasAcknowledged(const MemberIdentity& member);
  // The lowest index that a member which is behind and gets on has; UINT64_MAX: none.
  RecordIndex neededByFollowers();
  std::vector<MemberStatus> memberStatus();
  // How long ago W members, this one among them, were last heard to follow.
  int64_t quorumSilentMs();
  void addTo(VolumeStatus& status);

 private:
  // StreamHost, ProposalHost and RoundHost
  MemberLog& log() override { return host_.log(); }
  StateMachine& stateMachine() override { return host_.stateMachine(); }
  kj::Timer& timer() override { return host_.env().timer; }
  Epoch epoch() override { return configuration_.epoch; }
  RecordIndex announceable() override { return committed_; }
  AppendRequest requestHeader() override;
  int64_t heartbeatMs() override { return host_.options().heartbeatMs; }
  bool silent() override { return yields_; }
  void acknowledged(size_t slot, RecordIndex index) override;
  void refused(Epoch promised) override;
  void appended() override;
  kj::Promise<void> whenConfirmed(RecordIndex index) override;
  kj::Promise<void> obtainExtents(std::vector<ExtentId> extents,
                                  std::vector<NodeId> holders) override;
  bool heldByQuorum(const std::vector<NodeId>& holders) override;
  void askToConfirm(size_t slot, uint64_t round) override;
  std::vector<size_t> slotsByPromptness() override;

  void counted();
  void holdProposals() { proposals_.hold(yields_ || draining_ || closed_); }
  void sampleLag();
  void announceSoon();
  kj::Maybe<StandbyStream&> streamTo(const MemberIdentity& member);
  kj::Promise<void> whenDrained();

  PrimaryHost& host_;
  const VolumeConfiguration configuration_;
  const RecordIndex start_;
  const size_t ownSlot_;
  bool active_ = false, deposed_ = false, announcing_ = false;
  bool yields_ = false;          // to whoever wants the lead
  bool draining_ = false;
  bool closed_ = false;
  RecordIndex committed_;        // 0 before activation
  CommitCounter counter_;
  Signal changed_;               // committed_, started or deposed
  ProposalQueue proposals_;
  ReadRounds rounds_;
  LagBrake brake_;
  AppendTimes times_;
  std::vector<kj::Own<StandbyStream>> streams_;   // counted ones have their slot, then async ones
  Tasks tasks_{"primary"};
};

}  // namespace packmoor::replicator
