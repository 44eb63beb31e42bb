// Coordinator: the small linearizable store that decides who may lead a volume.
//
// Why: consensus is not ours to invent. The coordinator holds one record per volume and changes
// it by compare-and-swap of the whole revision (DESIGN rule 1); everything below that needs no
// coordinator. Implementations: etcd (rpc/etcd_coordinator.h), a durable file for a single
// node (local_coordinator.h), and the simulator's.
//
// Reads are linearizable. After an unknown result of a compare-and-swap (a rejected promise),
// the caller reads again: the epoch is its own only if the nonce is.
#pragma once

#include "replicator/types.h"

#include <kj/async.h>
#include <kj/function.h>

#include <optional>
#include <string>
#include <vector>

namespace packmoor::replicator {

// A member is a node with the journal it had when it joined: an empty disk is not that member.
struct MemberIdentity {
  NodeId node;
  Uuid journal;
  bool operator==(const MemberIdentity&) const = default;
};

struct VolumeConfiguration {
  Epoch epoch;
  MemberIdentity primary;
  Uuid nonce;                             // of the attempt that took the epoch
  std::vector<MemberIdentity> members;    // counted ones, in the order given at creation
  std::vector<MemberIdentity> async;      // never counted
  uint32_t writeQuorum = 0;
  std::vector<MemberIdentity> joining = {};  // of `async`: to be counted once they have caught up

  bool hasMember(const NodeId& node) const;
  bool operator==(const VolumeConfiguration&) const = default;
};

enum class VolumePhase : uint8_t { kRecovering, kActive };

// What a volume is made with, besides its members.
struct VolumeTraits {
  // Two members that both acknowledge; when one is lost, the other goes on alone (rule 19).
  bool pair = false;
  uint32_t weight = 100;                   // of new repositories that name no volume; 0: none
  std::vector<NodeId> drained = {};        // members that lead only where no other can
  // The volume is gone for good. Its record stays, so that a node that was away learns of it by what
  // the coordinator says, and never by what it does not say. The name may be used again, by a record
  // that names the volumes that were deleted under it.
  bool deleted = false;
  std::vector<VolumeId> former = {};
  bool operator==(const VolumeTraits&) const = default;
};

// An operator accepted that a takeover fences fewer members than rule 5 asks for (rule 19). From then on
// the newest log of those that were kept is the volume's history; what only the others held is lost.
struct AcceptedLoss {
  Epoch epoch;                             // of the takeover; every record after it has this or a later one
  LogPosition adopted;                     // where the history stood that goes on
  std::vector<MemberIdentity> kept;        // were asked, and are counted from then on
  std::vector<MemberIdentity> ignored;     // counted members that were not; they may hold other records
  uint32_t writeQuorum = 1;                // from then on
  int64_t atMs = 0;                        // wall clock
  std::string by;                          // who ordered it
  std::string what;                        // what was known to be lost: a sentence
  bool acknowledged = false;               // status tells it no more
  bool operator==(const AcceptedLoss&) const = default;
};
constexpr size_t kAcceptedLossesMax = 64;  // of one volume
constexpr size_t kLossTextBytesMax = 4096;

struct VolumeRecord {
  VolumeId id;
  std::string name;                        // [a-z0-9][a-z0-9-]{0,62}
  VolumeConfiguration current;             // epoch 0 at creation: nobody has led yet
  VolumePhase phase = VolumePhase::kRecovering;
  // Absent until the first activation; while it is absent, `current.members` of epoch 0 is
  // what the first takeover fences.
  std::optional<VolumeConfiguration> lastActive;
  VolumeTraits traits;
  std::vector<AcceptedLoss> losses = {};   // the oldest first; never removed
  int64_t revision = 0;                    // of the coordinator, for the compare; 0: to be created
};

struct NodeRegistration {
  NodeId node;
  Uuid journal;
  std::string rpcAddress;                  // host:port of the peer endpoint
  std::string httpAddress;                 // host:port of the git endpoint
  std::string version;
};

class Coordinator {
 public:
  virtual ~Coordinator() noexcept(false) {}

  virtual kj::Promise<std::optional<VolumeRecord>> readVolume(std::string name) = 0;
  virtual kj::Promise<std::vector<VolumeRecord>> listVolumes() = 0;
  // True: `next` is stored (its revision field is ignored). False: the stored revision is not
  // `next.revision` any more (0: the volume exists). Rejected: unknown, read again.
  virtual kj::Promise<bool> compareAndSwap(VolumeRecord next) = 0;

  virtual kj::Promise<void> registerNode(NodeRegistration registration) = 0;
  virtual kj::Promise<std::vector<NodeRegistration>> listNodes() = 0;

  // Resolves when something may have changed since the call before; spurious wakes allowed.
  virtual kj::Promise<void> changed() = 0;

  virtual kj::StringPtr kind() = 0;        // "etcd", "local", "sim"
  virtual bool reachable() = 0;            // as of the last request

  // Empty, or a sentence: the coordinator has a different past than this node knows (rule 18). Then
  // reads and compare-and-swaps reject, and this node promises nothing to others: nobody takes over.
  virtual std::string doubt() { return {}; }
  // The records as this node durably remembers them: enough to open volumes and to follow while the
  // coordinator is away, never to lead.
  virtual std::vector<VolumeRecord> remembered() { return {}; }
};

}  // namespace packmoor::replicator
