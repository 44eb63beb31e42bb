// PeerTransport: replicator::Peers over Cap'n Proto and mutual TLS.
//
// Why: nodes must know for certain whom they hear, and a pack on its way must never delay a
// heartbeat. Each node dials every other node that it talks to twice, once for control and once for
// bulk (extents, fetches, queries), and calls through the connections that it dialled; so the pair
// A, B has two connections in each direction, and each direction can break by itself.
//
// Identity: a node's certificate, signed by the cluster's authority, names its node id. The
// dialling side requires the id that it wanted, the accepting side passes the id on as `from`.
// Whether that node may say what it says is for the PeerService to judge.
//
// Connections are kept: after a failure they are dialled again, with a growing pause up to
// kPeerBackoffMaxMs, and at once when the other node has just connected to us or its address
// changed. A call without a connection waits for the attempt that is under way, if there is one,
// and is otherwise rejected as DISCONNECTED with the reason of the last failure.
//
// A bulk connection that breaks loses the extents that were streaming over it: their later blocks
// and seals are rejected until the extent is abandoned or its seal has failed, and the receiver
// abandons them.
//
// Owner: the node. Loop: the node's. The references in PeerTransportOptions outlive it. Listeners
// are dropped before their PeerService; the transport outlives the users of its Peers.
#pragma once

#include "rpc/notice.h"
#include "rpc/tls.h"

#include <replicator/peer.h>

#include <kj/async-io.h>
#include <kj/timer.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace packmoor::rpc {

constexpr int64_t kPeerHandshakeTimeoutMs = 5'000;  // connect, TLS and greeting, on either side
constexpr int64_t kPeerBackoffMinMs = 20;
constexpr int64_t kPeerBackoffMaxMs = 500;
constexpr int64_t kPeerSteadyMs = 1'000;  // a connection that lasted so long is dialled again at once
// Bytes that the other side does not take for so long break a connection: on bulk also when its
// disk is what does not take them.
constexpr uint32_t kPeerControlStuckMs = 10'000, kPeerBulkStuckMs = 60'000;
constexpr size_t kPeerUnauthenticatedMax = 64;      // connections that have not proved a node id
constexpr size_t kPeerStreamWindowBytes = 2u << 20;  // of one extent, sent and not yet written
constexpr size_t kPeerBulkBytesMax = 16u << 20;     // read from a bulk connection, not answered
// Room for all that a primary may have in flight, and for what others ask beside it.
constexpr size_t kPeerControlBytesMax = replicator::kInFlightBytesMax + (32u << 20);

struct PeerTransportOptions {
  kj::Timer& timer;
  kj::Network& network;
  TlsMaterial& tls;
  replicator::NodeId self;
  std::string cluster;
  std::string software;  // version, told to the other side
  // Where a node's peer endpoint is ("host:port"), asked before each dial.
  std::function<std::optional<std::string>(const replicator::NodeId&)> resolve;
  NoticeSink notices;
};

struct PeerConnectionStatus {
  replicator::NodeId node;
  std::string address;   // last dialled
  std::string software;  // of the other side, when it was ever connected
  bool control = false, bulk = false;
  std::string problem;   // of the last failed attempt, when not connected
};

// An endpoint on which other nodes call a PeerService. Dropping it closes the port, its
// connections and the calls that they have running.
class PeerListener {
 public:
  virtual ~PeerListener() noexcept(false) {}
  virtual uint16_t port() = 0;
  virtual size_t connections() = 0;      // authenticated ones
  virtual uint64_t refusals() = 0;       // connections that did not become one of these
};

class PeerTransport : public replicator::Peers {
 public:
  static kj::Own<PeerTransport> create(PeerTransportOptions options);

  // `address`: "host:port", port 0 for a free one. `service` outlives the listener. Rejects with a
  // sentence when the address cannot be used.
  virtual kj::Promise<kj::Own<PeerListener>> listen(std::string address,
                                                    replicator::PeerService& service) = 0;
  // What resolve() answers may have changed: nodes that are not connected are dialled now.
  virtual void addressesChanged() = 0;
  // Nodes that were ever asked for by peer(), by id.
  virtual std::vector<PeerConnectionStatus> status() = 0;
};

// The Peers of a node that stands alone: every other node is unreachable.
kj::Own<replicator::Peers> makeSolitaryPeers(replicator::NodeId self);

}  // namespace packmoor::rpc
