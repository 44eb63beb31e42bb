// PeerConnection: Cap'n Proto RPC over one greeted stream, on either side.
//
// Dropping it closes the connection; calls made through it are then rejected as DISCONNECTED.
#pragma once

#include <capnp/rpc-twoparty.h>

#include "peer_handshake.h"
#include "peer_stream.h"

#include <rpc/peers.h>

namespace packmoor::rpc {

class PeerConnection {
 public:
  // Dialling side.
  explicit PeerConnection(GreetedStream greeted);
  // Accepting side: `bootstrap` is what the other side calls.
  PeerConnection(GreetedStream greeted, wire::Node::Client bootstrap);

  wire::Node::Client& node() { return node_; }  // dialling side only
  const PeerIntroduction& other() const { return greeted_.other; }
  kj::Promise<void> whenBroken() { return network_.onDisconnect(); }

 private:
  GreetedStream greeted_;
  PeerMessageStream messages_;
  capnp::TwoPartyVatNetwork network_;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc_;
  wire::Node::Client node_;
};

}  // namespace packmoor::rpc
