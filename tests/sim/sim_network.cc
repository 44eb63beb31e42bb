#include "sim_network.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <cstring>
#include <functional>
#include <type_traits>

namespace packmoor::replicator {

void SimNetwork::attach(const NodeId& node, PeerService& service) {
  nodes_[node] = std::make_shared<Node>(service);
  changed_.notify();
}

void SimNetwork::detach(const NodeId& node) {
  auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  it->second->serving.cancel(KJ_EXCEPTION(DISCONNECTED, "the node went down"));
  nodes_.erase(it);
  changed_.notify();
}

void SimNetwork::isolate(const NodeId& node, const std::vector<NodeId>& others) {
  for (const NodeId& other : others) {
    if (other == node) continue;
    cut(node, other);
    cut(other, node);
  }
}

void SimNetwork::trace(uint64_t a, uint64_t b) {
  for (uint64_t value : {a, b, static_cast<uint64_t>(
           (timer_.now() - kj::origin<kj::TimePoint>()) / kj::MICROSECONDS)}) {
    trace_ = (trace_ ^ value) * 0x100000001b3u;
    trace_ ^= trace_ >> 29;
  }
}

// Resolves when a message has arrived; rejects when it is lost.
kj::Promise<void> SimNetwork::travel(const NodeId& from, const NodeId& to) {
  ++messages_;
  if (clogs_.count({from, to}) > 0) return passClog(from, to);
  const int64_t spread = links.delayUsMax - links.delayUsMin + 1;
  auto delay = (links.delayUsMin + static_cast<int64_t>(random_.below(spread))) * kj::MICROSECONDS;
  const bool lost = isCut(from, to) || random_.chance(links.lossPerMillion);
  trace(std::hash<std::string>()(from) * 31 + std::hash<std::string>()(to), lost);
  if (lost) {
    return timer_.afterDelay(links.silenceMs * kj::MILLISECONDS).then([]() -> kj::Promise<void> {
      return KJ_EXCEPTION(DISCONNECTED, "the connection broke");
    });
  }
  if (links.overtaking) return timer_.afterDelay(delay);
  auto& last = lastArrival_.emplace(std::make_pair(from, to), timer_.now()).first->second;
  last = kj::max(timer_.now() + delay, last + 1 * kj::MICROSECONDS);
  return timer_.atTime(last);
}

Co<void> SimNetwork::passClog(NodeId from, NodeId to) {
  while (clogs_.count({from, to}) > 0) co_await unclogged_.wait();
  co_await timer_.afterDelay(static_cast<int64_t>(random_.below(1000)) * kj::MICROSECONDS);
}

kernelio::IoBuffer SimNetwork::maybeCorrupt(kernelio::IoBuffer data) {
  if (data.size() == 0 || !random_.chance(links.corruptPerMillion)) return data;
  auto copy = kernelio::IoBuffer::allocate(data.size());
  std::memcpy(copy.begin(), data.begin(), data.size());
  copy.begin()[random_.below(data.size())] ^= static_cast<kj::byte>(1u << random_.below(8));
  return copy;
}

template <typename Message>
void SimNetwork::damage(Message& message) {
  if (links.corruptPerMillion == 0) return;
  if constexpr (std::is_same_v<Message, kernelio::IoBuffer>) {
    message = maybeCorrupt(kj::mv(message));
  } else if constexpr (std::is_same_v<Message, ExtentBlockReply>) {
    message.data = maybeCorrupt(kj::mv(message.data));
  }
}

template <typename Reply, typename Request, typename Method>
Co<Reply> SimNetwork::deliver(NodeId from, NodeId to, Request request, Method method) {
  damage(request);
  VolumeId volume;
  if constexpr (std::is_same_v<Request, FenceRequest>) volume = request.coordinator.id;
  if constexpr (std::is_same_v<Request, AppendRequest>) {
    volume = request.volume;
    if (tap != nullptr) tap->appendSent(from, to, request);
  }
  co_await travel(from, to);
  auto it = nodes_.find(to);
  if (it == nodes_.end()) {
    kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "the node is down", to));
  }
  auto node = it->second;
  auto handled = node->serving.wrap(method(node->service, from, kj::mv(request)));
  if constexpr (std::is_void_v<Reply>) {
    co_await kj::mv(handled);
    co_await travel(to, from);
  } else {
    auto reply = co_await kj::mv(handled);
    damage(reply);
    if (tap != nullptr) {
      if constexpr (std::is_same_v<Reply, AppendReply>) tap->appendAnswered(from, to, volume, reply);
      if constexpr (std::is_same_v<Reply, FenceReply>) tap->fenceAnswered(from, to, volume, reply);
    }
    co_await travel(to, from);
    co_return kj::mv(reply);
  }
}

