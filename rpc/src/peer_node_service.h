// The bootstrap object of an accepted connection: calls from one authenticated node, handed to
// the PeerService.
//
// Lifetime: Cap'n Proto may keep the object, and calls in progress, beyond the connection. The
// InboundCalls of the connection is what lets go of the service: close() cancels all calls that
// are running in it and refuses later ones.
#pragma once

#include "rpc/peer.capnp.h"

#include <replicator/peer.h>

#include <kj/async.h>
#include <kj/refcount.h>

#include <map>

namespace packmoor::rpc {

class InboundCalls final : public kj::Refcounted {
 public:
  // `cleanups` outlives close(); it takes the abandoning of extents that were left unsealed.
  InboundCalls(replicator::PeerService& service, replicator::NodeId from, kj::TaskSet& cleanups);

  template <typename T, typename Func>
  kj::Promise<T> call(Func&& func) {
    if (service_ == nullptr) return closedException();
    return canceler_.wrap(kj::Promise<T>(func(*service_, from_)));
  }

  // Extents that arrive on this connection, from their first block to their seal. An extent that
  // is begun again gets a new ticket; what comes with the old one is refused.
  uint64_t beginExtent(const replicator::ExtentId& id);
  void requireOpen(const replicator::ExtentId& id, uint64_t ticket) const;
  void endExtent(const replicator::ExtentId& id) { open_.erase(id); }
  void abandonIfOpen(const replicator::ExtentId& id, uint64_t ticket);

  // Cancels what runs and abandons the extents that are open. Idempotent.
  void close();

 private:
  static kj::Exception closedException();

  replicator::PeerService* service_;
  replicator::NodeId from_;
  kj::TaskSet& cleanups_;
  std::map<replicator::ExtentId, uint64_t> open_;
  uint64_t lastTicket_ = 0;
  kj::Canceler canceler_;
};

wire::Node::Client makeNodeService(kj::Own<InboundCalls> calls);

}  // namespace packmoor::rpc
