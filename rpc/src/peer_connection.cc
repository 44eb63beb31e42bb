#include "peer_connection.h"

#include "peer_translate.h"

namespace packmoor::rpc {
namespace {

capnp::ReaderOptions messageLimits() {
  capnp::ReaderOptions options;
  // A message of the largest size, read once over and then some; far below what could hurt.
  options.traversalLimitInWords = kPeerMessageBytesMax / sizeof(capnp::word);
  return options;
}

wire::Node::Client bootstrapOf(capnp::RpcSystem<capnp::rpc::twoparty::VatId>& rpc) {
  capnp::word scratch[4] = {};
  capnp::MallocMessageBuilder message(scratch);
  auto vat = message.getRoot<capnp::rpc::twoparty::VatId>();
  vat.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(vat).castAs<wire::Node>();
}

}  // namespace

PeerConnection::PeerConnection(GreetedStream greeted)
    : greeted_(kj::mv(greeted)),
      messages_(*greeted_.stream, kPeerStreamWindowBytes),
      network_(messages_, capnp::rpc::twoparty::Side::CLIENT, messageLimits()),
      rpc_(capnp::makeRpcClient(network_)),
      node_(bootstrapOf(rpc_)) {}

PeerConnection::PeerConnection(GreetedStream greeted, wire::Node::Client bootstrap)
    : greeted_(kj::mv(greeted)),
      messages_(*greeted_.stream, kPeerStreamWindowBytes),
      network_(messages_, capnp::rpc::twoparty::Side::SERVER, messageLimits()),
      rpc_(capnp::makeRpcServer(network_, kj::mv(bootstrap))),
      node_(nullptr) {
  const size_t bytesMax =
      greeted_.role == PeerRole::kBulk ? kPeerBulkBytesMax : kPeerControlBytesMax;
  rpc_.setFlowLimit(bytesMax / sizeof(capnp::word));
}

}  // namespace packmoor::rpc
