#include "rpc/control_server.h"

#include "accept_loop.h"
#include "control_frame.h"
#include "unix_socket.h"

#include <kernelio/co.h>
#include <rpc/control.pb.h>
#include <rpc/sentence.h>

#include <kj/debug.h>

#include <unistd.h>

namespace packmoor::rpc {
namespace {

constexpr uint32_t kAdminMode = 0660, kOwnerMode = 0600, kStatusMode = 0666;
constexpr int64_t kHelloTimeoutMs = 10'000;
constexpr uint32_t kDeadlineMsMax = 3'600'000;

bool changes(const control::Request& request) {
  switch (request.body_case()) {
    case control::Request::kRepoCreate:
    case control::Request::kRepoDelete:
    case control::Request::kRepoPrune:
    case control::Request::kRepoSet:
    case control::Request::kRepoRename:
    case control::Request::kRepoUndelete:
    case control::Request::kRepoFork:
    case control::Request::kVolumeCreate:
    case control::Request::kVolumeSwitchover:
    case control::Request::kVolumeVerify:  // orders a record
    case control::Request::kVolumeChange:
    case control::Request::kVolumeSetWeight:
    case control::Request::kClusterBalance:
    case control::Request::kCoordinatorAccept:
    case control::Request::kNodeDrain:
    case control::Request::kScrubChange:
    case control::Request::kVolumeAcceptLoss:
    case control::Request::kVolumeAcknowledgeLoss:
    case control::Request::kVolumeDiscardDiverged:
      return true;
    default:
      return false;
  }
}

void setError(control::Response& response, control::ErrorCode code, kj::StringPtr message,
              kj::StringPtr cause, kj::StringPtr advice) {
  response.clear_body();
  control::Error& error = *response.mutable_error();
  error.set_code(code);
  error.set_message(message.cStr());
  error.set_cause(cause.cStr());
  error.set_advice(advice.cStr());
}

class Server final : public ControlServer, private kj::TaskSet::ErrorHandler {
 public:
  Server(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer, ControlHandler& handler,
         ControlOptions options)
      : timer_(timer), handler_(handler), options_(kj::mv(options)), tasks_(*this) {
    int64_t gid = -1;
    if (!options_.group.empty()) gid = groupIdOf(options_.group);
    group_ = gid;
    adminPort_ = io.wrapListenSocketFd(
        listenUnix(options_.adminSocket, gid < 0 ? kOwnerMode : kAdminMode, gid));
    adminBound_ = true;
    statusPort_ = io.wrapListenSocketFd(listenUnix(options_.statusSocket, kStatusMode, -1));
    statusBound_ = true;
  }
  ~Server() noexcept(false) {
    if (adminBound_) unlink(options_.adminSocket.c_str());
    if (statusBound_) unlink(options_.statusSocket.c_str());
  }

  kj::Promise<void> run() override {
    auto admin = acceptLoop(*adminPort_, timer_, [this](kj::Own<kj::AsyncIoStream> stream) {
      take(kj::mv(stream), false);
    });
    auto status = acceptLoop(*statusPort_, timer_, [this](kj::Own<kj::AsyncIoStream> stream) {
      take(kj::mv(stream), true);
    });
    return admin.exclusiveJoin(kj::mv(status));
  }

 private:
  void take(kj::Own<kj::AsyncIoStream> stream, bool readOnly) {
    if (connections_ >= kControlConnectionsMax) {
      KJ_LOG(WARNING, "The control socket has too many connections; one was closed.",
             kControlConnectionsMax);
      return;
    }
    ++connections_;
    tasks_.add(serve(kj::mv(stream), readOnly).promise().attach(kj::defer([this]() {
      --connections_;
    })));
  }

  control::Hello ownHello(bool readOnly) const {
    control::Hello hello;
    hello.set_version(kControlVersion);
    hello.set_version_least(1);
    hello.set_software(options_.software);
    hello.set_node(options_.node);
    hello.set_cluster(options_.cluster);
    hello.set_read_only(readOnly);
    return hello;
  }

  template <typename Message>
  kj::Promise<void> send(kj::AsyncIoStream& stream, const Message& message) {
    auto frame = kj::heap<std::string>(frameOf(message));
    auto sent = stream.write(frame->data(), frame->size());
    return timer_.timeoutAfter(kControlIdleMs * kj::MILLISECONDS, kj::mv(sent))
        .attach(kj::mv(frame));
  }

