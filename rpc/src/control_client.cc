#include "rpc/control_client.h"

#include "control_frame.h"
#include "rpc/control_server.h"

#include <rpc/control.pb.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace packmoor::rpc {
namespace {

using Deadline = std::chrono::steady_clock::time_point;
constexpr uint32_t kConnectTimeoutMs = 10'000;
constexpr uint32_t kAnswerSlackMs = 2'000;

Deadline after(uint32_t milliseconds) {
  return std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
}

}  // namespace

struct ControlClient::Impl {
  std::string path;
  int fd = -1;
  uint64_t nextId = 1;
  bool sent = false;
  control::Hello daemon;

  ~Impl() {
    if (fd >= 0) close(fd);
  }

  [[noreturn]] void fail(const std::string& message, const std::string& cause,
                         const std::string& advice) const {
    throw ControlFailure(sent, message, cause, advice);
  }
  [[noreturn]] void failConnect(int error) const {
    ControlFailure failure(false, "The daemon's control socket " + path + " cannot be used.",
                           std::strerror(error), "");
    if (error == EACCES || error == EPERM) {
      failure.denied = true;
      failure.advice = "Use root or the daemon's user, or the status socket (--socket) for status.";
    } else if (error == ECONNREFUSED) {
      failure.cause = "Nobody listens on it; the daemon is not running.";
      failure.advice = "Start packmoord and read its log.";
    } else if (error == ENOENT) {
      failure.cause = "There is no such socket; the daemon is not running, or its path is another.";
      failure.advice = "Start packmoord, or give the path with --socket or --config.";
    }
    throw failure;
  }

  void wait(short events, Deadline deadline) {
    for (;;) {
      auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      pollfd item{fd, events, 0};
      int ready = left.count() <= 0 ? 0 : poll(&item, 1, static_cast<int>(left.count()));
      if (ready > 0) return;
      if (ready < 0 && errno == EINTR) continue;
      fail("The daemon did not answer in time.", "", "Read the daemon's log.");
    }
  }

  void write(const std::string& frame, Deadline deadline) {
    size_t done = 0;
    while (done < frame.size()) {
      ssize_t n = ::send(fd, frame.data() + done, frame.size() - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n > 0) {
        done += static_cast<size_t>(n);
      } else if (errno == EAGAIN) {
        wait(POLLOUT, deadline);
      } else if (errno != EINTR) {
        fail("The connection to the daemon broke.", std::strerror(errno), "Read the daemon's log.");
      }
    }
  }

  void read(char* into, size_t bytes, Deadline deadline) {
    size_t done = 0;
    while (done < bytes) {
      wait(POLLIN, deadline);
      ssize_t n = ::recv(fd, into + done, bytes - done, MSG_DONTWAIT);
      if (n > 0) {
        done += static_cast<size_t>(n);
      } else if (n == 0) {
        fail("The daemon closed the connection.", "", "Read the daemon's log.");
      } else if (errno != EAGAIN && errno != EINTR) {
        fail("The connection to the daemon broke.", std::strerror(errno), "Read the daemon's log.");
      }
    }
  }

  template <typename Message>
  void readMessage(Message& message, size_t bytesMax, Deadline deadline) {
    uint8_t header[kFrameHeaderBytes];
    read(reinterpret_cast<char*>(header), sizeof header, deadline);
    size_t bytes = frameBytes(header);
    std::string body;
    if (bytes <= bytesMax) {
      body.resize(bytes);
      read(body.data(), bytes, deadline);
    }
    if (bytes > bytesMax || !message.ParseFromString(body)) {
      fail("The answer on " + path + " is not of the control protocol.", "",
           "Is that the socket of packmoord?");
    }
  }
};

ControlClient::ControlClient(const std::string& path, const std::string& software)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) impl_->failConnect(ENAMETOOLONG);
  memcpy(address.sun_path, path.data(), path.size());
  impl_->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (impl_->fd < 0) impl_->failConnect(errno);
  if (connect(impl_->fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    impl_->failConnect(errno);
  }
  Deadline deadline = after(kConnectTimeoutMs);
  control::Hello hello;
  hello.set_version(kControlVersion);
  hello.set_version_least(1);
  hello.set_software(software);
  impl_->write(frameOf(hello), deadline);
  impl_->readMessage(impl_->daemon, kHelloBytesMax, deadline);
  if (!impl_->daemon.refusal().empty()) {
    ControlFailure failure(false, "The daemon refused the connection.", impl_->daemon.refusal(), "");
    failure.denied = true;
    throw failure;
  }
}

ControlClient::~ControlClient() = default;
ControlClient::ControlClient(ControlClient&&) noexcept = default;

const control::Hello& ControlClient::daemon() const { return impl_->daemon; }

void ControlClient::call(control::Request& request, control::Response& response,
                         uint32_t timeoutMs) {
  request.set_id(impl_->nextId++);
  request.set_deadline_ms(timeoutMs);
  Deadline deadline = after(timeoutMs + kAnswerSlackMs);
  impl_->sent = true;
  impl_->write(frameOf(request), deadline);
  impl_->readMessage(response, kControlReplyBytesMax, deadline);
  impl_->sent = false;
  if (response.id() != request.id()) {
    impl_->fail("The daemon answered another request than was asked.", "",
                "Use the packmoorctl that came with the daemon.");
  }
}

}  // namespace packmoor::rpc
