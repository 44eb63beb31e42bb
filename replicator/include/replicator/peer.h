// Peer and PeerService: what nodes say to each other, without the wire.
//
// Why: the replicator runs over Cap'n Proto in production (rpc/) and over a simulated network
// in tests; it knows neither. It sends through Peer and is called through PeerService.
//
// Delivery: messages to one peer may be lost, late, repeated or reordered; the protocol does
// not depend on order, though it is fastest in order. A rejected promise means "unknown": the
// other side may or may not have acted. DISCONNECTED says that no connection could be made or
// that it broke; OVERLOADED that the other side asks to slow down.
//
// Bounds: a request's records are at most kAppendBytesMax together (a larger single one goes
// alone). Every message names the volume and the epoch it speaks for. The receiver knows the
// sender's node id from the transport's authentication, and passes it as `from`.
#pragma once

#include "kernelio/io_buffer.h"
#include "replicator/coordinator.h"
#include "replicator/types.h"

#include <kj/async.h>
#include <kj/debug.h>

namespace packmoor::replicator {

constexpr size_t kAppendBytesMax = 1u << 20;
constexpr size_t kInFlightBytesMax = 64u << 20;
constexpr size_t kInFlightRecordsMax = 4096;

// Primary to member: records behind `previous`, or none (heartbeat, commit announcement).
struct AppendRequest {
  VolumeId volume;
  Epoch epoch;
  Uuid nonce;
  MemberIdentity primary;
  Uuid member;                       // journal of the member addressed: any other does not answer
  LogPosition previous;              // what the first record follows
  std::vector<RecordRef> records;    // consecutive, from previous.index + 1
  RecordIndex committed;             // announced as committed in this epoch; 0 before activation
  RecordIndex everywhere;            // durable on every counted member: no one asks for less
  // A position of the receiver's log, as the receiver has told it, from which this primary's log
  // does not go on any more: the receiver needs a checkpoint.
  std::optional<LogPosition> behind;
  Epoch lossEpoch;                   // of the last accepted loss of the volume; 0: none
};
struct AppendReply {
  enum class Outcome : uint8_t {
    kDurable,     // `position`: min(verified against this sender in this epoch, durable) (rule 14)
    kMismatch,    // `previous` is not in the log; `position`: where to try next (at or below it)
    kRefused,     // a higher epoch was promised: `promised`
    kRepairing,   // the member may not acknowledge
    kBehind,      // the record at `previous` lies below the member's log: nothing to compare
    kNotMember,   // unknown volume or journal identity changed
  };
  Outcome outcome = Outcome::kDurable;
  Epoch epoch;                       // of the request that is answered
  Epoch promised;
  LogPosition position;
};

// Would-be primary to members of the last active configuration (rules 3-5, 11).
struct FenceRequest {
  VolumeRecord coordinator;          // as stored by the compare-and-swap; current.epoch is promised
  // By an operator's order, of the members of the configuration to be: those that are kept.
  bool acceptsLoss = false;
};
struct FenceReply {
  bool promised = false;             // durable, with everything appended before it
  Epoch highest;                     // the highest promise of this member
  bool repairing = false;            // promised but not to be counted
  MemberIdentity member;
  LogPosition last;                  // of the last record, or of the checkpoint when none follows
  RecordIndex base;                  // the log below it is gone here
};

struct FetchRequest {                // records [first, last] for adoption and catch-up
  VolumeId volume;
  Epoch epoch;                       // of the asking primary
  RecordIndex first, last;
};
struct FetchReply {
  std::vector<RecordRef> records;    // consecutive from `first`, maybe fewer; empty: not held
};
// Where do our logs agree? The positions that the asker holds, ascending. The answer is the highest
// that the other holds, too, else one that is committed there; the asker compares it with its own.
struct CommonPrefixRequest {
  VolumeId volume;
  std::vector<LogPosition> positions;
};

struct ProposeRequest {
  VolumeId volume;
  TxnId txn;
  RecordKind kind{};
  std::vector<ExtentId> extents;
  std::vector<NodeId> sealedOn;      // members known to hold all of the extents sealed
  kj::Array<const kj::byte> payload;
};
struct ProposeReply {
  enum class Outcome : uint8_t {
    kDone,          // committed and applied at `index`, or rejected by the state machine
    kNotPrimary,    // try `primary`, if given
    kUnavailable,   // nothing was proposed: `reason`
    kUnknown,       // proposed, and then the role was lost: ask again with the same txn id
  };
  Outcome outcome = Outcome::kUnknown;
  RecordIndex index;                 // kDone: of the record, or what the rejection rests on
  kj::Array<const kj::byte> result;  // kDone: the state machine's answer
  NodeId primary;
  std::string reason;
};

// A member's reader asks the primary for its committed index. What the asker says of itself was true
// after the read began, so it counts as its echo of the round that the read needs.
struct ReadIndexRequest {
  VolumeId volume;
  Uuid member;                       // journal of the asker
  Epoch follows;                     // what it has promised; 0: it does not follow (in repair)
  Uuid nonce;                        // of that promise
  // A member in repair (rule 17) has promised `follows` and asks for the last index. Nobody confirms
  // the answer: that may need this member.
  bool repairs = false;
};
struct ReadIndexReply {
  bool ok = false;                   // else not the primary, or could not be confirmed: `reason`
  Epoch epoch;
  RecordIndex committed;
  NodeId primary;                    // a hint when not ok
  std::string reason;
  RecordIndex last;                  // of the primary's log, committed or not; only when it repairs
};

struct ConfirmRequest {              // a numbered round of a read (DESIGN section 6, Reads)
  VolumeId volume;
  Uuid member;                       // as in AppendRequest
  Epoch epoch;
  uint64_t round = 0;
};
struct ConfirmReply {
  bool follows = false;              // not in repair and no promise above `epoch`
  uint64_t round = 0;
  Epoch promised;
};

// A member that would like to take the lead, to the others, before it takes an epoch (rule 9). Binds
// nobody.
struct ConsentRequest {
  VolumeId volume;
  MemberIdentity candidate;
  Epoch epoch;                       // the highest that the candidate knows of
  LogPosition last;                  // of its log
  // By order of an operator, to the primary: order nothing new for a moment, and answer when all
  // that was ordered is committed.
  bool handOver = false;
};
struct ConsentReply {
  bool consents = false;             // not hearing from a primary, whole, and able to follow
  MemberIdentity member;
  Epoch promised;
  LogPosition last;                  // of the member's log
  std::string reason;                // why it does not consent
};

struct ExtentBlockReply {
  kernelio::IoBuffer data;
  Hash128 checksum;
};

// State transfer: a member that needs records which nobody's log holds any more asks for a checkpoint
// of the volume, which is kept for it while it reads (checkpoint_offers.h).
struct OpenCheckpointRequest {
  VolumeId volume;
  Uuid member;                       // journal of the asker
  Uuid resume;                       // a checkpoint that it has begun to read; null: none
  bool replaces = false;             // the asker's state is damaged, and its log goes on
};
struct OpenCheckpointReply {
  Uuid checkpoint;                   // `resume` when that is still kept
  LogPosition position;
  uint64_t manifestBytes = 0;        // read as file 0 (checkpoint_manifest.h)
  Hash128 manifestHash;
};
struct CheckpointBlockRequest {
  VolumeId volume;
  Uuid checkpoint;
  uint32_t file = 0;                 // 0: the manifest; then its files in order, from 1
  uint64_t block = 0;                // of kBlockBytes
};
struct CloseCheckpointRequest {
  VolumeId volume;
  Uuid checkpoint;
};

class Peer {
 public:
  virtual ~Peer() noexcept(false) {}
  virtual const NodeId& node() = 0;
  virtual bool connected() = 0;
  // There is no connection, and the last attempt to make one was refused: no process of the node
  // is there (rule 12).
  virtual bool refused() = 0;

