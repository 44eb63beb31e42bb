#include "state_transfer.h"

#include "replicator/outcome.h"
#include "tasks.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace packmoor::replicator {

namespace {

constexpr size_t kNoteBytesMax = 4096;
constexpr int64_t kRateMs = 1000;   // over which the rate is told

std::string notePath(const std::string& folder) { return folder + "/note"; }

}  // namespace

StateTransfer::StateTransfer(TransferHost& host, TransferParts parts)
    : host_(host), parts_(parts), folder_(folderOf(parts.volume)), files_(folder_ + "/files"),
      rate_(parts.env.timer, parts.bytesPerSecond) {}

StateTransfer::~StateTransfer() noexcept(false) {
  running_ = nullptr;
  for (const ExtentId& id : pinned_) parts_.extents.unpin(id);
}

std::string StateTransfer::folderOf(const VolumeId& volume) {
  return kj::str("transfers/", volume).cStr();
}

kj::Promise<void> StateTransfer::clean(kernelio::Disk& disk, VolumeId volume,
                                       RecordIndex checkpointed) {
  struct Body {
    static Co<void> clean(kernelio::Disk& disk, std::string folder, RecordIndex checkpointed) {
      const std::string path = notePath(folder);
      auto content = co_await kernelio::readWholeFile(disk, path, kNoteBytesMax);
      KJ_IF_MAYBE(bytes, content) {
        auto note = decodeTransferNote(*bytes);
        KJ_IF_MAYBE(known, note) {
          if (known->position.index > checkpointed) co_return;
        }
        co_await disk.removeTree(folder);
      }
    }
  };
  return Body::clean(disk, folderOf(volume), checkpointed);
}

void StateTransfer::begin() {
  sinceMs_ = rateSinceMs_ = nowMs();
  status_.running = true;
  status_.phase = "asking";
  running_ = run().promise().eagerlyEvaluate([](kj::Exception&& exception) {
    KJ_LOG(ERROR, "a state transfer ended unexpectedly", exception);
  });
}

TransferStatus StateTransfer::status() {
  TransferStatus status = status_;
  status.source = source_;
  status.position = offer_.position.index;
  status.seconds = (nowMs() - sinceMs_) / 1000;
  if (nowMs() - rateSinceMs_ >= 2 * kRateMs) status.bytesPerSecond = 0;
  return status;
}

std::string StateTransfer::filePath(const std::string& name) const { return files_ + "/" + name; }

Co<void> StateTransfer::run() {
  int64_t pauseMs = kPauseMsMin;
  while (host_.transferWanted()) {
    const uint64_t before = status_.bytesFetched;
    auto failure = co_await outcomeOf(attempt().promise());
    staged_.clear();
    wanted_.clear();
    extentsWanted_.clear();
    KJ_IF_MAYBE(exception, failure) {
      const std::string problem = exception->getDescription().cStr();
      if (problem != status_.problem) {
        KJ_LOG(WARNING, "a checkpoint could not be fetched; it is tried again",
               source_.c_str(), problem.c_str());
      }
      status_.problem = problem;
      status_.phase = "asking";
    } else {
      break;
    }
    if (status_.bytesFetched > before) pauseMs = kPauseMsMin;
    co_await parts_.env.timer.afterDelay(pauseMs * kj::MILLISECONDS);
    pauseMs = std::min(pauseMs * 2, kPauseMsMax);
  }
  status_.running = false;
  done_ = true;
}

Co<void> StateTransfer::attempt() {
  source_ = host_.transferSource();
  KJ_REQUIRE(!source_.empty(), "no member is known to lead the volume");
  Peer& peer = parts_.peers.peer(source_);
  co_await ask(peer);
  co_await fetchManifest(peer);
  status_.phase = "comparing";
  co_await compare();
  status_.phase = "fetching";
  co_await fetchFiles(peer);
  co_await fetchExtents(peer);
  co_await parts_.env.disk.syncDirectory(files_);
  co_await parts_.env.disk.syncDirectory(folder_);
  status_.phase = "installing";
  co_await parts_.env.faults.hit("transfer.before-install");
  co_await host_.install(files_, manifest_.position);
  status_.problem.clear();
  ++status_.installed;
  KJ_LOG(INFO, "a checkpoint was installed", source_.c_str(), manifest_.position.index,
         status_.bytesFetched, (nowMs() - sinceMs_) / 1000);
  auto closed = outcomeOf(peer.closeCheckpoint(
      CloseCheckpointRequest{parts_.volume, offer_.checkpoint}));
  auto bounded = closed.exclusiveJoin(
      parts_.env.timer.afterDelay(kBlockTimeoutMs * kj::MILLISECONDS)
          .then([]() -> kj::Maybe<kj::Exception> { return nullptr; }));
  auto ignored = co_await kj::mv(bounded);
  (void)ignored;
  auto removed = co_await outcomeOf(parts_.env.disk.removeTree(folder_));
  (void)removed;  // else at the next start
}

