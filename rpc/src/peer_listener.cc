#include "peer_listener.h"

#include <kj/compat/tls.h>
#include <kj/debug.h>

#include <map>

#include "describe.h"
#include "peer_connection.h"
#include "peer_node_service.h"
#include "peer_translate.h"

namespace packmoor::rpc {
namespace {

constexpr int64_t kAcceptPauseMs = 100;        // after a failure to accept, as with no descriptors
constexpr int64_t kRefusalPeriodMs = 10'000;   // notices of refusals are counted per period
constexpr uint32_t kRefusalNoticesMax = 20;    // and beyond this many only counted

class Listener final : public PeerListener, private kj::TaskSet::ErrorHandler {
 public:
  Listener(PeerHub& hub, kj::Own<kj::ConnectionReceiver> port, replicator::PeerService& service,
           kj::Function<void(const replicator::NodeId&)> onArrival)
      : hub_(hub),
        port_(kj::mv(port)),
        service_(service),
        onArrival_(kj::mv(onArrival)),
        cleanups_(*this),
        tasks_(*this),
        accepting_(kj::Promise<void>(acceptLoop()).eagerlyEvaluate([](kj::Exception&& e) {
          KJ_LOG(ERROR, "The port for other nodes no longer accepts.", e);
        })) {}

  uint16_t port() override { return static_cast<uint16_t>(port_->getPort()); }
  size_t connections() override { return live_.size(); }
  uint64_t refusals() override { return refusals_; }

 private:
  using Slot = std::pair<replicator::NodeId, PeerRole>;
  struct Live {
    uint64_t number;
    kj::Own<kj::PromiseFulfiller<void>> replaced;
  };

  Co<void> acceptLoop();
  Co<void> serve(kj::AuthenticatedStream stream, kj::String address);
  Co<GreetedStream> authenticate(kj::AuthenticatedStream stream);
  Co<void> run(GreetedStream greeted);
  void refused(kj::StringPtr address, const kj::Exception& cause);
  void say(NoticeLevel level, kj::StringPtr sentence) {
    notify(hub_.options.notices, level, sentence);
  }
  void taskFailed(kj::Exception&& e) override {
    KJ_LOG(ERROR, "Serving another node failed.", e);
  }