  virtual kj::Promise<AppendReply> append(AppendRequest request) = 0;
  virtual kj::Promise<FenceReply> fence(FenceRequest request) = 0;
  virtual kj::Promise<FetchReply> fetch(FetchRequest request) = 0;
  virtual kj::Promise<LogPosition> commonPrefix(CommonPrefixRequest request) = 0;
  virtual kj::Promise<ProposeReply> propose(ProposeRequest request) = 0;
  virtual kj::Promise<ReadIndexReply> readIndex(ReadIndexRequest request) = 0;
  virtual kj::Promise<ConfirmReply> confirm(ConfirmRequest request) = 0;
  virtual kj::Promise<ConsentReply> consent(ConsentRequest request) = 0;
  // Asks the node to become primary of the volume; resolves when it is active.
  virtual kj::Promise<void> takeOver(VolumeId volume) = 0;

  // Extents travel on the bulk connection. writeExtentBlock resolves when the next block may
  // be sent (flow control), not when it is written; its failures surface at sealExtent.
  virtual kj::Promise<void> writeExtentBlock(ExtentId id, uint64_t block,
                                             kernelio::IoBuffer data, Hash128 checksum) = 0;
  virtual kj::Promise<void> sealExtent(ExtentId id, uint64_t bytes, Hash128 root) = 0;
  virtual kj::Promise<void> abandonExtent(ExtentId id) = 0;
  virtual kj::Promise<ExtentBlockReply> readExtentBlock(ExtentId id, uint64_t block) = 0;
  // Size 0 and a null root: not sealed there.
  virtual kj::Promise<std::pair<uint64_t, Hash128>> extentInfo(ExtentId id) = 0;

