#include "rpc/git_socket.h"

#include "accept_loop.h"
#include "control_frame.h"
#include "http_streams.h"
#include "unix_socket.h"

#include <kernelio/co.h>
#include <rpc/git_socket.pb.h>
#include <rpc/sentence.h>

#include <kj/debug.h>

#include <unistd.h>

#include <string>
#include <unordered_map>

namespace packmoor::rpc {
namespace {

constexpr uint32_t kGroupMode = 0660, kOwnerMode = 0600;
constexpr size_t kOpenBytesMax = 16u << 10;
constexpr uint32_t kProtocolVersionMax = 2;

class Server final : public GitSocketServer, private kj::TaskSet::ErrorHandler {
 public:
  Server(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer, gitlayer::GitFront& front,
         GitSocketOptions options, kj::UnixEventPort* events)
      : timer_(timer), front_(front), options_(kj::mv(options)), events_(events), tasks_(*this) {
    if (!options_.group.empty()) group_ = groupIdOf(options_.group);
    port_ = io.wrapListenSocketFd(
        listenUnix(options_.socket, group_ < 0 ? kOwnerMode : kGroupMode, group_));
    bound_ = true;
  }
  ~Server() noexcept(false) {
    if (bound_) unlink(options_.socket.c_str());
  }

  kj::Promise<void> run() override {
    return acceptLoop(*port_, timer_,
                      [this](kj::Own<kj::AsyncIoStream> stream) { take(kj::mv(stream)); });
  }
  kj::Promise<void> drain() override {
    draining_ = true;
    return tasks_.onEmpty();
  }
  GitSocketStatistics statistics() override { return statistics_; }

 private:
  void take(kj::Own<kj::AsyncIoStream> stream) {
    ++statistics_.connections;
    tasks_.add(serve(kj::mv(stream)).promise().attach(kj::defer([this]() {
      --statistics_.connections;
    })));
  }

  // Why a connection is not served, whatever it wants; empty: it is.
  std::string problemOf(kj::AsyncIoStream& stream) {
    auto who = peerCredentials(KJ_ASSERT_NONNULL(stream.getFd()));
    if (!isTrusted(who, group_)) {
      return kj::str("User ", who.uid, " may not use the git socket of this node. The user as which sshd "
                     "runs packmoor-shell must be a member of the group that ssh.group names.").cStr();
    }
    if (draining_) return "This node is stopping. Try another node.";
    if (statistics_.connections > options_.connectionsMax) {
      return "This node serves as many git clients over ssh as it may (ssh.connections_max). Try again.";
    }
    return {};
  }

  Co<bool> readOpen(kj::AsyncIoStream& stream, git_socket::Open& open, std::string& problem) {
    std::string frame;
    const bool any = co_await readFrame(stream, kOpenBytesMax, frame);
    if (!any) co_return false;
    using Service = git_socket::Open;
    if (!open.ParseFromString(frame) || open.version() == 0) {
      problem = "What was sent is not the protocol of packmoor-shell.";
    } else if (open.version() != kGitSocketVersion) {
      problem = kj::str("The node speaks version ", kGitSocketVersion, " of the git socket's protocol, "
                        "and packmoor-shell speaks ", open.version(), ". Install the same release of "
                        "both.").cStr();
    } else if (open.service() == Service::NONE || !Service::Service_IsValid(open.service())) {
      problem = "This node does not know the service that is asked for.";
    }
    co_return true;
  }

  gitlayer::GitRequest requestOf(const git_socket::Open& open) {
    gitlayer::GitRequest request;
    request.repository = open.repository();
    if (open.service() == git_socket::Open::RECEIVE_PACK) request.service = gitlayer::GitService::kReceivePack;
    if (open.service() == git_socket::Open::UPLOAD_ARCHIVE) {
      request.service = gitlayer::GitService::kUploadArchive;
    }
    request.protocolVersion = kj::min(open.protocol_version(), kProtocolVersionMax);
    // Receiving has no version 2 (gitprotocol-v2(5)).
    if (request.service == gitlayer::GitService::kReceivePack && request.protocolVersion > 1) {
      request.protocolVersion = 0;
    }
    request.stateful = true;
    request.principal = open.user();
    request.requestId = "s" + std::to_string(++statistics_.requests);
    return request;
  }