  // True when the client may go on.
  Co<bool> exchangeHello(kj::AsyncIoStream& stream, bool readOnly) {
    auto hello = ownHello(readOnly);
    std::string frame;
    bool understood = false;
    control::Hello theirs;
    uint8_t header[kFrameHeaderBytes];
    auto got = co_await stream.tryRead(header, sizeof header, sizeof header);
    if (got == 0) co_return false;
    size_t bytes = frameBytes(header);
    if (got == sizeof header && bytes <= kHelloBytesMax) {
      frame.resize(bytes);
      auto body = co_await stream.tryRead(frame.data(), bytes, bytes);
      understood = body == bytes && theirs.ParseFromString(frame) && theirs.version() != 0;
    }
    if (!understood) {
      hello.set_refusal("This is Packmoor's control socket, and what was sent is not its protocol. "
                        "Use packmoorctl.");
    } else if (theirs.version() < hello.version_least() ||
               theirs.version_least() > hello.version()) {
      hello.set_refusal(kj::str("The daemon speaks control protocol ", hello.version_least(),
                                " to ", hello.version(), ", and the client speaks ",
                                theirs.version_least(), " to ", theirs.version(),
                                ". Use the packmoorctl that came with the daemon.").cStr());
    } else if (!readOnly) {
      auto who = peerCredentials(KJ_ASSERT_NONNULL(stream.getFd()));
      if (!isTrusted(who, group_)) {
        hello.set_refusal(kj::str("User ", who.uid, " may not administer this node. Use root, the "
                                  "daemon's own user or a member of control.group; everybody may "
                                  "ask for the status on the status socket.").cStr());
      }
    }
    co_await send(stream, hello);
    co_return hello.refusal().empty();
  }

  Co<void> serve(kj::Own<kj::AsyncIoStream> stream, bool readOnly) {
    auto welcome = co_await timer_.timeoutAfter(kHelloTimeoutMs * kj::MILLISECONDS,
                                                exchangeHello(*stream, readOnly).promise());
    if (!welcome) co_return;
    auto who = peerCredentials(KJ_ASSERT_NONNULL(stream->getFd()));
    ControlCaller caller{readOnly, who.uid, who.pid};
    for (;;) {
      std::string frame;
      auto more = co_await timer_.timeoutAfter(
          kControlIdleMs * kj::MILLISECONDS,
          readFrame(*stream, kControlRequestBytesMax, frame).promise());
      if (!more) co_return;
      control::Request request;
      control::Response response;
      bool understood = request.ParseFromString(frame);
      if (!understood) {
        setError(response, control::ERROR_BAD_REQUEST, "The request could not be read.", "",
                 "Use the packmoorctl that came with the daemon.");
      } else if (readOnly && changes(request)) {
        setError(response, control::ERROR_DENIED, "The status socket takes no changes.", "",
                 "Use the admin socket, as root or the daemon's user.");
      } else {
        // The client may hang up while it waits; then nobody wants the answer.
        auto gone = stream->whenWriteDisconnected().then([]() -> kj::Promise<void> {
          return KJ_EXCEPTION(DISCONNECTED, "the client of the control socket hung up");
        });
        co_await answer(request, caller, response).exclusiveJoin(kj::mv(gone));
      }
      response.set_id(request.id());
      co_await send(*stream, response);
      if (!understood) co_return;
    }
  }

  kj::Promise<void> answer(const control::Request& request, const ControlCaller& caller,
                           control::Response& response) {
    uint32_t deadlineMs = request.deadline_ms() == 0 ? kControlDeadlineMsDefault
                                                     : kj::min(request.deadline_ms(),
                                                               kDeadlineMsMax);
    auto expired = timer_.afterDelay(deadlineMs * kj::MILLISECONDS)
                       .then([&request, &response, deadlineMs]() {
      bool unknown = changes(request);
      setError(response, unknown ? control::ERROR_UNKNOWN_OUTCOME : control::ERROR_NO_QUORUM,
               kj::str("There was no answer within ", deadlineMs, " ms."),
               unknown ? "The change was ordered and not confirmed: it may still happen."_kj : ""_kj,
               unknown ? "Look at the present state before trying again."_kj
                       : "See `packmoorctl status` for what is missing."_kj);
    });
    auto handled = kj::evalNow([&]() { return handler_.handle(request, caller, response); })
                       .catch_([&response](kj::Exception&& e) {
      setError(response, control::ERROR_REFUSED, sentenceOf(e).c_str(), "", "");
    });
    return handled.exclusiveJoin(kj::mv(expired));
  }

  void taskFailed(kj::Exception&& e) override {
    if (e.getType() == kj::Exception::Type::DISCONNECTED) return;
    KJ_LOG(INFO, "A connection of the control socket was closed.", e.getDescription());
  }

  kj::Timer& timer_;
  ControlHandler& handler_;
  ControlOptions options_;
  int64_t group_ = -1;
  bool adminBound_ = false, statusBound_ = false;
  kj::Own<kj::ConnectionReceiver> adminPort_, statusPort_;
  size_t connections_ = 0;
  kj::TaskSet tasks_;  // last: its tasks use the above
};

}  // namespace

kj::Own<ControlServer> ControlServer::open(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer,
                                           ControlHandler& handler, ControlOptions options) {
  return kj::heap<Server>(io, timer, handler, kj::mv(options));
}

}  // namespace packmoor::rpc
