// What a message between nodes costs: appends of one small record, and blocks of an extent, between
// two transports over loopback with TLS, each in a process of its own.
//
//   peer_bench CERTIFICATES [CALLS]
//
// CERTIFICATES is a folder that tools/lib/make_certs.sh has filled for nodes a and b. CALLS (50000)
// appends are made with 1, 16 and 256 in flight. Prints, per side, the processor time of a call, and
// the time that a caller waits; then the throughput of 1 GiB of blocks.
#include "rpc/peers.h"

#include <kernelio/co.h>

#include <kj/async-io.h>
#include <kj/vector.h>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a program's source

constexpr size_t kBlockBytes = 256u << 10;
constexpr size_t kBlocks = 4096;

double processorSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](timeval t) { return t.tv_sec + t.tv_usec / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}
double wallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Answers at once. A query is answered with the processor time so far.
class Sink final : public PeerService {
 public:
  kj::Promise<AppendReply> append(const NodeId&, AppendRequest request) override {
    AppendReply reply;
    reply.epoch = request.epoch;
    return reply;
  }
  kj::Promise<void> writeExtentBlock(const NodeId&, ExtentId, uint64_t, kernelio::IoBuffer,
                                     Hash128) override {
    return kj::READY_NOW;
  }
  kj::Promise<void> sealExtent(const NodeId&, ExtentId, uint64_t, Hash128) override {
    return kj::READY_NOW;
  }
  kj::Promise<kj::Array<kj::byte>> query(const NodeId&, VolumeId, std::string,
                                         kj::Array<const kj::byte>) override {
    return kj::heapArray<kj::byte>(kj::str(processorSeconds()).asBytes());
  }

  kj::Promise<FenceReply> fence(const NodeId&, FenceRequest) override { return FenceReply(); }
  kj::Promise<FetchReply> fetch(const NodeId&, FetchRequest) override { return FetchReply(); }
  kj::Promise<LogPosition> commonPrefix(const NodeId&, CommonPrefixRequest) override {
    return LogPosition();
  }
  kj::Promise<ProposeReply> propose(const NodeId&, ProposeRequest) override {
    return ProposeReply();
  }
  kj::Promise<ReadIndexReply> readIndex(const NodeId&, ReadIndexRequest) override {
    return ReadIndexReply();
  }
  kj::Promise<ConfirmReply> confirm(const NodeId&, ConfirmRequest) override {
    return ConfirmReply();
  }
  kj::Promise<ConsentReply> consent(const NodeId&, ConsentRequest) override {
    return ConsentReply();
  }
  kj::Promise<void> takeOver(const NodeId&, VolumeId) override { return kj::READY_NOW; }
  kj::Promise<void> abandonExtent(const NodeId&, ExtentId) override { return kj::READY_NOW; }
  kj::Promise<ExtentBlockReply> readExtentBlock(const NodeId&, ExtentId, uint64_t) override {
    return ExtentBlockReply();
  }
  kj::Promise<std::pair<uint64_t, Hash128>> extentInfo(const NodeId&, ExtentId) override {
    return std::pair<uint64_t, Hash128>();
  }
};

struct Node {
  Node(kj::AsyncIoContext& io, const std::string& folder, const std::string& id, uint16_t other)
      : tls(TlsMaterial::load(
            {folder + "/ca.crt", folder + "/" + id + ".crt", folder + "/" + id + ".key"}, id,
            static_cast<int64_t>(time(nullptr)) * 1000)),
        transport(PeerTransport::create(PeerTransportOptions{
            io.provider->getTimer(), io.provider->getNetwork(), *tls, id, "bench", "bench",
            [other](const NodeId&) { return "127.0.0.1:" + std::to_string(other); }, nullptr})) {}
  kj::Own<TlsMaterial> tls;
  kj::Own<PeerTransport> transport;
};

