// Replicator: all volumes of a node, over one journal and one extent store.
//
// It follows the coordinator's list of volumes (while the coordinator is away, what this node
// remembers of it), opens those that this node is a member of,
// serves the other nodes (PeerService) and replicates extents for fronts. It takes the lead of a
// volume at start when the coordinator's record names this node as primary, or when nobody
// has led yet and this node is the first member; on request; and when the members hear no more
// from the primary.
//
// One owner: the node (tools/packmoord). Loop: the node's. Order of destruction: the Replicator
// before the journal, the extents, the coordinator and the peers.
#pragma once

#include "kernelio/env.h"
#include "replicator/extent_store.h"
#include "replicator/journal.h"
#include "replicator/volume.h"

#include <kj/function.h>

namespace packmoor::replicator {

struct ReplicatorOptions {
  int64_t heartbeatMs = 50;
  int64_t suspectAfterMs = 300;             // of silence of a primary (rule 12)
  int64_t journalStuckMs = 1000;            // of one journal write: a primary gives way
  int64_t proposeTimeoutMs = 30'000;
  int64_t readTimeoutMs = 10'000;
  uint64_t checkpointBytes = 64ull << 20;   // journal bytes of a volume between checkpoints
  int64_t checkpointIntervalMs = 60'000;
  uint64_t logRetainBytes = 256ull << 20;   // kept below the checkpoint for members that are behind
  uint64_t logRepairBytes = 32ull << 20;    // and though all have it, for one whose journal rots
  uint64_t transferBytesPerSecond = 1ull << 30;  // of one checkpoint that is fetched; 0: no bound
  // Of the log, that a counted member which gets on may lag before the primary slows down.
  uint64_t lagBytesMax = 128ull << 20;
  // A node with less left on its disk gives leads to members that have more. 0: none does.
  uint64_t diskReserveBytes = 256ull << 20;
  // A node that is no member of a volume any more keeps its data so long.
  int64_t removedDataKeepMs = 24 * 3'600'000;
  // Leads are spread over the members by themselves, once nothing has changed for so long.
  bool autoBalance = false;
  int64_t autoBalanceQuietMs = 60'000;
};

// Data of a volume that this node is no member of any more (removal.h).
struct RemovalStatus {
  VolumeId id;
  std::string name;
  bool deleted = false;                     // the volume, not only this node's part in it
  bool discarding = false;                  // it is being removed
  int64_t leftMs = 0;                       // until it is
  std::string problem;                      // of the last attempt; empty: none
};

// Of this node's disk.
struct RoomStatus {
  bool isShort = false;                     // less than the reserve is left
  uint64_t availableBytes = 0, reserveBytes = 0;
};

struct NodeParts {
  kernelio::Env& env;
  NodeId self;
  Journal& journal;
  const RecoveryReport& recovered;          // copied where needed
  ExtentStore& extents;
  Coordinator& coordinator;
  Peers& peers;
};

// An extent that is written here and on every member of a volume at once.
class ReplicatedExtentWriter {
 public:
  virtual ~ReplicatedExtentWriter() noexcept(false) {}
  virtual ExtentId id() = 0;
  // Resolves when the next block may be given. Blocks may be written again before the seal.
  virtual kj::Promise<void> writeBlock(uint64_t block, kernelio::IoBuffer data) = 0;
  // For reading before the seal what was written. Resolves once this node's copy has every block
  // given so far, to the path of its data file in the operating system's terms; empty: none.
  virtual kj::Promise<kj::String> localData() { return kj::String(); }
  struct Sealed {
    ExtentInfo info;
    std::vector<NodeId> sealedOn;           // at least W members, this node among them
  };
  // Resolves when W members hold it sealed; streaming to the others goes on (rule 22). Rejects
  // when W cannot be reached. Dropping the writer before the seal abandons it everywhere.
  virtual kj::Promise<Sealed> seal(uint64_t bytes) = 0;
};

class Replicator : public PeerService {
 public:
  // `makeStateMachine` is called when a volume is opened on this node.
  using StateMachineFactory = kj::Function<kj::Own<StateMachine>(const VolumeRecord& volume)>;
  // Answers Peer::query with a null volume.
  using NodeQuery = kj::Function<kj::Promise<kj::Array<kj::byte>>(
      std::string name, kj::Array<const kj::byte> question)>;

  static kj::Own<Replicator> create(NodeParts parts, ReplicatorOptions options,
                                    StateMachineFactory makeStateMachine, NodeQuery nodeQuery);

  // Runs until dropped; rejects when the node cannot go on. Call once.
  virtual kj::Promise<void> run() = 0;

  virtual kj::Maybe<Volume&> findVolume(kj::StringPtr name) = 0;
  virtual std::vector<Volume*> volumes() = 0;   // by name; valid until the next turn of the loop
  // Those given in NodeParts: for questions to the other members (Peer::query).
  virtual Peers& peers() = 0;
  // Resolves once this node knows its volumes and all of them are open: before that, what is
  // not found here may still exist. Rejects after `timeoutMs`, which may be 0, with a sentence.
  virtual kj::Promise<void> whenReady(int64_t timeoutMs) = 0;
  // Resolves once the volume is open here; rejects after `timeoutMs`.
  virtual kj::Promise<void> whenOpen(std::string name, int64_t timeoutMs) = 0;

  virtual kj::Promise<kj::Own<ReplicatedExtentWriter>> beginExtent(Volume& volume) = 0;

  // Creates a volume in the coordinator: members must be registered nodes.
  virtual kj::Promise<VolumeRecord> createVolume(std::string name, std::vector<NodeId> members,
                                                 uint32_t writeQuorum,
                                                 VolumeTraits traits = {}) = 0;

  // What this node still has and is to remove.
  virtual std::vector<RemovalStatus> removals() = 0;

  virtual RoomStatus room() = 0;

  // Checkpoints every volume and stops proposing. For a clean shutdown.
  virtual kj::Promise<void> stop() = 0;
};

}  // namespace packmoor::replicator
