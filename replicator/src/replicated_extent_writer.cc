#include "replicated_extent_writer.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <deque>

namespace packmoor::replicator {

namespace {

struct Block {
  uint64_t number;
  kernelio::IoBuffer data;
  Hash128 checksum;
};

struct Lane {
  NodeId node;
  Peer* peer = nullptr;          // null: this node
  std::deque<Block> queue;
  size_t queuedBytes = 0;
  int64_t progressMs = 0;
  bool sealed = false;
  kj::Maybe<kj::Exception> failure;
  bool live() const { return failure == nullptr; }
};

// What the writer and its lanes share.
struct Session {
  Session(ExtentWriterParts parts, ExtentId id, size_t writeQuorum)
      : parts(parts), id(id), writeQuorum(writeQuorum) {}

  ExtentWriterParts parts;
  const ExtentId id;
  const size_t writeQuorum;
  kj::Own<ExtentWriter> writer;  // this node's
  std::vector<std::unique_ptr<Lane>> lanes;
  std::vector<Hash128> checksums;
  bool abandoned = false;
  kj::Maybe<ExtentInfo> wanted;  // set by seal()
  Signal changed;

  int64_t nowMs() { return monotonicMs(parts.env.timer); }
  size_t liveLanes() const {
    size_t count = 0;
    for (auto& lane : lanes) count += lane->live();
    return count;
  }
};

kj::Promise<void> writeOne(Session& session, Lane& lane, Block block) {
  if (lane.peer == nullptr) {
    return session.writer->writeBlock(block.number, kj::mv(block.data), block.checksum);
  }
  return lane.peer->writeExtentBlock(session.id, block.number, kj::mv(block.data), block.checksum);
}

kj::Promise<void> sealOne(Session& session, Lane& lane, const ExtentInfo& info) {
  if (lane.peer == nullptr) {
    return session.writer->seal(info.bytes, info.root).then([&session](ExtentInfo&&) {
      session.parts.exchange.keepSealPin(session.id);
    });
  }
  return lane.peer->sealExtent(session.id, info.bytes, info.root);
}

void fail(Session& session, Lane& lane, kj::Exception&& exception) {
  if (!lane.live()) return;
  lane.failure = kj::mv(exception);
  lane.queue.clear();
  lane.queuedBytes = 0;
  session.changed.notify();
}

Co<void> runLane(std::shared_ptr<Session> session, Lane& lane) {
  while (lane.live() && !lane.sealed) {
    if (session->abandoned) {
      if (lane.peer != nullptr) co_await outcomeOf(lane.peer->abandonExtent(session->id));
      co_return;
    }
    kj::Maybe<kj::Exception> failure;
    if (!lane.queue.empty()) {
      Block block = kj::mv(lane.queue.front());
      lane.queue.pop_front();
      const size_t bytes = block.data.size();
      failure = co_await outcomeOf(writeOne(*session, lane, kj::mv(block)));
      lane.queuedBytes -= std::min(bytes, lane.queuedBytes);
    } else if (session->wanted != nullptr) {
      auto sealing = sealOne(*session, lane, KJ_ASSERT_NONNULL(session->wanted));
      failure = co_await outcomeOf(kj::mv(sealing));
      lane.sealed = failure == nullptr;
    } else {
      co_await session->changed.wait();
      continue;
    }
    lane.progressMs = session->nowMs();
    KJ_IF_MAYBE(exception, failure) {
      fail(*session, lane, kj::mv(*exception));
    }
    session->changed.notify();
  }
  // Nothing more will come: what the member has of it is in the way of a fetch.
  if (!lane.live() && lane.peer != nullptr) {
    co_await outcomeOf(lane.peer->abandonExtent(session->id));
  }
}

class Writer final : public ReplicatedExtentWriter {
 public:
  explicit Writer(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  ~Writer() noexcept(false) {
    if (session_->wanted == nullptr) {
      session_->abandoned = true;
      session_->changed.notify();
    }
  }

  ExtentId id() override { return session_->id; }

  kj::Promise<void> writeBlock(uint64_t block, kernelio::IoBuffer data) override {
    return write(session_, block, kj::mv(data));
  }
  kj::Promise<kj::String> localData() override { return localPath(session_); }
  kj::Promise<Sealed> seal(uint64_t bytes) override { return sealAll(session_, bytes); }

 private:
  static void requireQuorum(Session& session) {
    KJ_IF_MAYBE(exception, session.lanes.front()->failure) {
      kj::throwFatalException(kj::cp(*exception));
    }
    if (session.liveLanes() >= session.writeQuorum) return;
    std::string reasons;
    for (auto& lane : session.lanes) {
      KJ_IF_MAYBE(exception, lane->failure) {
        reasons += kj::str("; ", lane->node.c_str(), ": ", exception->getDescription()).cStr();
      }
    }
    kj::throwFatalException(KJ_EXCEPTION(
        OVERLOADED,
        kj::str("fewer members than the write quorum take the extent", reasons.c_str())));
  }

  static Co<void> write(std::shared_ptr<Session> session, uint64_t block,
                        kernelio::IoBuffer data) {
    KJ_REQUIRE(session->wanted == nullptr, "a block after the seal");
    KJ_REQUIRE(block < (1ull << 24), "an extent of too many blocks", block);
    requireQuorum(*session);
    const Hash128 checksum = hashBytes(data.bytes());
    if (session->checksums.size() <= block) session->checksums.resize(block + 1);
    session->checksums[block] = checksum;
    for (auto& lane : session->lanes) {
      if (!lane->live()) continue;
      lane->queuedBytes += data.size();
      lane->queue.push_back(Block{block, data, checksum});
    }
    session->changed.notify();
    for (;;) {
      bool full = false;
      for (auto& lane : session->lanes) {
        if (!lane->live() || lane->queuedBytes <= kLaneBytesMax) continue;
        full = true;
        if (session->nowMs() - lane->progressMs >= kLaneStallMs) {
          fail(*session, *lane, KJ_EXCEPTION(OVERLOADED, "the member does not take blocks"));
        }
      }
      requireQuorum(*session);
      if (!full) co_return;
      co_await session->changed.waitFor(session->parts.env.timer, kLaneStallMs);
    }
  }

  static Co<kj::String> localPath(std::shared_ptr<Session> session) {
    while (session->lanes.front()->queuedBytes > 0) co_await session->changed.wait();
    requireQuorum(*session);
    kj::StringPtr root = session->parts.env.disk.root();
    if (root.size() == 0) co_return kj::String();
    co_return kj::str(root, "/", session->writer->path());
  }

  static Co<Sealed> sealAll(std::shared_ptr<Session> session, uint64_t bytes) {
    KJ_REQUIRE(session->wanted == nullptr, "sealing twice");
    const uint64_t blocks = (bytes + kBlockBytes - 1) / kBlockBytes;
    KJ_REQUIRE(blocks == session->checksums.size(), "the extent's blocks do not match its size",
               bytes, session->checksums.size());
    ExtentInfo info{session->id, bytes,
                    extentRoot(bytes, kj::arrayPtr(session->checksums.data(), blocks))};
    session->wanted = info;
    session->changed.notify();
    for (;;) {
      requireQuorum(*session);
      Sealed sealed{info, {}};
      for (auto& lane : session->lanes) {
        if (lane->sealed) sealed.sealedOn.push_back(lane->node);
      }
      if (session->lanes.front()->sealed && sealed.sealedOn.size() >= session->writeQuorum) {
        co_return sealed;
      }
      co_await session->changed.wait();
    }
  }

  std::shared_ptr<Session> session_;
};

Co<kj::Own<ReplicatedExtentWriter>> begin(ExtentWriterParts parts, std::vector<NodeId> members,
                                          size_t writeQuorum) {
  ExtentId id;
  parts.env.random.fill(kj::arrayPtr(id.bytes.data(), id.bytes.size()));
  auto session = std::make_shared<Session>(parts, id, writeQuorum);
  session->writer = co_await parts.extents.begin(id);
  auto addLane = [&](const NodeId& node, Peer* peer) {
    auto lane = std::make_unique<Lane>();
    lane->node = node;
    lane->peer = peer;
    lane->progressMs = session->nowMs();
    session->lanes.push_back(std::move(lane));
  };
  addLane(parts.peers.self(), nullptr);
  for (const NodeId& node : members) {
    if (node != parts.peers.self()) addLane(node, &parts.peers.peer(node));
  }
  for (auto& lane : session->lanes) parts.background.add(runLane(session, *lane));
  co_return kj::heap<Writer>(kj::mv(session));
}

}  // namespace

kj::Promise<kj::Own<ReplicatedExtentWriter>> beginReplicatedExtent(
    ExtentWriterParts parts, std::vector<NodeId> members, size_t writeQuorum) {
  return begin(parts, kj::mv(members), writeQuorum);
}

}  // namespace packmoor::replicator