  PeerHub& hub_;
  kj::Own<kj::ConnectionReceiver> port_;
  replicator::PeerService& service_;
  kj::Function<void(const replicator::NodeId&)> onArrival_;
  size_t unauthenticated_ = 0;
  uint64_t refusals_ = 0, numbers_ = 0;
  kj::TimePoint refusalPeriod_ = kj::origin<kj::TimePoint>();
  uint32_t refusalNotices_ = 0;
  std::map<Slot, Live> live_;
  kj::TaskSet cleanups_;  // of the service, when connections ended
  kj::TaskSet tasks_;
  kj::Promise<void> accepting_;
};

Co<void> Listener::acceptLoop() {
  for (;;) {
    kj::Maybe<kj::Exception> failure;
    try {
      auto stream = co_await port_->acceptAuthenticated();
      auto address = stream.peerIdentity->toString();
      if (unauthenticated_ >= kPeerUnauthenticatedMax) {
        refused(address, KJ_EXCEPTION(OVERLOADED, "too many connections that have not yet proved "
                                                  "a node id"));
      } else {
        tasks_.add(kj::Promise<void>(serve(kj::mv(stream), kj::mv(address))));
      }
    } catch (kj::Exception& e) {
      failure = kj::mv(e);
    }
    KJ_IF_MAYBE(e, failure) {
      refused("(not accepted)"_kj, *e);
      co_await hub_.options.timer.afterDelay(kAcceptPauseMs * kj::MILLISECONDS);
    }
  }
}

void Listener::refused(kj::StringPtr address, const kj::Exception& cause) {
  ++refusals_;
  const auto now = hub_.options.timer.now();
  if (now - refusalPeriod_ > kRefusalPeriodMs * kj::MILLISECONDS) {
    refusalPeriod_ = now;
    refusalNotices_ = 0;
  }
  if (++refusalNotices_ > kRefusalNoticesMax) return;
  say(NoticeLevel::kWarning,
      kj::str("A connection from ", address, " to the port for nodes was refused: ",
              describeCause(cause).c_str(), ".",
              refusalNotices_ == kRefusalNoticesMax ? " More of these are only counted." : ""));
}

Co<void> Listener::serve(kj::AuthenticatedStream stream, kj::String address) {
  kj::Maybe<GreetedStream> accepted;
  ++unauthenticated_;
  try {
    auto timeout = hub_.options.timer.afterDelay(kPeerHandshakeTimeoutMs * kj::MILLISECONDS)
                       .then([]() -> kj::Promise<GreetedStream> {
                         return KJ_EXCEPTION(DISCONNECTED, "it did not say who it is in time");
                       });
    auto greeting = kj::Promise<GreetedStream>(authenticate(kj::mv(stream)))
                        .exclusiveJoin(kj::mv(timeout));
    auto greeted = co_await kj::mv(greeting);
    accepted = kj::mv(greeted);
  } catch (kj::Exception& e) {
    refused(address, e);
  }
  --unauthenticated_;
  KJ_IF_MAYBE(greeted, accepted) {
    auto running = run(kj::mv(*greeted));
    co_await kj::mv(running);
  }
}

Co<GreetedStream> Listener::authenticate(kj::AuthenticatedStream stream) {
  tunePeerSocket(*stream.stream, PeerRole::kControl);
  auto handshake = hub_.options.tls.accepting().wrapServer(kj::mv(stream));
  auto secured = co_await kj::mv(handshake);
  auto node = certifiedNode(*secured.peerIdentity);
  auto welcomed = welcome(kj::mv(secured.stream), hub_.introduction(), kj::mv(node));
  auto greeted = co_await kj::mv(welcomed);
  tunePeerSocket(*greeted.stream, greeted.role);
  co_return kj::mv(greeted);
}

Co<void> Listener::run(GreetedStream greeted) {
  const Slot slot(greeted.other.node, greeted.role);
  const uint64_t number = ++numbers_;
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto older = live_.find(slot);
  if (older != live_.end()) {
    older->second.replaced->fulfill();
    live_.erase(older);
  }
  live_.emplace(slot, Live{number, kj::mv(paf.fulfiller)});
  KJ_DEFER({
    auto mine = live_.find(slot);
    if (mine != live_.end() && mine->second.number == number) live_.erase(mine);
  });

  auto calls = kj::refcounted<InboundCalls>(service_, slot.first, cleanups_);
  KJ_DEFER(calls->close());
  PeerConnection connection(kj::mv(greeted), makeNodeService(kj::addRef(*calls)));
  onArrival_(slot.first);
  auto ended = connection.whenBroken()
                   .then([]() {}, [](kj::Exception&&) {})
                   .exclusiveJoin(kj::mv(paf.promise));
  co_await kj::mv(ended);
}

class SolitaryPeer final : public replicator::Peer {
 public:
  explicit SolitaryPeer(replicator::NodeId node) : node_(kj::mv(node)) {}
  const replicator::NodeId& node() override { return node_; }
  bool connected() override { return false; }
  bool refused() override { return false; }
  kj::Promise<replicator::AppendReply> append(replicator::AppendRequest) override {
    return alone();
  }
  kj::Promise<replicator::FenceReply> fence(replicator::FenceRequest) override { return alone(); }
  kj::Promise<replicator::FetchReply> fetch(replicator::FetchRequest) override { return alone(); }
  kj::Promise<replicator::LogPosition> commonPrefix(replicator::CommonPrefixRequest) override {
    return alone();
  }
  kj::Promise<replicator::ProposeReply> propose(replicator::ProposeRequest) override {
    return alone();
  }
  kj::Promise<replicator::ReadIndexReply> readIndex(replicator::ReadIndexRequest) override {
    return alone();
  }
  kj::Promise<replicator::ConfirmReply> confirm(replicator::ConfirmRequest) override {
    return alone();
  }
  kj::Promise<replicator::ConsentReply> consent(replicator::ConsentRequest) override {
    return alone();
  }
  kj::Promise<void> takeOver(replicator::VolumeId) override { return alone(); }
  kj::Promise<void> writeExtentBlock(replicator::ExtentId, uint64_t, kernelio::IoBuffer,
                                     replicator::Hash128) override {
    return alone();
  }
  kj::Promise<void> sealExtent(replicator::ExtentId, uint64_t, replicator::Hash128) override {
    return alone();
  }
  kj::Promise<void> abandonExtent(replicator::ExtentId) override { return alone(); }
  kj::Promise<replicator::ExtentBlockReply> readExtentBlock(replicator::ExtentId,
                                                            uint64_t) override {
    return alone();
  }
  kj::Promise<std::pair<uint64_t, replicator::Hash128>> extentInfo(
      replicator::ExtentId) override {
    return alone();
  }
  kj::Promise<kj::Array<kj::byte>> query(replicator::VolumeId, std::string,
                                         kj::Array<const kj::byte>) override {
    return alone();
  }

 private:
  kj::Exception alone() const {
    return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                         kj::str("Node ", node_.c_str(),
                                 " is not reachable: this node has no peer endpoint."));
  }
  replicator::NodeId node_;
};

class SolitaryPeers final : public replicator::Peers {
 public:
  explicit SolitaryPeers(replicator::NodeId self) : self_(kj::mv(self)) {}
  const replicator::NodeId& self() override { return self_; }
  replicator::Peer& peer(const replicator::NodeId& node) override {
    return peers_.try_emplace(node, node).first->second;
  }
  kj::Promise<void> connectivityChanged() override { return kj::NEVER_DONE; }

 private:
  replicator::NodeId self_;
  std::map<replicator::NodeId, SolitaryPeer> peers_;
};

}  // namespace

kj::Promise<kj::Own<PeerListener>> listenForPeers(
    PeerHub& hub, std::string address, replicator::PeerService& service,
    kj::Function<void(const replicator::NodeId&)> onArrival) {
  auto parsed = hub.options.network.parseAddress(asStringPtr(address));
  return parsed.then(
      [&hub, &service, address, onArrival = kj::mv(onArrival)](
          kj::Own<kj::NetworkAddress> parsed) mutable -> kj::Own<PeerListener> {
        kj::Own<kj::ConnectionReceiver> port;
        KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { port = parsed->listen(); })) {
          kj::throwFatalException(kj::Exception(
              e->getType(), __FILE__, __LINE__,
              kj::str("Cannot listen for other nodes on ", address.c_str(), ": ",
                      describeCause(*e).c_str(), ".")));
        }
        return kj::heap<Listener>(hub, kj::mv(port), service, kj::mv(onArrival));
      });
}

kj::Own<replicator::Peers> makeSolitaryPeers(replicator::NodeId self) {
  return kj::heap<SolitaryPeers>(kj::mv(self));
}

}  // namespace packmoor::rpc
