// The first two messages of a connection between nodes, after TLS: who speaks, to whom, and which
// protocol.
//
// The node that dialled sends Hello; the other answers Welcome, with a refusal or without. A
// refusal is a sentence that both sides log. Raise kPeerProtocol when an older node would misread
// what a newer one sends; keep kPeerProtocolMin at the oldest that this version still speaks.
#pragma once

#include "rpc/peer.capnp.h"

#include <replicator/types.h>

#include <kj/async-io.h>

#include <string>

namespace packmoor::rpc {

constexpr uint16_t kPeerProtocol = 1;
constexpr uint16_t kPeerProtocolMin = 1;

enum class PeerRole : uint8_t { kControl, kBulk };
kj::StringPtr roleText(PeerRole role);

struct PeerIntroduction {
  replicator::NodeId node;
  std::string cluster;
  std::string software;
};

// A connection whose other side is known.
struct GreetedStream {
  kj::Own<kj::AsyncIoStream> stream;
  PeerIntroduction other;
  PeerRole role = PeerRole::kControl;
};

// Dialling side. `stream` has proved by TLS to be `target`. Throws with a sentence when refused.
kj::Promise<GreetedStream> introduce(kj::Own<kj::AsyncIoStream> stream, PeerIntroduction self,
                                     replicator::NodeId target, PeerRole role);

// Accepting side. `certified` is the node id that TLS proved. Throws, after having told the other
// side, when it is not accepted.
kj::Promise<GreetedStream> welcome(kj::Own<kj::AsyncIoStream> stream, PeerIntroduction self,
                                   replicator::NodeId certified);

// The node id that the certificate of a TLS stream proves. Throws when it proves none.
replicator::NodeId certifiedNode(kj::PeerIdentity& identity);

}  // namespace packmoor::rpc