// ---- The checkpoint and its manifest ----------------------------------------------------------

Co<void> StateTransfer::ask(Peer& peer) {
  OpenCheckpointRequest request;
  request.volume = parts_.volume;
  request.member = parts_.member;
  request.replaces = host_.replacesState();
  const std::string path = notePath(folder_);
  auto content = co_await kernelio::readWholeFile(parts_.env.disk, path, kNoteBytesMax);
  KJ_IF_MAYBE(bytes, content) {
    auto note = decodeTransferNote(*bytes);
    KJ_IF_MAYBE(known, note) {
      if (known->source == source_ && !anew_) request.resume = known->checkpoint;
    }
  }
  auto opened = parts_.env.timer.timeoutAfter(kOpenTimeoutMs * kj::MILLISECONDS,
                                              peer.openCheckpoint(request));
  auto reply = co_await kj::mv(opened);
  const std::string refusal = host_.refuses(reply.position.index);
  anew_ = !refusal.empty();
  KJ_REQUIRE(!anew_, refusal.c_str(), reply.position.index);
  KJ_REQUIRE(reply.manifestBytes > 0 && reply.manifestBytes <= kManifestBytesMax,
             "a checkpoint's manifest of an impossible size", reply.manifestBytes);
  offer_ = reply;
  co_await parts_.env.disk.makeFolders(files_);
  auto note = encodeTransferNote(TransferNote{source_, offer_.checkpoint, offer_.position});
  co_await kernelio::replaceFile(parts_.env.disk, path, note);
  co_await parts_.env.disk.syncDirectory("transfers");
  co_await parts_.env.disk.syncDirectory("");
}

Co<void> StateTransfer::fetchManifest(Peer& peer) {
  auto encoded = kj::heapArray<kj::byte>(offer_.manifestBytes);
  for (uint64_t block = 0; block < blockCount(encoded.size()); ++block) {
    const size_t bytes = blockBytesAt(encoded.size(), block);
    auto asked = readBlock(peer, CheckpointBlockRequest{parts_.volume, offer_.checkpoint, 0, block},
                           bytes, nullptr);
    auto reply = co_await kj::mv(asked);
    std::memcpy(encoded.begin() + block * kBlockBytes, reply.data.begin(), bytes);
  }
  KJ_REQUIRE(hashBytes(encoded) == offer_.manifestHash, "a checkpoint's manifest came damaged");
  manifest_ = decodeManifest(encoded);
  KJ_REQUIRE(manifest_.position == offer_.position,
             "a checkpoint's manifest is of another position than was told");
  status_.files = manifest_.files.size();
  status_.fileBytes = manifest_.fileBytes();
  status_.extents = manifest_.extents.size();
  status_.extentBytes = manifest_.extentBytes();
  status_.filesDone = status_.fileBytesDone = status_.extentsDone = status_.extentBytesDone = 0;
}

// ---- What is here already ---------------------------------------------------------------------

Co<void> StateTransfer::compare() {
  std::set<std::string> names;
  for (const CheckpointFile& file : manifest_.files) names.insert(file.name);
  auto present = co_await parts_.env.disk.list(files_);
  for (const kj::String& name : present) {
    if (names.count(name.cStr()) > 0) continue;
    const std::string path = filePath(name.cStr());
    co_await parts_.env.disk.remove(path);
  }
  for (size_t place = 0; place < manifest_.files.size(); ++place) co_await compareFile(place);
  for (const ExtentInfo& extent : manifest_.extents) {
    auto here = parts_.extents.info(extent.id);
    KJ_IF_MAYBE(known, here) {
      KJ_REQUIRE(known->bytes == extent.bytes && known->root == extent.root,
                 "an extent is sealed here with other content than at the source", extent.id);
      keepExtent(extent.id);
      ++status_.extentsDone;
      status_.extentBytesDone += extent.bytes;
    } else {
      extentsWanted_.push_back(extent);
    }
  }
}

