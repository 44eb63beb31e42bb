#include "checkpoint_offers.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>

namespace packmoor::replicator {

CheckpointOffers::~CheckpointOffers() noexcept(false) {
  for (auto& [member, offer] : offers_) {
    for (const ExtentId& extent : offer->pinned) extents_.unpin(extent);
  }
}

kj::Promise<OpenCheckpointReply> CheckpointOffers::open(NodeId from,
                                                        OpenCheckpointRequest request) {
  auto& place = offers_[from];
  const bool resumes = place != nullptr && !place->closed &&
                       (place->id == request.resume || !place->ready);
  if (!resumes) {
    if (place != nullptr) drop(*place);
    place = std::make_shared<Offer>();
    env_.random.fill(kj::arrayPtr(place->id.bytes.data(), place->id.bytes.size()));
    place->folder = folder_ + "/" + place->id.text().cStr();
    place->made = make(*place).promise().fork();
  }
  place->replaces = request.replaces;
  place->usedMs = nowMs();
  return openWhenMade(place);
}

Co<OpenCheckpointReply> CheckpointOffers::openWhenMade(std::shared_ptr<Offer> offer) {
  auto failure = co_await outcomeOf(offer->made.addBranch());
  KJ_IF_MAYBE(exception, failure) {
    drop(*offer);
    kj::throwFatalException(kj::mv(*exception));
  }
  offer->usedMs = nowMs();
  OpenCheckpointReply reply;
  reply.checkpoint = offer->id;
  reply.position = offer->manifest.position;
  reply.manifestBytes = offer->encoded.size();
  reply.manifestHash = offer->hash;
  co_return reply;
}

Co<void> CheckpointOffers::make(Offer& offer) {
  co_await env_.disk.makeFolders(folder_);
  auto made = host_.makeCheckpoint(offer.folder, [this, &offer](const CheckpointContent& content) {
    // Before anything else is applied, which may drop what this state names.
    offer.manifest.position = content.position;
    for (const ExtentId& extent : content.extents) {
      extents_.pin(extent);
      offer.pinned.push_back(extent);
    }
  });
  co_await kj::mv(made);
  co_await describe(offer);
  offer.ready = true;
}

Co<void> CheckpointOffers::describe(Offer& offer) {
  for (const ExtentId& extent : offer.pinned) {
    auto info = extents_.info(extent);
    KJ_IF_MAYBE(known, info) {
      offer.manifest.extents.push_back(*known);
    } else {
      KJ_FAIL_REQUIRE("an extent that the state names is not sealed on this node", extent);
    }
  }
  auto names = co_await env_.disk.list(offer.folder);
  KJ_REQUIRE(names.size() <= kCheckpointFilesMax, "a checkpoint of too many files", names.size());
  for (const kj::String& name : names) co_await addFile(offer, name.cStr());
  offer.encoded = encodeManifest(offer.manifest);
  KJ_REQUIRE(offer.encoded.size() <= kManifestBytesMax, "a checkpoint's manifest is too large",
             offer.encoded.size());
  offer.hash = hashBytes(offer.encoded);
}

Co<void> CheckpointOffers::addFile(Offer& offer, std::string name) {
  const std::string path = offer.folder + "/" + name;
  auto file = co_await env_.disk.open(path, kernelio::OpenOptions());
  CheckpointFile entry{name, file->size(), {}};
  const uint64_t blocks = blockCount(entry.bytes);
  for (uint64_t first = 0; first < blocks; first += kHashWindow) {
    auto reads = kj::Vector<kj::Promise<Hash128>>();
    for (uint64_t b = first; b < blocks && b < first + kHashWindow; ++b) {
      const size_t bytes = blockBytesAt(entry.bytes, b);
      reads.add(file->read(b * kBlockBytes, bytes).then([bytes](kernelio::IoBuffer&& data) {
        KJ_REQUIRE(data.size() == bytes, "a file of a checkpoint changes");
        return hashBytes(data.bytes());
      }));
    }
    auto hashes = co_await kj::joinPromises(reads.releaseAsArray());
    entry.blocks.insert(entry.blocks.end(), hashes.begin(), hashes.end());
  }
  offer.manifest.files.push_back(std::move(entry));
  offer.files.push_back(kj::mv(file));
}

kj::Promise<ExtentBlockReply> CheckpointOffers::readBlock(const NodeId& from,
                                                          CheckpointBlockRequest request) {
  auto it = offers_.find(from);
  KJ_REQUIRE(it != offers_.end() && it->second->id == request.checkpoint && it->second->ready &&
                 !it->second->closed,
             "this node does not keep the checkpoint any more", request.checkpoint);
  it->second->usedMs = nowMs();
  return read(it->second, request);
}

Co<ExtentBlockReply> CheckpointOffers::read(std::shared_ptr<Offer> offer,
                                            CheckpointBlockRequest request) {
  if (request.file == 0) {
    const size_t bytes = blockBytesAt(offer->encoded.size(), request.block);
    KJ_REQUIRE(bytes > 0, "a block beyond the end of the manifest", request.block);
    const size_t offset = request.block * kBlockBytes;
    auto data = kernelio::IoBuffer::copyOf(offer->encoded.slice(offset, offset + bytes));
    ExtentBlockReply reply{kj::mv(data), Hash128()};
    reply.checksum = hashBytes(reply.data.bytes());
    co_return kj::mv(reply);
  }
  KJ_REQUIRE(request.file <= offer->files.size(), "a file that the checkpoint has not",
             request.file);
  const CheckpointFile& file = offer->manifest.files[request.file - 1];
  const size_t bytes = blockBytesAt(file.bytes, request.block);
  KJ_REQUIRE(bytes > 0, "a block beyond the end of a file", request.block);
  auto data = co_await offer->files[request.file - 1]->read(request.block * kBlockBytes, bytes);
  // Against what was read when the checkpoint was made.
  const Hash128 checksum = hashBytes(data.bytes());
  KJ_REQUIRE(checksum == file.blocks[request.block],
             "a file of the checkpoint is damaged on this node", file.name.c_str(), request.block);
  offer->bytesRead += bytes;
  offer->usedMs = nowMs();
  ExtentBlockReply reply{kj::mv(data), checksum};
  co_return kj::mv(reply);
}

void CheckpointOffers::close(const NodeId& from, const Uuid& checkpoint) {
  auto it = offers_.find(from);
  if (it == offers_.end() || it->second->id != checkpoint) return;
  it->second->usedMs = nowMs();
  drop(*it->second);
}

// What is left of it is the position that the log is kept from.
void CheckpointOffers::drop(Offer& offer) {
  if (offer.closed) return;
  offer.closed = true;
  offer.files.clear();
  for (const ExtentId& extent : offer.pinned) extents_.unpin(extent);
  offer.pinned.clear();
  removals_.add(env_.disk.removeTree(offer.folder));
}

void CheckpointOffers::tick() {
  const int64_t now = nowMs();
  for (auto it = offers_.begin(); it != offers_.end();) {
    Offer& offer = *it->second;
    const bool old = offer.ready && now - offer.usedMs >= (offer.closed ? kTailMs : kLeaseMs);
    if (old || (offer.closed && !offer.ready)) {
      drop(offer);
      it = offers_.erase(it);
    } else {
      ++it;
    }
  }
}

RecordIndex CheckpointOffers::hold() const {
  RecordIndex lowest(UINT64_MAX);
  for (const auto& [member, offer] : offers_) {
    if (offer->ready && !offer->replaces) lowest = std::min(lowest, offer->manifest.position.index);
  }
  return lowest;
}

void CheckpointOffers::reached(const NodeId& member, RecordIndex index) {
  auto it = offers_.find(member);
  if (it == offers_.end() || !it->second->ready || it->second->replaces ||
      index < it->second->manifest.position.index) {
    return;
  }
  drop(*it->second);
  offers_.erase(it);
}

bool CheckpointOffers::progressOf(const NodeId& member, uint64_t& bytes,
                                  RecordIndex& position) const {
  auto it = offers_.find(member);
  if (it == offers_.end()) return false;
  bytes = it->second->bytesRead;
  position = it->second->manifest.position.index;
  return true;
}

}  // namespace packmoor::replicator
