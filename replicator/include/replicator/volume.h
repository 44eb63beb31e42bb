// Volume: one replicated log as this node sees it, and what a front asks of it.
//
// Why: fronts, maintenance and the control socket need four things of a volume, on whichever
// node they run: propose a transaction, read consistently, move the lead, look at its status.
// How epochs, fences, quorum and apply work is behind it (volume_impl.h); the numbered rules of
// DESIGN section 6 are cited there.
//
// Loop: the node's.
#pragma once

#include "replicator/membership.h"
#include "replicator/peer.h"
#include "replicator/state_machine.h"

#include <kj/async.h>

namespace packmoor::replicator {

enum class VolumeRole : uint8_t { kNone, kStandby, kAsync, kTakingOver, kPrimary };
kj::StringPtr roleName(VolumeRole role);

struct MemberStatus {
  NodeId node;
  bool connected = false, counted = true, isSelf = false;
  bool joining = false;          // is to be counted once it has caught up
  int64_t silentMs = 0;          // since it was last heard (primary only)
  RecordIndex acknowledged;      // durable there in this epoch, as this node knows (primary only)
  uint64_t lagRecords = 0, lagBytes = 0;
  int64_t lagMs = 0;             // since the oldest record that it lacks was appended (primary only)
  std::string problem;           // empty, or a sentence: why it does not follow
};

// A checkpoint on its way to this node.
struct TransferStatus {
  bool running = false;
  NodeId source;
  RecordIndex position;          // of the checkpoint
  std::string phase;             // "asking", "comparing", "fetching", "installing"
  uint64_t files = 0, filesDone = 0, fileBytes = 0, fileBytesDone = 0;
  uint64_t extents = 0, extentsDone = 0, extentBytes = 0, extentBytesDone = 0;
  uint64_t bytesFetched = 0;     // since this process began it
  uint64_t bytesPerSecond = 0;   // of late
  uint64_t blocksRefetched = 0;  // that came damaged or not at all
  int64_t seconds = 0;           // since this process began it
  uint64_t installed = 0;        // transfers that this process has completed
  std::string problem;           // the last attempt's; empty: none
};

// How this node's damaged copy is made whole again.
struct RepairStatus {
  std::string damage;            // what was found; empty: nothing
  std::string step;              // what is done about it, or waited for
  NodeId source;                 // who gives back what is lost; empty: nobody yet
  RecordIndex reached, target;   // of the log that is taken again; target 0: not known, or not lost
  bool stuck = false;            // nothing gets on unless an operator does something
};

// What the primary does for members that are behind.
struct BrakeStatus {
  bool on = false;
  NodeId member;                 // the one that it waits for
  uint64_t lagBytes = 0, bytesPerSecond = 0;  // what is ordered at most
};

struct VolumeStatus {
  VolumeId id;
  std::string name;
  VolumeRole role = VolumeRole::kNone;
  NodeId primary;                // as known here; empty: unknown
  Epoch epoch, promised;
  uint32_t writeQuorum = 0;
  RecordIndex base, last, durable, committed, applied, checkpoint;
  bool repairing = false;
  VolumeTraits traits;
  RepairStatus repair;
  std::string problem;           // empty, or a sentence: why it does not serve
  std::vector<MemberStatus> members;
  std::vector<AcceptedLoss> losses;
  std::string diverged;          // empty, or a sentence: this member holds what is not the volume's history
  std::string noConsent;         // empty, or a sentence: a takeover is wanted and cannot be made
  TransferStatus transfer;
  BrakeStatus brake;
  // How long ago this node knew its state to be all that was committed, as far as it can tell; -1: it
  // never did.
  int64_t staleMs = -1;
  uint64_t proposals = 0, rejections = 0, readBarriers = 0, confirmRounds = 0;
};

// What this node knows of a volume's log, for those who must find out what is lost.
struct LogKnowledge {
  MemberIdentity member;
  bool whole = false;            // neither in repair nor diverged: its log may be adopted
  bool damaged = false;          // in repair, else it could be adopted
  bool diverged = false;         // an accepted loss ignored it, and it does not hold what came after
  bool leads = false;            // active, as far as it knows
  bool hearsPrimary = false;
  std::string problem;
  LogPosition last;
  RecordIndex base, committed;
  RecordIndex announced;         // the highest index that it was told is committed
  Epoch promised;
  std::vector<std::pair<NodeId, RecordIndex>> acknowledged;  // by others, to this node as their primary
};

// An operator's order to go on without some members (rule 19). It holds for the volume's record as it
// was when the operator was shown what is lost, and for nothing else.
struct LossOrder {
  int64_t revision = 0;                    // of that record
  std::vector<MemberIdentity> kept;        // counted from now on; all of them must answer
  std::vector<MemberIdentity> ignored;
  bool asIs = false;                       // the only one that is kept is damaged, and is taken as it is
  std::string by, what;                    // as in AcceptedLoss
};

struct ProposeOutcome {
  RecordIndex index;                 // the record's, or what the rejection rests on
  kj::Array<const kj::byte> result;  // of the state machine
};

class Volume {
 public:
  virtual ~Volume() noexcept(false) {}