Co<void> StateTransfer::compareFile(size_t place) {
  const CheckpointFile& wanted = manifest_.files[place];
  kernelio::OpenOptions options;
  options.write = options.create = true;
  const std::string path = filePath(wanted.name);
  auto file = co_await parts_.env.disk.open(path, options);
  if (file->size() > wanted.bytes) co_await file->truncate(wanted.bytes);
  Staged staged;
  for (uint64_t block = 0; block < wanted.blocks.size(); ++block) {
    const size_t bytes = blockBytesAt(wanted.bytes, block);
    bool here = false;
    if (file->size() >= block * kBlockBytes + bytes) {
      // A sector that cannot be read is written again with the block.
      auto read = co_await outcomeOf(file->read(block * kBlockBytes, bytes));
      here = read.ok() && read.value->size() == bytes &&
             hashBytes(read.value->bytes()) == wanted.blocks[block];
    }
    if (here) {
      status_.fileBytesDone += bytes;
    } else {
      wanted_.push_back(Block{place, block});
      ++staged.missing;
    }
  }
  staged.file = kj::mv(file);
  const bool complete = staged.missing == 0;
  staged_[place] = kj::mv(staged);
  if (complete) co_await finishFile(place);
}

// ---- Files ------------------------------------------------------------------------------------

Co<void> StateTransfer::fetchFiles(Peer& peer) {
  auto lanes = kj::Vector<kj::Promise<void>>();
  for (size_t i = 0; i < kLanes; ++i) lanes.add(fileLane(peer).promise());
  co_await kj::joinPromises(lanes.releaseAsArray());
}

Co<void> StateTransfer::fileLane(Peer& peer) {
  while (!wanted_.empty()) {
    const Block work = wanted_.front();
    wanted_.pop_front();
    co_await fetchFileBlock(peer, work);
  }
}

Co<void> StateTransfer::fetchFileBlock(Peer& peer, Block work) {
  const CheckpointFile& wanted = manifest_.files[work.file];
  const size_t bytes = blockBytesAt(wanted.bytes, work.block);
  co_await rate_.take(bytes);
  CheckpointBlockRequest request{parts_.volume, offer_.checkpoint,
                                 static_cast<uint32_t>(work.file + 1), work.block};
  auto asked = readBlock(peer, request, bytes, wanted.blocks[work.block]);
  auto reply = co_await kj::mv(asked);
  Staged& staged = staged_[work.file];
  co_await staged.file->write(work.block * kBlockBytes, kj::mv(reply.data),
                              kernelio::WriteMode::kBuffered);
  fetched(bytes);
  status_.fileBytesDone += bytes;
  if (--staged.missing == 0) co_await finishFile(work.file);
}

Co<void> StateTransfer::finishFile(size_t place) {
  // Other lanes add and remove files meanwhile, not this one.
  kernelio::File& file = *staged_[place].file;
  co_await file.sync();
  staged_.erase(place);
  ++status_.filesDone;
}

// ---- Extents ----------------------------------------------------------------------------------

Co<void> StateTransfer::fetchExtents(Peer& peer) {
  auto lanes = kj::Vector<kj::Promise<void>>();
  for (size_t i = 0; i < kExtentLanes; ++i) lanes.add(extentLane(peer).promise());
  co_await kj::joinPromises(lanes.releaseAsArray());
}

Co<void> StateTransfer::extentLane(Peer& peer) {
  while (!extentsWanted_.empty()) {
    const ExtentInfo wanted = extentsWanted_.front();
    extentsWanted_.pop_front();
    co_await fetchExtent(peer, wanted);
    ++status_.extentsDone;
  }
}

