#include "extent_exchange.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

namespace packmoor::replicator {

kj::Promise<void> ExtentExchange::obtain(std::vector<ExtentId> extents,
                                         std::vector<NodeId> holders) {
  auto all = kj::Vector<kj::Promise<void>>();
  for (const ExtentId& id : extents) {
    if (!extents_.isSealed(id)) all.add(obtainOne(id, holders));
  }
  return kj::joinPromises(all.releaseAsArray());
}

Co<void> ExtentExchange::obtainOne(ExtentId id, std::vector<NodeId> holders) {
  // A front that is still streaming it here is faster than asking for it again. One that has stopped
  // is not waited for: who asks may not wait long enough to find out.
  for (;;) {
    if (extents_.isSealed(id)) co_return;
    auto it = incoming_.find(id);
    if (it == incoming_.end()) break;
    if (nowMs() - it->second->lastMs > kStreamPauseMs && it->second->busy == 0) {
      incoming_.erase(it);
      break;
    }
    co_await extents_.whenSealed(id).exclusiveJoin(
        env_.timer.afterDelay(200 * kj::MILLISECONDS));
  }
  co_await fetchOnce(id, kj::mv(holders));
}

kj::Promise<void> ExtentExchange::fetchOnce(ExtentId id, std::vector<NodeId> holders) {
  auto it = fetching_.find(id);
  if (it != fetching_.end()) return it->second.addBranch();
  auto forked = fetch(id, kj::mv(holders)).promise().fork();
  auto mine = forked.addBranch();
  auto cleanup = forked.addBranch();
  fetching_.emplace(id, kj::mv(forked));
  tasks_.add(outcomeOf(kj::mv(cleanup)).then([this, id](kj::Maybe<kj::Exception>&&) {
    fetching_.erase(id);
  }));
  return mine;
}

Co<void> ExtentExchange::fetch(ExtentId id, std::vector<NodeId> holders) {
  kj::Maybe<kj::Exception> last;
  for (const NodeId& holder : holders) {
    if (holder == peers_.self()) continue;
    auto outcome = co_await outcomeOf(fetchFrom(id, peers_.peer(holder)));
    if (outcome == nullptr || extents_.isSealed(id)) co_return;
    last = kj::mv(outcome);
  }
  KJ_IF_MAYBE(exception, last) { kj::throwFatalException(kj::mv(*exception)); }
  KJ_FAIL_REQUIRE("no other member is known to hold the extent", id);
}

Co<void> ExtentExchange::fetchFrom(ExtentId id, Peer& peer) {
  auto info = co_await peer.extentInfo(id);
  KJ_REQUIRE(info.first > 0 || info.second != Hash128(), "the extent is not sealed at that node",
             id, peer.node());
  auto writer = co_await extents_.begin(id);
  const uint64_t blocks = (info.first + kBlockBytes - 1) / kBlockBytes;
  auto lanes = kj::Vector<kj::Promise<void>>();
  for (uint64_t lane = 0; lane < kFetchWindow && lane < blocks; ++lane) {
    lanes.add(fetchBlocks(id, peer, *writer, lane, kFetchWindow, blocks));
  }
  co_await kj::joinPromises(lanes.releaseAsArray());
  co_await writer->seal(info.first, info.second);
  keepSealPin(id);
}

Co<void> ExtentExchange::fetchBlocks(ExtentId id, Peer& peer, ExtentWriter& writer, uint64_t first,
                                     uint64_t step, uint64_t blocks) {
  for (uint64_t block = first; block < blocks; block += step) {
    auto reply = co_await peer.readExtentBlock(id, block);
    co_await writer.writeBlock(block, kj::mv(reply.data), reply.checksum);
  }
}

std::shared_ptr<ExtentExchange::Incoming> ExtentExchange::incoming(const NodeId& from,
                                                                   ExtentId id) {
  auto& place = incoming_[id];
  if (place == nullptr) {
    place = std::make_shared<Incoming>();
    place->from = from;
    // The entry owns this work, so the work must not own the entry.
    std::weak_ptr<Incoming> entry = place;
    place->begun = extents_.begin(id).then([entry](kj::Own<ExtentWriter>&& writer) {
      auto waiting = entry.lock();
      if (waiting != nullptr) waiting->writer = kj::mv(writer);
    }).fork();
  }
  KJ_REQUIRE(place->from == from, "another node is writing this extent here", id, place->from);
  place->lastMs = nowMs();
  place->lost = false;
  return place;
}

// An entry without a writer would keep the extent from whoever could get it in another way.
Co<void> ExtentExchange::begun(ExtentId id, std::shared_ptr<Incoming> entry) {
  auto failure = co_await outcomeOf(entry->begun.addBranch());
  KJ_IF_MAYBE(exception, failure) {
    drop(id, *entry);
    kj::throwFatalException(kj::mv(*exception));
  }
}

void ExtentExchange::drop(const ExtentId& id, const Incoming& entry) {
  auto it = incoming_.find(id);
  if (it != incoming_.end() && it->second.get() == &entry) incoming_.erase(it);
}

kj::Promise<void> ExtentExchange::writeBlock(NodeId from, ExtentId id, uint64_t block,
                                             kernelio::IoBuffer data, Hash128 checksum) {
  // What a fetch has sealed in the meantime needs no more blocks.
  if (extents_.isSealed(id)) return kj::READY_NOW;
  struct Body {
    static Co<void> write(ExtentExchange& self, std::shared_ptr<Incoming> entry, ExtentId id,
                          uint64_t block, kernelio::IoBuffer data, Hash128 checksum) {
      ++entry->busy;
      KJ_DEFER(--entry->busy);
      co_await self.begun(id, entry);
      KJ_REQUIRE(!entry->sealing, "a block of an extent that is being sealed");
      co_await entry->writer->writeBlock(block, kj::mv(data), checksum);
    }
  };
  return Body::write(*this, incoming(from, id), id, block, kj::mv(data), checksum);
}

kj::Promise<void> ExtentExchange::seal(NodeId from, ExtentId id, uint64_t bytes, Hash128 root) {
  auto sealed = extents_.info(id);
  KJ_IF_MAYBE(known, sealed) {
    KJ_REQUIRE(known->bytes == bytes && known->root == root,
               "the extent is sealed here with other content", id);
    return kj::READY_NOW;
  }
  struct Body {
    static Co<void> seal(ExtentExchange& self, std::shared_ptr<Incoming> entry, ExtentId id,
                         uint64_t bytes, Hash128 root) {
      ++entry->busy;
      KJ_DEFER(--entry->busy);
      co_await self.begun(id, entry);
      KJ_REQUIRE(!entry->sealing, "the extent is being sealed already");
      entry->sealing = true;
      auto outcome = co_await outcomeOf(entry->writer->seal(bytes, root).ignoreResult());
      self.drop(id, *entry);
      KJ_IF_MAYBE(exception, outcome) { kj::throwFatalException(kj::mv(*exception)); }
      self.keepSealPin(id);
    }
  };
  KJ_REQUIRE(incoming_.count(id) > 0, "sealing an extent of which no block came", id);
  return Body::seal(*this, incoming(from, id), id, bytes, root);
}

void ExtentExchange::abandon(const NodeId& from, ExtentId id) {
  auto it = incoming_.find(id);
  if (it != incoming_.end() && it->second->from == from) incoming_.erase(it);
  dropSealPin(id);
}

kj::Promise<ExtentBlockReply> ExtentExchange::readBlock(ExtentId id, uint64_t block) {
  return extents_.readBlockHere(id, block).then([](kernelio::IoBuffer&& data) {
    const Hash128 checksum = hashBytes(data.bytes());
    return ExtentBlockReply{kj::mv(data), checksum};
  });
}

std::pair<uint64_t, Hash128> ExtentExchange::info(ExtentId id) {
  if (extents_.isSpoiled(id)) return {0, Hash128()};
  auto found = extents_.info(id);
  KJ_IF_MAYBE(known, found) { return {known->bytes, known->root}; }
  return {0, Hash128()};
}

void ExtentExchange::keepSealPin(ExtentId id) {
  auto [it, added] = sealPins_.emplace(id, nowMs());
  if (!added) extents_.unpin(id);  // one is enough
}

void ExtentExchange::dropSealPin(ExtentId id) {
  if (sealPins_.erase(id) > 0) extents_.unpin(id);
}

void ExtentExchange::tick() {
  const int64_t now = nowMs();
  for (auto it = sealPins_.begin(); it != sealPins_.end();) {
    if (now - it->second >= pinMs_) {
      extents_.unpin(it->first);
      it = sealPins_.erase(it);
    } else {
      ++it;
    }
  }
  for (auto it = incoming_.begin(); it != incoming_.end();) {
    Incoming& entry = *it->second;
    entry.lost = entry.lost || !peers_.peer(entry.from).connected();
    const int64_t boundMs = entry.lost ? kIdleMs : kSilentMs;
    if (entry.busy == 0 && now - entry.lastMs >= boundMs) {
      it = incoming_.erase(it);
    } else {
      ++it;
    }
  }
}

}  // namespace packmoor::replicator
