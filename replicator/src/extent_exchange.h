// ExtentExchange: extents between this node and the others.
//
// Why: a pack reaches a member in one of two ways. While it is being received, the front streams
// it to every member block by block (the incoming side here; ReplicatedExtentWriter sends). A
// member that missed that fetches it from one that has it, when a record names it. Either way
// it ends sealed in the extent store, verified block by block and by its root.
//
// Pins: a sealed extent starts with a pin, which is kept here until the extent is abandoned, or for as
// long as the front may still have its record proposed (rule 22): the time that a proposal may take, twice,
// since a transaction may have to be verified again. Where extents that nothing holds are kept for
// longer, it is longer, up to kPinMs. A record that names the extent pins it again when it is journaled
// (MemberLog). Should a front be slower than that, nothing is lost: a member journals no record whose
// extents it lacks (invariant 5), and the push fails.
//
// Bounds: an incoming extent is dropped when its front says so, when the connection to the front was
// lost and no block has come for kIdleMs since, or after kSilentMs. A front that lives may be silent
// for long: its client is slow, or it resolves the deltas of a large pack. Fetches keep kFetchWindow
// blocks in flight; the extent store bounds how many are written at a time.
//
// Loop: the node's. Store and peers outlive it.
#pragma once

#include "kernelio/co.h"
#include "replicator/extent_store.h"
#include "replicator/peer.h"
#include "wake_signal.h"
#include "tasks.h"

#include <algorithm>
#include <map>

namespace packmoor::replicator {

class ExtentExchange final {
 public:
  static constexpr int64_t kPinMs = 15 * 60 * 1000;
  static constexpr int64_t kIdleMs = 30'000;
  static constexpr int64_t kSilentMs = 3'600'000;
  static constexpr int64_t kStreamPauseMs = 1000;  // then a fetch takes the place of a stream
  static constexpr size_t kFetchWindow = 8;

  ExtentExchange(kernelio::Env& env, ExtentStore& extents, Peers& peers, int64_t proposeTimeoutMs)
      : env_(env),
        extents_(extents),
        peers_(peers),
        pinMs_(std::min(kPinMs, std::max(extents.expiryMs(), 2 * proposeTimeoutMs))) {}
  KJ_DISALLOW_COPY(ExtentExchange);

  // Resolves when all are sealed here. What is not is awaited while it streams in, else fetched
  // from the holders in turn. Rejects when none of them gives it.
  kj::Promise<void> obtain(std::vector<ExtentId> extents, std::vector<NodeId> holders);

  // Incoming, from a front on another node.
  kj::Promise<void> writeBlock(NodeId from, ExtentId id, uint64_t block, kernelio::IoBuffer data,
                               Hash128 checksum);
  kj::Promise<void> seal(NodeId from, ExtentId id, uint64_t bytes, Hash128 root);
  void abandon(const NodeId& from, ExtentId id);
  kj::Promise<ExtentBlockReply> readBlock(ExtentId id, uint64_t block);
  std::pair<uint64_t, Hash128> info(ExtentId id);

  // Keeps the pin that a seal made, or gives it back.
  void keepSealPin(ExtentId id);
  void dropSealPin(ExtentId id);

  void tick();  // about once a second: idle incoming extents and old pins

 private:
  struct Incoming {
    NodeId from;
    int64_t lastMs = 0;
    size_t busy = 0;                       // calls that use the writer
    bool sealing = false;
    bool lost = false;                     // the connection to the front was, since the last block
    kj::Own<ExtentWriter> writer;          // null while it is being begun
    kj::ForkedPromise<void> begun = nullptr;
  };

  Co<void> obtainOne(ExtentId id, std::vector<NodeId> holders);
  kj::Promise<void> fetchOnce(ExtentId id, std::vector<NodeId> holders);
  Co<void> fetch(ExtentId id, std::vector<NodeId> holders);
  Co<void> fetchFrom(ExtentId id, Peer& peer);
  Co<void> fetchBlocks(ExtentId id, Peer& peer, ExtentWriter& writer, uint64_t first,
                       uint64_t step, uint64_t blocks);
  std::shared_ptr<Incoming> incoming(const NodeId& from, ExtentId id);
  Co<void> begun(ExtentId id, std::shared_ptr<Incoming> entry);
  void drop(const ExtentId& id, const Incoming& entry);   // if it is the present one
  int64_t nowMs() { return monotonicMs(env_.timer); }

  kernelio::Env& env_;
  ExtentStore& extents_;
  Peers& peers_;
  const int64_t pinMs_;
  std::map<ExtentId, std::shared_ptr<Incoming>> incoming_;
  std::map<ExtentId, kj::ForkedPromise<void>> fetching_;
  std::map<ExtentId, int64_t> sealPins_;   // since when
  Tasks tasks_{"extents"};
};

}  // namespace packmoor::replicator