// The child: serves until its parent ends, and writes its port to `out`.
void serve(const std::string& folder, int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto io = kj::setupAsyncIo();
  Node node(io, folder, "b", 0);
  Sink sink;
  auto listener = node.transport->listen("127.0.0.1:0", sink).wait(io.waitScope);
  const uint16_t port = listener->port();
  if (write(out, &port, sizeof port) != sizeof port) return;
  kj::Promise<void>(kj::NEVER_DONE).wait(io.waitScope);
}

double serverSeconds(kj::AsyncIoContext& io, Peer& peer) {
  auto answer = peer.query(VolumeId(), "", nullptr).wait(io.waitScope);
  return atof(std::string(answer.asChars().begin(), answer.size()).c_str());
}

Co<void> appendLoop(Peer& peer, const AppendRequest& request, size_t calls) {
  for (size_t i = 0; i < calls; ++i) {
    auto answered = peer.append(request);
    co_await kj::mv(answered);
  }
}

void appends(kj::AsyncIoContext& io, Peer& peer, size_t calls, size_t inFlight) {
  AppendRequest request;
  auto payload = kj::heapArray<kj::byte>(400);
  for (auto& byte : payload) byte = 1;
  request.primary.node = "a";
  request.records.push_back(
      makeRecord(RecordIndex(1), Epoch(1), Hash128(), RecordKind(16), {}, kj::mv(payload)));
  const double server = serverSeconds(io, peer), client = processorSeconds(), wall = wallSeconds();
  kj::Vector<kj::Promise<void>> loops;
  for (size_t i = 0; i < inFlight; ++i) loops.add(appendLoop(peer, request, calls / inFlight));
  kj::joinPromises(loops.releaseAsArray()).wait(io.waitScope);
  const double waited = wallSeconds() - wall, spent = processorSeconds() - client;
  const double there = serverSeconds(io, peer) - server;
  printf("append, %3zu in flight: %6.1f us wall, %5.1f us caller, %5.1f us service per call\n",
         inFlight, waited / calls * 1e6 * inFlight, spent / calls * 1e6, there / calls * 1e6);
}

void blocks(kj::AsyncIoContext& io, Peer& peer) {
  auto data = kernelio::IoBuffer::allocate(kBlockBytes);
  for (size_t i = 0; i < data.size(); ++i) data.begin()[i] = static_cast<kj::byte>(i * 31);
  const double server = serverSeconds(io, peer), client = processorSeconds(), wall = wallSeconds();
  const ExtentId id;
  for (size_t i = 0; i < kBlocks; ++i) {
    peer.writeExtentBlock(id, i, data, Hash128()).wait(io.waitScope);
  }
  peer.sealExtent(id, kBlocks * kBlockBytes, Hash128()).wait(io.waitScope);
  const double mebibytes = static_cast<double>(kBlocks * kBlockBytes) / (1 << 20);
  const double waited = wallSeconds() - wall, spent = processorSeconds() - client;
  const double there = serverSeconds(io, peer) - server;
  printf("blocks: %.0f MiB/s; per block of 256 KiB %.0f us caller, %.0f us service\n",
         mebibytes / waited, spent / kBlocks * 1e6, there / kBlocks * 1e6);
}

int run(const std::string& folder, size_t calls) {
  int pipe[2];
  if (::pipe(pipe) != 0) return 1;
  const pid_t child = fork();
  if (child == 0) {
    serve(folder, pipe[1]);
    _exit(1);
  }
  close(pipe[1]);
  uint16_t port = 0;
  int status = 1;
  if (read(pipe[0], &port, sizeof port) == sizeof port) {
    auto io = kj::setupAsyncIo();
    Node node(io, folder, "a", port);
    auto& peer = node.transport->peer("b");
    serverSeconds(io, peer);
    appends(io, peer, calls / 10, 1);  // to warm up
    for (size_t inFlight : {1, 16, 256}) appends(io, peer, calls, inFlight);
    blocks(io, peer);
    status = 0;
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return status;
}

}  // namespace
}  // namespace packmoor::rpc

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: peer_bench CERTIFICATES [CALLS]\n");
    return 2;
  }
  return packmoor::rpc::run(argv[1], argc > 2 ? strtoul(argv[2], nullptr, 10) : 50000);
}