  kj::Promise<void> reply(kj::AsyncIoStream& stream, std::string refusal) {
    git_socket::Opened opened;
    opened.set_refusal(refusal);
    if (!refusal.empty()) ++statistics_.refused;
    auto frame = kj::heap<std::string>(frameOf(opened));
    auto sent = stream.write(frame->data(), frame->size());
    return timer_.timeoutAfter(kGitSocketOpenMs * kj::MILLISECONDS, kj::mv(sent))
        .attach(kj::mv(frame));
  }

  Co<void> serve(kj::Own<kj::AsyncIoStream> stream) {
    std::string problem = problemOf(*stream);
    git_socket::Open open;
    if (problem.empty()) {
      auto any = co_await timer_.timeoutAfter(kGitSocketOpenMs * kj::MILLISECONDS,
                                              readOpen(*stream, open, problem).promise());
      if (!any) co_return;
    }
    if (!problem.empty()) {
      co_await reply(*stream, kj::mv(problem));
      co_return;
    }
    uint64_t& ofUser = users_[open.user()];
    if (ofUser >= options_.connectionsPerUserMax) {
      co_await reply(*stream, "This node serves as many git clients of one user as it may "
                              "(ssh.connections_per_user_max). Try again.");
      co_return;
    }
    ++ofUser;
    KJ_DEFER({
      auto found = users_.find(open.user());
      if (--found->second == 0) users_.erase(found);
    });
    auto gone = stream->whenWriteDisconnected().then([]() -> kj::Promise<void> {
      return KJ_EXCEPTION(DISCONNECTED, "the client closed its connection");
    });
    auto talking = talk(*stream, requestOf(open)).promise();
    co_await talking.exclusiveJoin(kj::mv(gone));
  }

  Co<void> talk(kj::AsyncIoStream& raw, gitlayer::GitRequest request) {
    const bool fetches = request.service == gitlayer::GitService::kUploadPack;
    auto opened = co_await front_.open(kj::mv(request));
    kj::Own<gitlayer::GitSession> session;
    KJ_IF_MAYBE(found, opened.session) { session = kj::mv(*found); }
    if (session.get() == nullptr) {
      co_await reply(raw, opened.refusal.message);
      co_return;
    }
    co_await reply(raw, "");
    const auto silent = options_.silentMs * kj::MILLISECONDS;
    JoiningStream out(kj::Own<kj::AsyncIoStream>(&raw, kj::NullDisposer::instance), timer_, silent,
                      events_);
    BodyLimits limits;
    limits.bytesMax = fetches ? options_.fetchBytesMax : options_.pushBytesMax;
    limits.setting = fetches ? "http.fetch_body_max"_kj : "git.pack_max"_kj;
    limits.stallTimeout = silent;
    limits.rateMin = options_.bodyRateMin;
    BoundedBody in(raw, timer_, limits);
    co_await session->advertise(out, false);
    co_await out.flush();
    co_await session->serve(in, out);
    co_await out.flush();
    raw.shutdownWrite();
    co_await untilClosed(raw, timer_);
  }

  void taskFailed(kj::Exception&& e) override {
    if (e.getType() == kj::Exception::Type::DISCONNECTED) return;
    KJ_LOG(INFO, "A connection of the git socket ended.", e.getDescription());
  }

  kj::Timer& timer_;
  gitlayer::GitFront& front_;
  GitSocketOptions options_;
  kj::UnixEventPort* const events_;
  int64_t group_ = -1;
  bool bound_ = false, draining_ = false;
  kj::Own<kj::ConnectionReceiver> port_;
  GitSocketStatistics statistics_;
  std::unordered_map<std::string, uint64_t> users_;   // connections by user; none of 0
  kj::TaskSet tasks_;  // last: its tasks use the above
};

}  // namespace

kj::Own<GitSocketServer> GitSocketServer::open(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer,
                                               gitlayer::GitFront& front, GitSocketOptions options,
                                               kj::UnixEventPort* events) {
  return kj::heap<Server>(io, timer, front, kj::mv(options), events);
}

}  // namespace packmoor::rpc
