// The accepting side: a port, the connections that were accepted on it, and who they are.
//
// A connection first proves a node id, by TLS and greeting, within kPeerHandshakeTimeoutMs; at most
// kPeerUnauthenticatedMax may be at that. A node's newer connection for a purpose takes the place
// of its older one. Nothing that arrives on the port ends the loop that accepts.
#pragma once

#include "peer_link.h"

#include <kj/function.h>

namespace packmoor::rpc {

// `onArrival` is told of each node that has connected.
kj::Promise<kj::Own<PeerListener>> listenForPeers(
    PeerHub& hub, std::string address, replicator::PeerService& service,
    kj::Function<void(const replicator::NodeId&)> onArrival);

}  // namespace packmoor::rpc
