#include "relay.h"

#include <rpc/git_socket.h>
#include <rpc/git_socket.pb.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace packmoor::shell {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr size_t kReplyBytesMax = 64u << 10;
constexpr size_t kBufferBytes = 256u << 10;

[[noreturn]] void failHere(const std::string& what) {
  throw RelayFailure(false, "This server cannot reach its git storage: " + what);
}

class Socket {
 public:
  explicit Socket(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) failHere("the path of the git socket is too long.");
    memcpy(address.sun_path, path.data(), path.size());
    if (fd_ < 0 || connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      const int error = errno;
      failHere("the node's git socket " + path + ": " + strerror(error) + ".");
    }
  }
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int fd() const { return fd_; }
  void write(const std::string& bytes) const {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) failHere("the connection to the node broke.");
      done += static_cast<size_t>(n);
    }
  }
  std::string read(size_t count) const {
    std::string bytes(count, '\0');
    for (size_t done = 0; done < count;) {
      const ssize_t n = recv(fd_, bytes.data() + done, count - done, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) failHere("the node closed the connection.");
      done += static_cast<size_t>(n);
    }
    return bytes;
  }

 private:
  const int fd_;
};

std::string lengthOf(size_t bytes) {
  std::string length;
  for (int shift = 24; shift >= 0; shift -= 8) length.push_back(static_cast<char>(bytes >> shift));
  return length;
}

git_socket::Open::Service serviceOf(gitlayer::GitService service) {
  using gitlayer::GitService;
  if (service == GitService::kReceivePack) return git_socket::Open::RECEIVE_PACK;
  if (service == GitService::kUploadArchive) return git_socket::Open::UPLOAD_ARCHIVE;
  return git_socket::Open::UPLOAD_PACK;
}

// Asks; throws when the node refuses.
void open(const Socket& node, const Request& request) {
  git_socket::Open message;
  message.set_version(rpc::kGitSocketVersion);
  message.set_service(serviceOf(request.command.service));
  message.set_repository(request.command.repository);
  message.set_protocol_version(request.protocolVersion);
  message.set_user(request.user);
  message.set_client(request.client);
  const std::string body = message.SerializeAsString();
  node.write(lengthOf(body.size()) + body);
  size_t bytes = 0;
  for (char digit : node.read(kLengthBytes)) bytes = bytes << 8 | static_cast<unsigned char>(digit);
  git_socket::Opened opened;
  if (bytes > kReplyBytesMax || !opened.ParseFromString(node.read(bytes))) {
    failHere("what listens on its git socket is no Packmoor node.");
  }
  if (!opened.refusal().empty()) throw RelayFailure(true, opened.refusal());
}

// Bytes of one direction, on their way.
class Flow {
 public:
  Flow(int from, int to) : from_(from), to_(to) {}

  bool done() const { return ended_ && at_ == filled_; }
  // What poll() is to wait for.
  pollfd item() const {
    if (at_ < filled_) return {to_, POLLOUT, 0};
    return {ended_ ? -1 : from_, POLLIN, 0};
  }
  // Once it is ready. False: the other side takes no more.
  bool step() {
    if (at_ == filled_) {
      const ssize_t n = ::read(from_, buffer_.data(), buffer_.size());
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
      ended_ = n <= 0;
      at_ = 0;
      filled_ = ended_ ? 0 : static_cast<size_t>(n);
      return true;
    }
    const ssize_t n = ::write(to_, buffer_.data() + at_, filled_ - at_);
    if (n < 0) return errno == EINTR || errno == EAGAIN;
    at_ += static_cast<size_t>(n);
    return true;
  }

 private:
  const int from_, to_;
  std::array<char, kBufferBytes> buffer_;
  size_t at_ = 0, filled_ = 0;
  bool ended_ = false;
};

// The client's end is passed on; the node's is the end of all.
void carry(int node) {
  auto up = std::make_unique<Flow>(STDIN_FILENO, node);
  auto down = std::make_unique<Flow>(node, STDOUT_FILENO);
  bool sends = true;
  while (!down->done()) {
    pollfd items[2] = {down->item(), sends ? up->item() : pollfd{-1, 0, 0}};
    if (poll(items, 2, -1) < 0) {
      if (errno == EINTR) continue;
      failHere(strerror(errno));
    }
    if (items[0].revents != 0 && !down->step()) return;   // the client is gone
    if (items[1].revents != 0 && !up->step()) sends = false;
    if (sends && up->done()) {
      shutdown(node, SHUT_WR);
      sends = false;
    }
  }
}

}  // namespace

void relay(const std::string& socketPath, const Request& request) {
  signal(SIGPIPE, SIG_IGN);
  const Socket node(socketPath);
  open(node, request);
  carry(node.fd());
}

}  // namespace packmoor::shell
