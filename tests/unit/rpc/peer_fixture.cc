#include "peer_fixture.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

namespace packmoor::rpc {

using namespace replicator;  // NOLINT: a test's source

TestCertificates& TestCertificates::instance() {
  static TestCertificates certificates;
  return certificates;
}

TestCertificates::TestCertificates() {
  const auto root = std::filesystem::path(PACKMOOR_SOURCE_DIR);
  const std::string script = (root / "tools/lib/make_certs.sh").string();
  for (const char* cluster : {"alpha", "beta"}) {
    const std::string command = "'" + script + "' '" + folder_.path(cluster) + "' " + cluster +
                                " a b c 2>&1";
    if (system(command.c_str()) != 0) throw std::runtime_error("no certificates: " + command);
  }
}

TlsFiles TestCertificates::filesIn(const std::string& cluster, const std::string& node) const {
  const std::string folder = folder_.path(cluster) + "/";
  return {folder + "ca.crt", folder + node + ".crt", folder + node + ".key"};
}

int64_t wallClockMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

kj::Array<const kj::byte> bytesOf(kj::StringPtr text) {
  return kj::heapArray<const kj::byte>(text.asBytes());
}

// --- service

size_t FakeService::count(const std::string& method) const {
  size_t found = 0;
  for (auto& call : calls) found += call.second == method;
  return found;
}

kj::Promise<AppendReply> FakeService::append(const NodeId& from, AppendRequest request) {
  note(from, "append");
  if (onAppend) return onAppend(kj::mv(request));
  appended = kj::mv(request);
  return appendReply;
}
kj::Promise<FenceReply> FakeService::fence(const NodeId& from, FenceRequest request) {
  note(from, "fence");
  fenced = kj::mv(request);
  return fenceReply;
}
kj::Promise<FetchReply> FakeService::fetch(const NodeId& from, FetchRequest request) {
  note(from, "fetch");
  fetched = request;
  return FetchReply{fetchRecords};
}
kj::Promise<LogPosition> FakeService::commonPrefix(const NodeId& from,
                                                   CommonPrefixRequest request) {
  note(from, "commonPrefix");
  prefixAsked = kj::mv(request);
  return prefixReply;
}
kj::Promise<ProposeReply> FakeService::propose(const NodeId& from, ProposeRequest request) {
  note(from, "propose");
  proposed = kj::mv(request);
  return proposeReply();
}
kj::Promise<ReadIndexReply> FakeService::readIndex(const NodeId& from,
                                                   ReadIndexRequest request) {
  note(from, "readIndex");
  readIndexAsked = request;
  return readIndexReply;
}
kj::Promise<ConfirmReply> FakeService::confirm(const NodeId& from, ConfirmRequest request) {
  note(from, "confirm");
  confirmAsked = request;
  return confirmReply;
}
kj::Promise<ConsentReply> FakeService::consent(const NodeId& from, ConsentRequest request) {
  note(from, "consent");
  consentAsked = kj::mv(request);
  return consentReply;
}
kj::Promise<void> FakeService::takeOver(const NodeId& from, VolumeId asked) {
  note(from, "takeOver");
  volume = asked;
  if (onTakeOver) return onTakeOver(asked);
  return kj::READY_NOW;
}
kj::Promise<void> FakeService::writeExtentBlock(const NodeId& from, ExtentId id, uint64_t number,
                                                kernelio::IoBuffer data, Hash128 sum) {
  note(from, "writeExtentBlock");
  extent = id;
  block = number;
  checksum = sum;
  if (onBlock) return onBlock(id, number, kj::mv(data));
  blockData = kj::mv(data);
  return kj::READY_NOW;
}
kj::Promise<void> FakeService::sealExtent(const NodeId& from, ExtentId id, uint64_t bytes,
                                          Hash128 root) {
  note(from, "sealExtent");
  extent = id;
  sealedBytes = bytes;
  checksum = root;
  if (onSeal) return onSeal(id);
  return kj::READY_NOW;
}
kj::Promise<void> FakeService::abandonExtent(const NodeId& from, ExtentId id) {
  note(from, "abandonExtent");
  extent = id;
  return kj::READY_NOW;
}
kj::Promise<ExtentBlockReply> FakeService::readExtentBlock(const NodeId& from, ExtentId id,
                                                           uint64_t number) {
  note(from, "readExtentBlock");
  extent = id;
  block = number;
  return ExtentBlockReply{blockData, checksum};
}
kj::Promise<std::pair<uint64_t, Hash128>> FakeService::extentInfo(const NodeId& from,
                                                                  ExtentId id) {
  note(from, "extentInfo");
  extent = id;
  return std::pair<uint64_t, Hash128>(sealedBytes, checksum);
}
kj::Promise<replicator::OpenCheckpointReply> FakeService::openCheckpoint(
    const NodeId& from, replicator::OpenCheckpointRequest request) {
  note(from, "openCheckpoint");
  checkpointAsked = request;
  return checkpointReply;
}
kj::Promise<ExtentBlockReply> FakeService::readCheckpointBlock(
    const NodeId& from, replicator::CheckpointBlockRequest request) {
  note(from, "readCheckpointBlock");
  checkpointBlock = request;
  return ExtentBlockReply{blockData, checksum};
}
kj::Promise<void> FakeService::closeCheckpoint(const NodeId& from,
                                               replicator::CloseCheckpointRequest request) {
  note(from, "closeCheckpoint");
  checkpointClosed = request;
  return kj::READY_NOW;
}
kj::Promise<kj::Array<kj::byte>> FakeService::query(const NodeId& from, VolumeId asked,
                                                    std::string name,
                                                    kj::Array<const kj::byte> text) {
  note(from, "query");
  volume = asked;
  queryName = name;
  question.assign(text.asChars().begin(), text.size());
  return kj::heapArray<kj::byte>(kj::StringPtr(answer.c_str(), answer.size()).asBytes());
}

// --- node

TestNode::TestNode(kj::AsyncIoContext& io, AddressBook& book, std::string id,
                   TestNodeOptions options)
    : id(id), io_(io), book_(book) {
  TlsFiles files = TestCertificates::instance().files(id);
  KJ_IF_MAYBE(given, options.files) { files = *given; }
  const std::string certified = options.certifiedAs.empty() ? id : options.certifiedAs;
  if (files.certificate == TestCertificates::instance().files(id).certificate) {
    files = TestCertificates::instance().files(certified);
  }
  tls = TlsMaterial::load(files, certified, wallClockMs());
  kj::Timer* timer = &io.provider->getTimer();
  KJ_IF_MAYBE(given, options.timer) { timer = given; }
  transport = PeerTransport::create(PeerTransportOptions{
      *timer, io.provider->getNetwork(), *tls, id, options.cluster, "test",
      [&book](const NodeId& node) -> std::optional<std::string> {
        auto found = book.find(node);
        if (found == book.end()) return std::nullopt;
        return found->second;
      },
      [this](NoticeLevel, kj::StringPtr sentence) {
        notices.emplace_back(sentence.cStr());
        KJ_IF_MAYBE(waiter, noticeWaiter_) { (*waiter)->fulfill(); }
      }});
}

TestNode::~TestNode() noexcept(false) {}

void TestNode::listen(uint16_t port) {
  auto made = transport->listen("127.0.0.1:" + std::to_string(port), service).wait(io_.waitScope);
  book_[id] = "127.0.0.1:" + std::to_string(made->port());
  listener = kj::mv(made);
}

bool TestNode::noticed(kj::StringPtr text) const {
  for (auto& notice : notices) {
    if (notice.find(text.cStr()) != std::string::npos) return true;
  }
  return false;
}

void TestNode::waitForNotice(kj::StringPtr text) {
  while (!noticed(text)) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    noticeWaiter_ = kj::mv(paf.fulfiller);
    paf.promise.wait(io_.waitScope);
    noticeWaiter_ = nullptr;
  }
}

}  // namespace packmoor::rpc