  virtual const VolumeId& id() = 0;
  virtual const std::string& name() = 0;
  virtual StateMachine& stateMachine() = 0;

  // Orders a transaction. When it resolves, the record is durable on W members and applied at
  // the primary, or was rejected by the state machine on committed state. Works on any member:
  // goes to the primary, and again with the same txn id when the primary moves. Rejects when
  // that did not end within the bound (proposeTimeoutMs): the outcome is then unknown, which
  // the description says, or certainly not applied.
  virtual kj::Promise<ProposeOutcome> propose(Proposal proposal) = 0;

  // Linearizable read: resolves to an index that was committed at or after the call, once this
  // node has applied it. Rejects with a sentence when it cannot be confirmed within the bound.
  virtual kj::Promise<RecordIndex> readBarrier() = 0;
  virtual kj::Promise<void> whenApplied(RecordIndex index) = 0;

  // Makes this node the primary by a takeover (rules 1-8). Resolves when active.
  virtual kj::Promise<void> takeOver() = 0;
  // Asks `node` to do so, from any node. Planned: this volume stays writable up to the fence.
  virtual kj::Promise<void> switchOver(NodeId node) = 0;

  // At the primary: resolves when the changed configuration is active. A member that is added or
  // promoted is an async standby then; it is counted when it has caught up. Rejects with a sentence
  // when the change is not possible as things are, or when it was given up.
  virtual kj::Promise<void> changeConfiguration(ConfigurationChange change) = 0;
  // Resolves when the node is a counted member, as known here; false: not within the time.
  virtual kj::Promise<bool> whenCounted(NodeId node, int64_t timeoutMs) = 0;

  // ---- Loss that cannot be repaired (rules 5 and 19).
  virtual LogKnowledge logKnowledge() { return {}; }
  // Records from `first` as this node's log has them, damaged or diverged as it may be; none beyond its
  // end. Rejects at or below the log's base.
  virtual kj::Promise<std::vector<RecordRef>> readLog(RecordIndex first) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no log here");
  }
  // nullptr: outside of what is held here.
  virtual kj::Maybe<LogPosition> positionAt(RecordIndex index) { return nullptr; }
  // Makes this node, one of those kept, the primary of what they have. Resolves when active.
  virtual kj::Promise<void> acceptLoss(LossOrder order) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no log here");
  }
  // At a diverged member: forgets its log and state of the volume. Resolves when that is durable. This
  // object is retired then: the volume is opened anew, and follows as an empty member's.
  virtual kj::Promise<void> discardDiverged() {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no log here");
  }

  // At the primary, and only when the state machine holds nothing: the volume is gone for good when it
  // resolves, and no proposal can be ordered any more from before it was looked whether it is empty.
  // Rejects with a sentence; when the coordinator's answer is lost, with one that says so, and the
  // volume orders nothing until it is known.
  virtual kj::Promise<void> deleteForGood() = 0;

  virtual kj::Promise<void> checkpointNow() = 0;
  // Records up to this one lie in a damaged part of this node's journal. Makes a checkpoint above them
  // and lets them go, whoever may be behind; resolves when the log begins above them.
  virtual kj::Promise<void> letGoOfDamaged(RecordIndex upTo) { return kj::READY_NOW; }

  virtual VolumeStatus status() = 0;
};

}  // namespace packmoor::replicator
