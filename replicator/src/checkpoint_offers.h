// CheckpointOffers: checkpoints of one volume that this node keeps for members that fetch them.
//
// Why: a member that is far behind needs a state of the volume while the volume goes on. The state
// machine writes one into a folder of its own (hard links: no copy); the files never change, so
// the member reads them block by block, in parallel and over many restarts of its own.
//
// Bounds: one offer for each member; it ends when the member says so, or kLeaseMs after its last
// question. Folders of offers that a restart of this node left are removed: the receiver then gets
// a new checkpoint and keeps the blocks that are equal.
//
// While an offer lasts, the extents that its state names are pinned here, and the log behind it is
// kept as far as the volume allows (hold()).
//
// Loop: the node's. The state machine is asked through the host, between two rounds of applying.
#pragma once

#include "checkpoint_manifest.h"
#include "kernelio/co.h"
#include "kernelio/env.h"
#include "replicator/peer.h"
#include "replicator/state_machine.h"
#include "tasks.h"
#include "wake_signal.h"

#include <map>
#include <memory>

namespace packmoor::replicator {

class OfferHost {
 public:
  // Calls the state machine's makeCheckpoint, and then `made`, while nothing is applied.
  virtual kj::Promise<void> makeCheckpoint(std::string folder,
                                           kj::Function<void(const CheckpointContent&)> made) = 0;

 protected:
  ~OfferHost() = default;
};

class CheckpointOffers final {
 public:
  static constexpr int64_t kLeaseMs = 120'000;
  // After it was closed, the log is kept so long for the member to come and ask for it.
  static constexpr int64_t kTailMs = 60'000;
  static constexpr size_t kHashWindow = 8;   // blocks that are read ahead for their checksums

  CheckpointOffers(OfferHost& host, kernelio::Env& env, ExtentStore& extents, std::string folder)
      : host_(host), env_(env), extents_(extents), folder_(std::move(folder)) {}
  ~CheckpointOffers() noexcept(false);
  KJ_DISALLOW_COPY(CheckpointOffers);

  // The folder of a volume's offers below the disk's root.
  static std::string folderOf(const VolumeId& volume) { return kj::str("offers/", volume).cStr(); }

  // Removes what an earlier process left. Once, before anything else.
  kj::Promise<void> clean() { return env_.disk.removeTree(folder_); }

  kj::Promise<OpenCheckpointReply> open(NodeId from, OpenCheckpointRequest request);
  kj::Promise<ExtentBlockReply> readBlock(const NodeId& from, CheckpointBlockRequest request);
  void close(const NodeId& from, const Uuid& checkpoint);
  void tick();

  // The lowest position that members still need the log from; UINT64_MAX: none.
  RecordIndex hold() const;
  // The member has the log up to here: it needs no hold below it.
  void reached(const NodeId& member, RecordIndex index);
  // Bytes that the member has been given, ever; its offer's position. False: none.
  bool progressOf(const NodeId& member, uint64_t& bytes, RecordIndex& position) const;

 private:
  struct Offer {
    Uuid id;
    std::string folder;
    CheckpointManifest manifest;
    kj::Array<kj::byte> encoded;
    Hash128 hash;
    std::vector<kj::Own<kernelio::File>> files;
    std::vector<ExtentId> pinned;
    bool ready = false, closed = false;
    bool replaces = false;   // a damaged state: however far the member's log is
    int64_t usedMs = 0;
    uint64_t bytesRead = 0;
    kj::ForkedPromise<void> made = nullptr;
  };
  Co<OpenCheckpointReply> openWhenMade(std::shared_ptr<Offer> offer);
  Co<void> make(Offer& offer);
  Co<void> describe(Offer& offer);
  Co<void> addFile(Offer& offer, std::string name);
  Co<ExtentBlockReply> read(std::shared_ptr<Offer> offer, CheckpointBlockRequest request);
  void drop(Offer& offer);
  int64_t nowMs() { return monotonicMs(env_.timer); }

  OfferHost& host_;
  kernelio::Env& env_;
  ExtentStore& extents_;
  const std::string folder_;
  std::map<NodeId, std::shared_ptr<Offer>> offers_;
  Tasks removals_{"checkpoint offers"};
};

}  // namespace packmoor::replicator