Co<void> StateTransfer::fetchExtent(Peer& peer, ExtentInfo wanted) {
  keepExtent(wanted.id);
  if (parts_.extents.isSealed(wanted.id)) {
    status_.extentBytesDone += wanted.bytes;
    co_return;
  }
  auto begun = co_await outcomeOf(parts_.extents.begin(wanted.id));
  if (!begun.ok()) {
    // It streams in, or is fetched for a record already.
    std::vector<ExtentId> ids(1, wanted.id);
    std::vector<NodeId> holders(1, source_);
    co_await parts_.exchange.obtain(kj::mv(ids), kj::mv(holders));
    status_.extentBytesDone += wanted.bytes;
    co_return;
  }
  auto writer = kj::mv(*begun.value);
  auto lanes = kj::Vector<kj::Promise<void>>();
  for (uint64_t first = 0; first < kExtentWindow && first < blockCount(wanted.bytes); ++first) {
    lanes.add(extentBlocks(peer, wanted, *writer, first).promise());
  }
  co_await kj::joinPromises(lanes.releaseAsArray());
  auto sealed = co_await writer->seal(wanted.bytes, wanted.root);
  parts_.extents.unpin(sealed.id);  // the seal's own pin; ours stays
}

Co<void> StateTransfer::extentBlocks(Peer& peer, ExtentInfo wanted, ExtentWriter& writer,
                                     uint64_t first) {
  for (uint64_t block = first; block < blockCount(wanted.bytes); block += kExtentWindow) {
    const size_t bytes = blockBytesAt(wanted.bytes, block);
    co_await rate_.take(bytes);
    auto asked = readExtent(peer, wanted.id, block, bytes);
    auto reply = co_await kj::mv(asked);
    const Hash128 checksum = reply.checksum;
    co_await writer.writeBlock(block, kj::mv(reply.data), checksum);
    fetched(bytes);
    status_.extentBytesDone += bytes;
  }
}

void StateTransfer::keepExtent(ExtentId id) {
  if (pinned_.insert(id).second) parts_.extents.pin(id);
}

// ---- One block --------------------------------------------------------------------------------

// Asks until a block comes whole, within bounds.
template <typename Ask>
Co<ExtentBlockReply> StateTransfer::insist(Ask ask, size_t bytes, kj::Maybe<Hash128> checksum) {
  int64_t pauseMs = kTryPauseMs;
  for (int left = kBlockTries;; --left) {
    auto asked = parts_.env.timer.timeoutAfter(kBlockTimeoutMs * kj::MILLISECONDS, ask());
    auto reply = co_await outcomeOf(kj::mv(asked));
    bool whole = false;
    if (reply.ok()) {
      whole = reply.value->data.size() == bytes &&
              hashBytes(reply.value->data.bytes()) == reply.value->checksum;
      KJ_IF_MAYBE(wanted, checksum) { whole = whole && reply.value->checksum == *wanted; }
    }
    if (whole) co_return kj::mv(*reply.value);
    ++status_.blocksRefetched;
    if (left == 1) {
      KJ_IF_MAYBE(exception, reply.exception) { kj::throwFatalException(kj::mv(*exception)); }
      KJ_FAIL_REQUIRE("a block comes damaged again and again");
    }
    co_await parts_.env.timer.afterDelay(pauseMs * kj::MILLISECONDS);
    pauseMs *= 2;
  }
}

Co<ExtentBlockReply> StateTransfer::readBlock(Peer& peer, CheckpointBlockRequest request,
                                              size_t bytes, kj::Maybe<Hash128> checksum) {
  return insist([&peer, request]() { return peer.readCheckpointBlock(request); }, bytes, checksum);
}

Co<ExtentBlockReply> StateTransfer::readExtent(Peer& peer, ExtentId id, uint64_t block,
                                               size_t bytes) {
  return insist([&peer, id, block]() { return peer.readExtentBlock(id, block); }, bytes, nullptr);
}

void StateTransfer::fetched(uint64_t bytes) {
  status_.bytesFetched += bytes;
  rateBytes_ += bytes;
  const int64_t passedMs = nowMs() - rateSinceMs_;
  if (passedMs < kRateMs) return;
  status_.bytesPerSecond = rateBytes_ * 1000 / static_cast<uint64_t>(passedMs);
  rateSinceMs_ = nowMs();
  rateBytes_ = 0;
}

}  // namespace packmoor::replicator
