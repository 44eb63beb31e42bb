#include "peer_link.h"

#include <kj/compat/tls.h>
#include <kj/debug.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "describe.h"
#include "peer_connection.h"
#include "peer_translate.h"

namespace packmoor::rpc {

void tunePeerSocket(kj::AsyncIoStream& stream, PeerRole role) {
  // A socket may be broken already; then its first read says so.
  kj::runCatchingExceptions([&]() {
    const int on = 1, idleSeconds = 5, intervalSeconds = 2, probes = 3;
    const unsigned int userTimeoutMs =
        role == PeerRole::kControl ? kPeerControlStuckMs : kPeerBulkStuckMs;
    stream.setsockopt(IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    stream.setsockopt(SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    stream.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, &idleSeconds, sizeof idleSeconds);
    stream.setsockopt(IPPROTO_TCP, TCP_KEEPINTVL, &intervalSeconds, sizeof intervalSeconds);
    stream.setsockopt(IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    stream.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, &userTimeoutMs, sizeof userTimeoutMs);
  });
}

PeerLink::PeerLink(PeerHub& hub, replicator::NodeId node, PeerRole role,
                   kj::Function<void()> onLost)
    : hub_(hub),
      node_(kj::mv(node)),
      role_(role),
      onLost_(kj::mv(onLost)),
      task_(nullptr) {
  attemptBegins();  // calls made before the loop turns wait for it
  task_ = kj::Promise<void>(run()).eagerlyEvaluate([](kj::Exception&& e) {
    KJ_LOG(ERROR, "A connection to a node is no longer kept up.", e);
  });
}

PeerLink::~PeerLink() noexcept(false) {}

kj::Maybe<wire::Node::Client&> PeerLink::node() {
  KJ_IF_MAYBE(connection, connection_) { return (*connection)->node(); }
  return nullptr;
}

kj::Promise<void> PeerLink::whenConnected() {
  if (connection_ != nullptr) return kj::READY_NOW;
  if (dialling_) return attempt_.addBranch();
  return unreachable();
}

void PeerLink::dialNow() {
  backoffMs_ = kPeerBackoffMinMs;
  KJ_IF_MAYBE(fulfiller, pauseFulfiller_) { (*fulfiller)->fulfill(); }
}

kj::Exception PeerLink::unreachable() const {
  return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                       kj::str("Node ", node_.c_str(), " is not reachable: ",
                               problem_.empty() ? "the connection was lost" : problem_.c_str(),
                               "."));
}

void PeerLink::attemptBegins() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  attemptFulfiller_ = kj::mv(paf.fulfiller);
  attempt_ = paf.promise.fork();
  dialling_ = true;
}

std::string PeerLink::describeFailure(const kj::Exception& cause) const {
  const std::string text = describeCause(cause);
  switch (stage_) {
    case Stage::kConnect:
      return text;
    case Stage::kTls:
      return "it did not prove by its certificate to be that node (" + text + ")";
    case Stage::kGreeting:
      // With TLS 1.3 a refused certificate shows only when the first answer is read.
      if (text.find("alert") == std::string::npos) return text;
      return "it does not accept this node's certificate (" + text + ")";
  }
  return text;
}

void PeerLink::attemptFails(const kj::Exception& cause) {
  dialling_ = false;
  problem_ = describeFailure(cause);
  const bool refused = stage_ == Stage::kConnect && problem_ == strerror(ECONNREFUSED);
  if (refused != refused_) {
    refused_ = refused;
    hub_.connectivity.raise();
  }
  attemptFulfiller_->reject(unreachable());
  if (problem_ != reported_) {
    notify(hub_.options.notices, NoticeLevel::kWarning,
           kj::str("Node ", node_.c_str(), " at ", address_.empty() ? "?" : address_.c_str(),
                   " cannot be reached for ", roleText(role_), ": ", problem_.c_str(), "."));
    reported_ = problem_;
  }
}

kj::Promise<void> PeerLink::pause() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  pauseFulfiller_ = kj::mv(paf.fulfiller);
  const auto delay = backoffMs_ * kj::MILLISECONDS;
  backoffMs_ = std::min(backoffMs_ * 2, kPeerBackoffMaxMs);
  return hub_.options.timer.afterDelay(delay).exclusiveJoin(kj::mv(paf.promise));
}

Co<void> PeerLink::run() {
  // Not from within the constructor.
  co_await kj::evalLater([]() {});
  for (;;) {
    if (!dialling_) attemptBegins();
    try {
      auto dialled = co_await dial();
      connection_ = kj::mv(dialled);
    } catch (kj::Exception& e) {
      attemptFails(e);
    }
    if (connection_ == nullptr) {
      auto paused = pause();
      co_await kj::mv(paused);
      pauseFulfiller_ = nullptr;
      continue;
    }
    auto& connection = *KJ_ASSERT_NONNULL(connection_);
    dialling_ = refused_ = false;
    software_ = connection.other().software;
    problem_.clear();
    if (!reported_.empty() || role_ == PeerRole::kControl) {
      notify(hub_.options.notices, NoticeLevel::kInfo,
             kj::str("Connected to node ", node_.c_str(), " at ", address_.c_str(), " for ",
                     roleText(role_), "."));
    }
    reported_.clear();
    attemptFulfiller_->fulfill();
    hub_.connectivity.raise();

    const auto since = hub_.options.timer.now();
    auto broken = connection.whenBroken().then([]() {}, [](kj::Exception&&) {});
    co_await kj::mv(broken);
    connection_ = nullptr;
    problem_ = "the connection was lost";
    onLost_();
    hub_.connectivity.raise();
    if (hub_.options.timer.now() - since > kPeerSteadyMs * kj::MILLISECONDS) {
      backoffMs_ = kPeerBackoffMinMs;
    } else {
      auto paused = pause();
      co_await kj::mv(paused);
      pauseFulfiller_ = nullptr;
    }
  }
}

Co<kj::Own<PeerConnection>> PeerLink::dial() {
  auto address = hub_.options.resolve(node_);
  if (!address) {
    kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "its address is not known"));
  }
  address_ = *address;
  auto timeout = hub_.options.timer.afterDelay(kPeerHandshakeTimeoutMs * kj::MILLISECONDS)
                     .then([]() -> kj::Promise<GreetedStream> {
                       return KJ_EXCEPTION(DISCONNECTED, "it did not answer in time");
                     });
  auto greeting = kj::Promise<GreetedStream>(greet(*address)).exclusiveJoin(kj::mv(timeout));
  auto greeted = co_await kj::mv(greeting);
  auto connection = kj::heap<PeerConnection>(kj::mv(greeted));
  co_return kj::mv(connection);
}

Co<GreetedStream> PeerLink::greet(std::string address) {
  auto& options = hub_.options;
  stage_ = Stage::kConnect;
  auto parsed = co_await options.network.parseAddress(asStringPtr(address));
  auto stream = co_await parsed->connect();
  tunePeerSocket(*stream, role_);
  stage_ = Stage::kTls;
  auto secured = co_await options.tls.dialling().wrapClient(kj::mv(stream), asStringPtr(node_));
  stage_ = Stage::kGreeting;
  auto introduced = introduce(kj::mv(secured), hub_.introduction(), node_, role_);
  auto greeted = co_await kj::mv(introduced);
  co_return kj::mv(greeted);
}

}  // namespace packmoor::rpc
