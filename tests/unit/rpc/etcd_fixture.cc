#include "etcd_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kj/debug.h>

#include <chrono>
#include <cstring>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

namespace packmoor::rpc {
namespace {

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

// Below the range from which the system takes ports for outgoing connections: while etcd is down,
// one that is tried again and again would at last be connected to itself, and keep the port.
uint16_t freePort() {
  static std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<uint16_t> ports(18'000, 32'000);
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const uint16_t port = ports(random);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto address = loopback(port);
    const bool isFree = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(fd);
    if (isFree) return port;
  }
  throw std::runtime_error("no free port");
}

// The answer to a blocking HTTP request, or empty.
std::string exchange(uint16_t port, const std::string& request) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto address = loopback(port);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
    char buffer[4096];
    ssize_t bytes;
    while ((bytes = read(fd, buffer, sizeof buffer)) > 0) answer.append(buffer, bytes);
  }
  close(fd);
  return answer;
}

pid_t spawn(const std::vector<std::string>& command, const std::string& log) {
  std::vector<char*> arguments;
  for (auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a crashed test leaves nothing behind
    const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  return pid;
}

}  // namespace

EtcdProcess::EtcdProcess(TlsFiles tls)
    : tls_(std::move(tls)), clientPort_(freePort()), peerPort_(freePort()),
      securePort_(tls_.key.empty() ? 0 : freePort()) {
  start();
}

EtcdProcess::~EtcdProcess() { stop(); }

void EtcdProcess::stop() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void EtcdProcess::start() {
  const std::string peer = "http://127.0.0.1:" + std::to_string(peerPort_);
  const bool secure = securePort_ != 0;
  const std::string clients = endpoint() + (secure ? "," + secureEndpoint() : "");
  std::vector<std::string> command = {
      "etcd", "--name", "test", "--data-dir", folder_.path("data"),
      "--listen-client-urls", clients, "--advertise-client-urls", endpoint(),
      "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
      "--initial-cluster", "test=" + peer, "--unsafe-no-fsync"};
  if (secure) {
    command.insert(command.end(), {"--cert-file", tls_.certificate, "--key-file", tls_.key,
                                   "--trusted-ca-file", tls_.authority, "--client-cert-auth"});
  }
  pid_ = spawn(command, folder_.path("log"));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (exchange(clientPort_, "GET /health HTTP/1.0\r\n\r\n").find("\"true\"") ==
         std::string::npos) {
    if (std::chrono::steady_clock::now() > deadline || waitpid(pid_, nullptr, WNOHANG) == pid_) {
      throw std::runtime_error("etcd did not start; see " + folder_.path("log"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // it tells nobody when it is up
  }
}

void EtcdProcess::put(const std::string& key, const std::string& value) const {
  const pid_t pid = spawn({"etcdctl", "--endpoints", endpoint(), "put", key, value}, "/dev/null");
  int status = 0;
  waitpid(pid, &status, 0);
  if (status != 0) throw std::runtime_error("etcdctl put failed");
}

EtcdProcess& sharedEtcd() {
  static EtcdProcess process;
  return process;
}

// --- relay

TcpRelay::TcpRelay(kj::AsyncIoContext& io, uint16_t target)
    : io_(io), target_(target), tasks_(*this) {
  auto address = io.provider->getNetwork().parseAddress("127.0.0.1:0").wait(io.waitScope);
  receiver_ = address->listen();
  port_ = static_cast<uint16_t>(receiver_->getPort());
  tasks_.add(acceptLoop());
}

TcpRelay::~TcpRelay() noexcept(false) {}

kj::Promise<void> TcpRelay::acceptLoop() {
  return receiver_->accept().then([this](kj::Own<kj::AsyncIoStream> client) {
    ++connections_;
    tasks_.add(relay(kj::mv(client)));
    return acceptLoop();
  });
}

kj::Promise<void> TcpRelay::relay(kj::Own<kj::AsyncIoStream> client) {
  if (hang_) return kj::Promise<void>(kj::NEVER_DONE).attach(kj::mv(client));
  auto& network = io_.provider->getNetwork();
  return network.parseAddress(kj::str("127.0.0.1:", target_))
      .then([](kj::Own<kj::NetworkAddress> address) {
        return address->connect().attach(kj::mv(address));
      })
      .then([this, client = kj::mv(client)](kj::Own<kj::AsyncIoStream> server) mutable {
        auto lost = kj::heap<bool>(false);
        auto up = pump(*client, *server, *lost, true, kj::heapArray<kj::byte>(65536));
        auto down = pump(*server, *client, *lost, false, kj::heapArray<kj::byte>(65536));
        return up.exclusiveJoin(kj::mv(down))
            .attach(kj::mv(client), kj::mv(server), kj::mv(lost));
      });
}

kj::Promise<void> TcpRelay::pump(kj::AsyncIoStream& from, kj::AsyncIoStream& to, bool& lost,
                                 bool requests, kj::Array<kj::byte> buffer) {
  auto& space = buffer;
  auto read = from.tryRead(space.begin(), 1, space.size());
  return read.then([this, &from, &to, &lost, requests,
                    buffer = kj::mv(buffer)](size_t bytes) mutable -> kj::Promise<void> {
    if (bytes == 0) return kj::READY_NOW;
    const std::string text(buffer.asChars().begin(), bytes);
    if (requests && lose_ && text.find("/v3/kv/txn") != std::string::npos) lost = true;
    if (!requests && lost) return kj::READY_NOW;  // etcd has acted; its answer is lost
    auto written = to.write(buffer.begin(), bytes);
    return written.then(
        [this, &from, &to, &lost, requests, buffer = kj::mv(buffer)]() mutable {
          return pump(from, to, lost, requests, kj::mv(buffer));
        });
  });
}

}  // namespace packmoor::rpc
