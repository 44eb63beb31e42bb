// PeerLink: one dialled connection to one node, made again whenever it breaks.
//
// Owned by its RemotePeer; its loop is the transport's. The hub outlives it.
#pragma once

#include "change_signal.h"
#include "peer_handshake.h"

#include <rpc/peers.h>

#include <kernelio/co.h>

namespace packmoor::rpc {

class PeerConnection;

// What the links of one transport share.
class PeerHub {
 public:
  explicit PeerHub(PeerTransportOptions options) : options(kj::mv(options)) {}

  PeerTransportOptions options;

  PeerIntroduction introduction() const {
    return {options.self, options.cluster, options.software};
  }
  ChangeSignal connectivity;
};

class PeerLink {
 public:
  // `onLost` runs after a connection was lost and its capabilities are dead.
  PeerLink(PeerHub& hub, replicator::NodeId node, PeerRole role, kj::Function<void()> onLost);
  ~PeerLink() noexcept(false);

  bool connected() const { return connection_ != nullptr; }
  // Not connected, and the last attempt was refused: nothing listens there.
  bool refused() const { return connection_ == nullptr && refused_; }
  // The other node, when connected.
  kj::Maybe<wire::Node::Client&> node();
  // Resolves when connected; rejects as soon as an attempt has failed.
  kj::Promise<void> whenConnected();
  void dialNow();  // cuts a pause short

  const std::string& address() const { return address_; }
  const std::string& software() const { return software_; }
  const std::string& problem() const { return problem_; }

 private:
  Co<void> run();
  Co<kj::Own<PeerConnection>> dial();
  Co<GreetedStream> greet(std::string address);
  void attemptBegins();
  void attemptFails(const kj::Exception& cause);
  std::string describeFailure(const kj::Exception& cause) const;
  kj::Exception unreachable() const;
  kj::Promise<void> pause();

  PeerHub& hub_;
  replicator::NodeId node_;
  PeerRole role_;
  kj::Function<void()> onLost_;

  kj::Maybe<kj::Own<PeerConnection>> connection_;
  bool dialling_ = false, refused_ = false;
  kj::Own<kj::PromiseFulfiller<void>> attemptFulfiller_;
  kj::ForkedPromise<void> attempt_ = nullptr;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> pauseFulfiller_;
  int64_t backoffMs_ = kPeerBackoffMinMs;
  enum class Stage : uint8_t { kConnect, kTls, kGreeting } stage_ = Stage::kConnect;
  std::string address_, software_, problem_, reported_;
  kj::Promise<void> task_;
};

// TCP settings that every connection between nodes has.
void tunePeerSocket(kj::AsyncIoStream& stream, PeerRole role);

}  // namespace packmoor::rpc
