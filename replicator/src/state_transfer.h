// StateTransfer: fetches a checkpoint of a volume from the member that leads it, and has it installed.
//
// Why: the journal is bounded, so a member that was away for long, or that is new, needs records
// which no log holds any more. It gets the state as files instead, and the records after it.
//
// What it does: asks for a checkpoint (kept there while it reads, checkpoint_offers.h), compares what
// an earlier attempt left in the staging folder with the manifest, fetches the blocks and extents that
// are missing, kLanes at a time, makes them durable, and calls the host's install().
//
// Restarts: a block that is here and has the checksum that the manifest names is never fetched
// again, whichever checkpoint or source it came from; so nothing needs to be known of the progress
// but the note beside the files, which names the checkpoint that was being read. Extents
// that are sealed stay, too. Failures are retried without end, from whoever leads by then.
//
// Until install() the member is what it was: its log is old but honest. It acknowledges nothing new.
//
// Loop: the node's. The host outlives it, and destroys it from a turn of its own.
#pragma once

#include "checkpoint_manifest.h"
#include "extent_exchange.h"
#include "kernelio/co.h"
#include "rate_limit.h"
#include "replicator/volume.h"

#include <deque>
#include <map>
#include <set>

namespace packmoor::replicator {

class TransferHost {
 public:
  // Who leads, as known here; empty: nobody, or this node.
  virtual NodeId transferSource() = 0;
  // False: this member follows, or leads, without it.
  virtual bool transferWanted() = 0;
  // Empty, or why a checkpoint at this index is of no use here.
  virtual std::string refuses(RecordIndex position) = 0;
  // The state here is damaged: it is replaced, and the log goes on.
  virtual bool replacesState() = 0;
  // Makes the files in `folder` the state of the volume, by one record of the journal.
  virtual kj::Promise<void> install(std::string folder, LogPosition position) = 0;

 protected:
  ~TransferHost() = default;
};

struct TransferParts {
  kernelio::Env& env;
  ExtentStore& extents;
  ExtentExchange& exchange;
  Peers& peers;
  VolumeId volume;
  Uuid member;               // this node's journal
  uint64_t bytesPerSecond;   // 0: no bound
};

class StateTransfer final {
 public:
  static constexpr size_t kLanes = 8;
  static constexpr size_t kExtentLanes = 4;      // extents at a time, each with kExtentWindow blocks
  static constexpr size_t kExtentWindow = 4;
  static constexpr int kBlockTries = 4;
  static constexpr int64_t kTryPauseMs = 50;     // doubles
  static constexpr int64_t kBlockTimeoutMs = 20'000;
  static constexpr int64_t kOpenTimeoutMs = 600'000;
  static constexpr int64_t kPauseMsMin = 100, kPauseMsMax = 5000;  // between attempts; doubles

  StateTransfer(TransferHost& host, TransferParts parts);
  ~StateTransfer() noexcept(false);
  KJ_DISALLOW_COPY(StateTransfer);

  // The folder of a volume's transfer below the disk's root.
  static std::string folderOf(const VolumeId& volume);
  // At start: removes what belongs to a transfer that is over, because the state is at or above it.
  static kj::Promise<void> clean(kernelio::Disk& disk, VolumeId volume, RecordIndex checkpointed);

  void begin();
  bool done() const { return done_; }
  TransferStatus status();

 private:
  struct Staged {               // a file of the checkpoint
    kj::Own<kernelio::File> file;
    uint64_t missing = 0;       // blocks
  };
  struct Block {
    size_t file;
    uint64_t block;
  };

  Co<void> run();
  Co<void> attempt();
  Co<void> ask(Peer& peer);
  Co<void> fetchManifest(Peer& peer);
  Co<void> compare();
  Co<void> compareFile(size_t place);
  Co<void> fetchFiles(Peer& peer);
  Co<void> fileLane(Peer& peer);
  Co<void> fetchFileBlock(Peer& peer, Block work);
  Co<void> finishFile(size_t place);
  Co<void> fetchExtents(Peer& peer);
  Co<void> extentLane(Peer& peer);
  Co<void> fetchExtent(Peer& peer, ExtentInfo wanted);
  Co<void> extentBlocks(Peer& peer, ExtentInfo wanted, ExtentWriter& writer, uint64_t first);
  Co<ExtentBlockReply> readBlock(Peer& peer, CheckpointBlockRequest request, size_t bytes,
                                 kj::Maybe<Hash128> checksum);
  Co<ExtentBlockReply> readExtent(Peer& peer, ExtentId id, uint64_t block, size_t bytes);
  template <typename Ask>
  Co<ExtentBlockReply> insist(Ask ask, size_t bytes, kj::Maybe<Hash128> checksum);
  void keepExtent(ExtentId id);
  void fetched(uint64_t bytes);
  std::string filePath(const std::string& name) const;
  int64_t nowMs() { return monotonicMs(parts_.env.timer); }

  TransferHost& host_;
  const TransferParts parts_;
  const std::string folder_, files_;
  RateLimit rate_;
  int64_t sinceMs_ = 0, rateSinceMs_ = 0;
  uint64_t rateBytes_ = 0;
  bool done_ = false;

  NodeId source_;
  bool anew_ = false;        // what the source has kept for this member is of no use
  OpenCheckpointReply offer_;
  CheckpointManifest manifest_;
  std::map<size_t, Staged> staged_;   // files that are not complete, by place
  std::deque<Block> wanted_;
  std::deque<ExtentInfo> extentsWanted_;
  std::set<ExtentId> pinned_;
  TransferStatus status_;
  kj::Promise<void> running_ = nullptr;
};

}  // namespace packmoor::replicator
