#include "rpc/peers.h"

#include <kernelio/check.h>

#include <map>

#include "peer_listener.h"
#include "remote_peer.h"

namespace packmoor::rpc {
namespace {

class Transport final : public PeerTransport {
 public:
  explicit Transport(PeerTransportOptions options) : hub_(kj::mv(options)) {
    PACKMOOR_CHECK(hub_.options.resolve != nullptr, "a transport needs a resolver");
  }

  const replicator::NodeId& self() override { return hub_.options.self; }

  replicator::Peer& peer(const replicator::NodeId& node) override {
    auto found = peers_.find(node);
    if (found == peers_.end()) {
      found = peers_.emplace(node, kj::heap<RemotePeer>(hub_, node)).first;
    }
    return *found->second;
  }

  kj::Promise<void> connectivityChanged() override { return hub_.connectivity.changed(); }

  kj::Promise<kj::Own<PeerListener>> listen(std::string address,
                                            replicator::PeerService& service) override {
    // A node that has just connected can be reached again.
    return listenForPeers(hub_, kj::mv(address), service, [this](const replicator::NodeId& node) {
      auto found = peers_.find(node);
      if (found != peers_.end()) found->second->dialNow();
    });
  }

  void addressesChanged() override {
    for (auto& [node, peer] : peers_) peer->dialNow();
  }

  std::vector<PeerConnectionStatus> status() override {
    std::vector<PeerConnectionStatus> all;
    for (auto& [node, peer] : peers_) all.push_back(peer->status());
    return all;
  }

 private:
  PeerHub hub_;
  std::map<replicator::NodeId, kj::Own<RemotePeer>> peers_;
};

}  // namespace

kj::Own<PeerTransport> PeerTransport::create(PeerTransportOptions options) {
  return kj::heap<Transport>(kj::mv(options));
}

}  // namespace packmoor::rpc
