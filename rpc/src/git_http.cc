#include "rpc/git_http.h"

#include "accept_loop.h"
#include "git_http_connection.h"
#include "http_streams.h"

#include <kernelio/co.h>

#include <kj/debug.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <string>
#include <unordered_map>

namespace packmoor::rpc {
namespace {

// What a client over a connection limit gets, on a bounded number of connections at once.
constexpr kj::StringPtr kTooManyAnswer =
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Retry-After: 1\r\n"
    "Connection: close\r\n"
    "Content-Length: 82\r\n"
    "\r\n"
    "This node serves as many connections as it may (http.connections_max). Try again.\n"_kj;
constexpr kj::StringPtr kTooManyOfOneAnswer =
    "HTTP/1.1 429 Too Many Requests\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Retry-After: 1\r\n"
    "Connection: close\r\n"
    "Content-Length: 108\r\n"
    "\r\n"
    "This node serves as many connections of one address as it may "
    "(http.connections_per_client_max). Try again.\n"_kj;
constexpr size_t kRefusalsMax = 64;
constexpr int64_t kUploadGraceMs = 1000;
constexpr size_t kUploadGraceBytes = 1u << 20;

class Server final : public GitHttpServer,
                     private kj::HttpServerErrorHandler,
                     private kj::TaskSet::ErrorHandler {
 public:
  Server(kj::Timer& timer, gitlayer::GitFront& front, GitHttpOptions options,
         kj::UnixEventPort* events)
      : timer_(timer), events_(events), shared_{timer, front, options, {}, {}, 0, {}}, http_(makeHttp()),
        tasks_(*this) {}

  kj::Promise<void> serve(kj::Own<kj::ConnectionReceiver> port) override {
    auto& portRef = *port;
    return acceptLoop(portRef, timer_, [this](kj::Own<kj::AsyncIoStream> stream) {
      take(kj::mv(stream));
    }).attach(kj::mv(port));
  }

  kj::Promise<void> drain() override { return http_->drain(); }
  void setHealth(std::string problem) override { shared_.problem = kj::mv(problem); }
  GitHttpStatistics statistics() override { return shared_.statistics; }

 private:
  kj::Own<kj::HttpServer> makeHttp() {
    kj::HttpServerSettings settings;
    settings.headerTimeout = shared_.options.headerTimeoutMs * kj::MILLISECONDS;
    settings.pipelineTimeout = shared_.options.idleTimeoutMs * kj::MILLISECONDS;
    settings.canceledUploadGracePeriod = kUploadGraceMs * kj::MILLISECONDS;
    settings.canceledUploadGraceBytes = kUploadGraceBytes;
    settings.errorHandler = *this;
    return kj::heap<kj::HttpServer>(
        timer_, shared_.headers.table(),
        [this](kj::AsyncIoStream& stream) {
          return makeGitHttpConnection(shared_, static_cast<JoiningStream&>(stream));
        },
        settings);
  }

  void take(kj::Own<kj::AsyncIoStream> raw) {
    GitHttpStatistics& statistics = shared_.statistics;
    if (statistics.connections >= shared_.options.connectionsMax) {
      return refuseSome(kj::mv(raw), kTooManyAnswer);
    }
    std::string client;
    KJ_IF_MAYBE(fd, raw->getFd()) { client = peerAddress(*fd); }
    uint64_t& ofClient = clients_[client];
    if (!client.empty() && ofClient >= shared_.options.connectionsPerClientMax) {
      return refuseSome(kj::mv(raw), kTooManyOfOneAnswer);
    }
    ++statistics.connections;
    ++ofClient;
    tasks_.add(serveOne(kj::mv(raw)).promise().attach(kj::defer([this, client]() {
      --shared_.statistics.connections;
      auto found = clients_.find(client);
      if (--found->second == 0) clients_.erase(found);
    })));
  }

  void refuseSome(kj::Own<kj::AsyncIoStream> raw, kj::StringPtr answer) {
    ++shared_.statistics.connectionsRefused;
    if (refusing_ == kRefusalsMax) return;
    ++refusing_;
    tasks_.add(refuse(kj::mv(raw), answer).promise().attach(kj::defer([this]() { --refusing_; })));
  }

  Co<void> refuse(kj::Own<kj::AsyncIoStream> stream, kj::StringPtr answer) {
    co_await stream->write(answer.begin(), answer.size());
    stream->shutdownWrite();
    co_await untilClosed(*stream, timer_);
  }

  Co<void> serveOne(kj::Own<kj::AsyncIoStream> raw) {
    int on = 1;
    raw->setsockopt(IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    JoiningStream stream(kj::mv(raw), timer_, shared_.options.stallTimeoutMs * kj::MILLISECONDS,
                         events_);
    kj::Maybe<kj::Exception> failure;
    co_await http_->listenHttpCleanDrain(stream).ignoreResult().catch_(
        [&failure](kj::Exception&& e) { failure = kj::mv(e); });
    co_await stream.flush();
    KJ_IF_MAYBE(e, failure) { kj::throwFatalException(kj::mv(*e)); }
    stream.shutdownWrite();
    co_await untilClosed(stream, timer_);
  }

  // What is not HTTP, and what the connection's service lets through.
  kj::Promise<void> handleClientProtocolError(kj::HttpHeaders::ProtocolError error,
                                              kj::HttpService::Response& response) override {
    return sendText(shared_.headers, response, error.statusCode, error.statusMessage,
                    kj::str(error.description, error.description.endsWith(".") ? "" : ".",
                            " This port speaks git's smart HTTP protocol."));
  }
  kj::Promise<void> handleApplicationError(
      kj::Exception exception, kj::Maybe<kj::HttpService::Response&> response) override {
    KJ_IF_MAYBE(r, response) {
      return sendText(shared_.headers, *r, 500, "Internal Server Error",
                      kj::str("The request failed inside the server; its log says why."));
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> handleNoResponse(kj::HttpService::Response& response) override {
    return sendText(shared_.headers, response, 500, "Internal Server Error",
                    kj::str("The server had no answer."));
  }

  void taskFailed(kj::Exception&& e) override {
    if (e.getType() == kj::Exception::Type::DISCONNECTED) return;
    KJ_LOG(INFO, "An HTTP connection ended.", e.getDescription());
  }

  kj::Timer& timer_;
  kj::UnixEventPort* const events_;
  GitHttpShared shared_;
  kj::Own<kj::HttpServer> http_;
  size_t refusing_ = 0;
  std::unordered_map<std::string, uint64_t> clients_;   // connections by address; none of 0
  kj::TaskSet tasks_;  // last: its tasks use the above
};

}  // namespace

kj::Own<GitHttpServer> GitHttpServer::create(kj::Timer& timer, gitlayer::GitFront& front,
                                             GitHttpOptions options, kj::UnixEventPort* events) {
  return kj::heap<Server>(timer, front, options, events);
}

}  // namespace packmoor::rpc