template <typename Request, typename Method>
Co<void> SimNetwork::repeat(NodeId from, NodeId to, Request request, Method method) {
  co_await timer_.afterDelay(static_cast<int64_t>(random_.below(20'000)) * kj::MICROSECONDS);
  co_await travel(from, to);
  auto it = nodes_.find(to);
  if (it == nodes_.end()) co_return;
  auto node = it->second;
  auto handled = node->serving.wrap(method(node->service, from, kj::mv(request)));
  auto ignored = co_await outcomeOf(kj::mv(handled));
  (void)ignored;
}

template <typename Reply, typename Request, typename Method>
kj::Promise<Reply> SimNetwork::call(NodeId from, NodeId to, Request request, Method method) {
  if constexpr (std::is_copy_constructible_v<Request>) {
    if (links.repeatPerMillion > 0 && random_.chance(links.repeatPerMillion)) {
      tasks_.add(repeat(from, to, request, method));
    }
  }
  auto forked = deliver<Reply>(from, to, kj::mv(request), method).promise();
  // The sender may stop waiting; the message is on its way all the same.
  auto paf = kj::newPromiseAndFulfiller<Reply>();
  auto fulfiller = std::make_shared<kj::Own<kj::PromiseFulfiller<Reply>>>(kj::mv(paf.fulfiller));
  if constexpr (std::is_void_v<Reply>) {
    tasks_.add(forked.then([fulfiller]() { (*fulfiller)->fulfill(); },
                           [fulfiller](kj::Exception&& e) { (*fulfiller)->reject(kj::mv(e)); }));
  } else {
    tasks_.add(forked.then([fulfiller](Reply&& r) { (*fulfiller)->fulfill(kj::mv(r)); },
                           [fulfiller](kj::Exception&& e) { (*fulfiller)->reject(kj::mv(e)); }));
  }
  return kj::mv(paf.promise);
}

namespace {

class SimPeer final : public Peer {
 public:
  SimPeer(SimNetwork& network, NodeId self, NodeId node)
      : network_(network), self_(std::move(self)), node_(std::move(node)) {}

  const NodeId& node() override { return node_; }
  bool connected() override {
    return network_.isUp(node_) && !network_.isCut(self_, node_) && !network_.isCut(node_, self_);
  }

  bool refused() override {
    return !network_.isUp(node_) && !network_.isCut(self_, node_) && !network_.isCut(node_, self_);
  }

  kj::Promise<AppendReply> append(AppendRequest request) override {
    return send<AppendReply>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.append(from, kj::mv(r));
    });
  }
  kj::Promise<FenceReply> fence(FenceRequest request) override {
    return send<FenceReply>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.fence(from, kj::mv(r));
    });
  }
  kj::Promise<FetchReply> fetch(FetchRequest request) override {
    return send<FetchReply>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.fetch(from, kj::mv(r));
    });
  }
  kj::Promise<LogPosition> commonPrefix(CommonPrefixRequest request) override {
    return send<LogPosition>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.commonPrefix(from, kj::mv(r));
    });
  }
  kj::Promise<ProposeReply> propose(ProposeRequest request) override {
    return send<ProposeReply>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.propose(from, kj::mv(r));
    });
  }
  kj::Promise<ReadIndexReply> readIndex(ReadIndexRequest request) override {
    return send<ReadIndexReply>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.readIndex(from, kj::mv(r));
    });
  }
  kj::Promise<ConfirmReply> confirm(ConfirmRequest request) override {
    return send<ConfirmReply>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.confirm(from, kj::mv(r));
    });
  }
  kj::Promise<ConsentReply> consent(ConsentRequest request) override {
    return send<ConsentReply>(kj::mv(request), [](auto& s, auto& from, auto&& r) {
      return s.consent(from, kj::mv(r));
    });
  }
  kj::Promise<void> takeOver(VolumeId volume) override {
    return send<void>(volume, [](auto& s, auto& from, auto&& v) { return s.takeOver(from, v); });
  }
  kj::Promise<void> writeExtentBlock(ExtentId id, uint64_t block, kernelio::IoBuffer data,
                                     Hash128 checksum) override {
    return send<void>(kj::mv(data), [id, block, checksum](auto& s, auto& from, auto&& d) {
      return s.writeExtentBlock(from, id, block, kj::mv(d), checksum);
    });
  }
  kj::Promise<void> sealExtent(ExtentId id, uint64_t bytes, Hash128 root) override {
    return send<void>(id, [bytes, root](auto& s, auto& from, auto&& i) {
      return s.sealExtent(from, i, bytes, root);
    });
  }
  kj::Promise<void> abandonExtent(ExtentId id) override {
    return send<void>(id, [](auto& s, auto& from, auto&& i) { return s.abandonExtent(from, i); });
  }
  kj::Promise<ExtentBlockReply> readExtentBlock(ExtentId id, uint64_t block) override {
    return send<ExtentBlockReply>(id, [block](auto& s, auto& from, auto&& i) {
      return s.readExtentBlock(from, i, block);
    });
  }
  kj::Promise<std::pair<uint64_t, Hash128>> extentInfo(ExtentId id) override {
    return send<std::pair<uint64_t, Hash128>>(id, [](auto& s, auto& from, auto&& i) {
      return s.extentInfo(from, i);
    });
  }
  kj::Promise<OpenCheckpointReply> openCheckpoint(OpenCheckpointRequest request) override {
    return send<OpenCheckpointReply>(request, [](auto& s, auto& from, auto&& r) {
      return s.openCheckpoint(from, r);
    });
  }
  kj::Promise<ExtentBlockReply> readCheckpointBlock(CheckpointBlockRequest request) override {
    return send<ExtentBlockReply>(request, [](auto& s, auto& from, auto&& r) {
      return s.readCheckpointBlock(from, r);
    });
  }
  kj::Promise<void> closeCheckpoint(CloseCheckpointRequest request) override {
    return send<void>(request, [](auto& s, auto& from, auto&& r) {
      return s.closeCheckpoint(from, r);
    });
  }
  kj::Promise<kj::Array<kj::byte>> query(VolumeId volume, std::string name,
                                         kj::Array<const kj::byte> question) override {
    return send<kj::Array<kj::byte>>(kj::mv(question), [volume, name](auto& s, auto& from, auto&& q) {
      return s.query(from, volume, name, kj::mv(q));
    });
  }

 private:
  template <typename Reply, typename Request, typename Method>
  kj::Promise<Reply> send(Request request, Method method) {
    return network_.call<Reply>(self_, node_, kj::mv(request),
                                [method](PeerService& service, const NodeId& from, Request&& r) {
                                  return method(service, from, kj::mv(r));
                                });
  }

  SimNetwork& network_;
  const NodeId self_, node_;
};

class SimPeers final : public Peers {
 public:
  SimPeers(SimNetwork& network, NodeId self) : network_(network), self_(std::move(self)) {}
  const NodeId& self() override { return self_; }
  Peer& peer(const NodeId& node) override {
    auto& place = peers_[node];
    if (place == nullptr) place = std::make_unique<SimPeer>(network_, self_, node);
    return *place;
  }
  kj::Promise<void> connectivityChanged() override { return network_.whenChanged(); }

 private:
  SimNetwork& network_;
  const NodeId self_;
  std::map<NodeId, std::unique_ptr<SimPeer>> peers_;
};

}  // namespace

kj::Own<Peers> SimNetwork::makePeers(const NodeId& self) { return kj::heap<SimPeers>(*this, self); }

}  // namespace packmoor::replicator