  // Checkpoints travel on the bulk connection too. Opening one takes as long as making it.
  virtual kj::Promise<OpenCheckpointReply> openCheckpoint(OpenCheckpointRequest request) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no checkpoints here");
  }
  virtual kj::Promise<ExtentBlockReply> readCheckpointBlock(CheckpointBlockRequest request) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no checkpoints here");
  }
  virtual kj::Promise<void> closeCheckpoint(CloseCheckpointRequest request) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no checkpoints here");
  }

  // A question to the state machine or the node (`volume` null), answered by name; what the
  // bytes mean is between the two ends.
  virtual kj::Promise<kj::Array<kj::byte>> query(VolumeId volume, std::string name,
                                                 kj::Array<const kj::byte> question) = 0;
};

// The node's view of all others. Implemented by the transport.
class Peers {
 public:
  virtual ~Peers() noexcept(false) {}
  virtual const NodeId& self() = 0;
  // Never fails: an unknown or unreachable node's Peer rejects what is sent to it. The
  // reference stays valid for the life of Peers.
  virtual Peer& peer(const NodeId& node) = 0;
  // Resolves when the connection to any node was made, lost or refused since the call before.
  virtual kj::Promise<void> connectivityChanged() = 0;
};

// The receiving side, implemented by Replicator. `from` is authenticated.
class PeerService {
 public:
  virtual ~PeerService() noexcept(false) {}
  virtual kj::Promise<AppendReply> append(const NodeId& from, AppendRequest request) = 0;
  virtual kj::Promise<FenceReply> fence(const NodeId& from, FenceRequest request) = 0;
  virtual kj::Promise<FetchReply> fetch(const NodeId& from, FetchRequest request) = 0;
  virtual kj::Promise<LogPosition> commonPrefix(const NodeId& from,
                                                CommonPrefixRequest request) = 0;
  virtual kj::Promise<ProposeReply> propose(const NodeId& from, ProposeRequest request) = 0;
  virtual kj::Promise<ReadIndexReply> readIndex(const NodeId& from,
                                                 ReadIndexRequest request) = 0;
  virtual kj::Promise<ConfirmReply> confirm(const NodeId& from, ConfirmRequest request) = 0;
  virtual kj::Promise<ConsentReply> consent(const NodeId& from, ConsentRequest request) = 0;
  virtual kj::Promise<void> takeOver(const NodeId& from, VolumeId volume) = 0;
  // Resolves when the block is written (buffered); the transport's stream waits for it.
  virtual kj::Promise<void> writeExtentBlock(const NodeId& from, ExtentId id, uint64_t block,
                                             kernelio::IoBuffer data, Hash128 checksum) = 0;
  virtual kj::Promise<void> sealExtent(const NodeId& from, ExtentId id, uint64_t bytes,
                                       Hash128 root) = 0;
  virtual kj::Promise<void> abandonExtent(const NodeId& from, ExtentId id) = 0;
  virtual kj::Promise<ExtentBlockReply> readExtentBlock(const NodeId& from, ExtentId id,
                                                        uint64_t block) = 0;
  virtual kj::Promise<std::pair<uint64_t, Hash128>> extentInfo(const NodeId& from,
                                                               ExtentId id) = 0;
  virtual kj::Promise<OpenCheckpointReply> openCheckpoint(const NodeId& from,
                                                          OpenCheckpointRequest request) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no checkpoints here");
  }
  virtual kj::Promise<ExtentBlockReply> readCheckpointBlock(const NodeId& from,
                                                            CheckpointBlockRequest request) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no checkpoints here");
  }
  virtual kj::Promise<void> closeCheckpoint(const NodeId& from, CloseCheckpointRequest request) {
    return KJ_EXCEPTION(UNIMPLEMENTED, "no checkpoints here");
  }
  virtual kj::Promise<kj::Array<kj::byte>> query(const NodeId& from, VolumeId volume,
                                                 std::string name,
                                                 kj::Array<const kj::byte> question) = 0;
};

}  // namespace packmoor::replicator
