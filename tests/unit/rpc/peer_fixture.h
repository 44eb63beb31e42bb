// What the tests of the peer transport share: certificates of a small cluster, a PeerService that
// remembers and answers what it is told, and nodes that listen on loopback.
#pragma once

#include "rpc/peers.h"
#include "rpc/tls.h"

#include <kj/async-io.h>
#include <kj/debug.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "support/temp_dir.h"

namespace packmoor::rpc {

// Certificates of cluster "alpha" with nodes a, b and c, and of a cluster with another authority
// and a node a. Made once for the whole program.
class TestCertificates {
 public:
  static TestCertificates& instance();
  TlsFiles files(const std::string& node) const { return filesIn("alpha", node); }
  TlsFiles foreignFiles(const std::string& node) const { return filesIn("beta", node); }
  TlsFiles filesIn(const std::string& cluster, const std::string& node) const;
  const std::string& path() const { return folder_.path(); }

 private:
  TestCertificates();
  testing::TempDir folder_;
};

int64_t wallClockMs();
kj::Array<const kj::byte> bytesOf(kj::StringPtr text);

class FakeService final : public replicator::PeerService {
 public:
  std::vector<std::pair<replicator::NodeId, std::string>> calls;  // from, method
  replicator::AppendRequest appended;
  replicator::AppendReply appendReply;
  replicator::FenceRequest fenced;
  replicator::FenceReply fenceReply;
  replicator::FetchRequest fetched;
  std::vector<replicator::RecordRef> fetchRecords;
  replicator::CommonPrefixRequest prefixAsked;
  replicator::LogPosition prefixReply;
  replicator::ProposeRequest proposed;
  std::function<replicator::ProposeReply()> proposeReply;
  replicator::ReadIndexRequest readIndexAsked;
  replicator::ReadIndexReply readIndexReply;
  replicator::ConfirmRequest confirmAsked;
  replicator::ConfirmReply confirmReply;
  replicator::ConsentRequest consentAsked;
  replicator::ConsentReply consentReply;
  replicator::OpenCheckpointRequest checkpointAsked;
  replicator::OpenCheckpointReply checkpointReply;
  replicator::CheckpointBlockRequest checkpointBlock;
  replicator::CloseCheckpointRequest checkpointClosed;
  replicator::VolumeId volume;
  replicator::ExtentId extent;
  uint64_t block = 0, sealedBytes = 0;
  replicator::Hash128 checksum;
  kernelio::IoBuffer blockData;
  std::string queryName;
  std::string question, answer;

  // Replace what a call does, when set.
  std::function<kj::Promise<replicator::AppendReply>(replicator::AppendRequest)> onAppend;
  std::function<kj::Promise<void>(replicator::ExtentId, uint64_t, kernelio::IoBuffer)> onBlock;
  std::function<kj::Promise<void>(replicator::ExtentId)> onSeal;
  std::function<kj::Promise<void>(replicator::VolumeId)> onTakeOver;

  size_t count(const std::string& method) const;

  kj::Promise<replicator::AppendReply> append(const replicator::NodeId& from,
                                              replicator::AppendRequest request) override;
  kj::Promise<replicator::FenceReply> fence(const replicator::NodeId& from,
                                            replicator::FenceRequest request) override;
  kj::Promise<replicator::FetchReply> fetch(const replicator::NodeId& from,
                                            replicator::FetchRequest request) override;
  kj::Promise<replicator::LogPosition> commonPrefix(
      const replicator::NodeId& from, replicator::CommonPrefixRequest request) override;
  kj::Promise<replicator::ProposeReply> propose(const replicator::NodeId& from,
                                                replicator::ProposeRequest request) override;
  kj::Promise<replicator::ReadIndexReply> readIndex(
      const replicator::NodeId& from, replicator::ReadIndexRequest request) override;
  kj::Promise<replicator::ConfirmReply> confirm(const replicator::NodeId& from,
                                                replicator::ConfirmRequest request) override;
  kj::Promise<replicator::ConsentReply> consent(const replicator::NodeId& from,
                                                replicator::ConsentRequest request) override;
  kj::Promise<void> takeOver(const replicator::NodeId& from,
                             replicator::VolumeId volume) override;
  kj::Promise<void> writeExtentBlock(const replicator::NodeId& from, replicator::ExtentId id,
                                     uint64_t block, kernelio::IoBuffer data,
                                     replicator::Hash128 checksum) override;
  kj::Promise<void> sealExtent(const replicator::NodeId& from, replicator::ExtentId id,
                               uint64_t bytes, replicator::Hash128 root) override;
  kj::Promise<void> abandonExtent(const replicator::NodeId& from,
                                  replicator::ExtentId id) override;
  kj::Promise<replicator::ExtentBlockReply> readExtentBlock(const replicator::NodeId& from,
                                                            replicator::ExtentId id,
                                                            uint64_t block) override;
  kj::Promise<std::pair<uint64_t, replicator::Hash128>> extentInfo(
      const replicator::NodeId& from, replicator::ExtentId id) override;
  kj::Promise<replicator::OpenCheckpointReply> openCheckpoint(
      const replicator::NodeId& from, replicator::OpenCheckpointRequest request) override;
  kj::Promise<replicator::ExtentBlockReply> readCheckpointBlock(
      const replicator::NodeId& from, replicator::CheckpointBlockRequest request) override;
  kj::Promise<void> closeCheckpoint(const replicator::NodeId& from,
                                    replicator::CloseCheckpointRequest request) override;
  kj::Promise<kj::Array<kj::byte>> query(const replicator::NodeId& from,
                                         replicator::VolumeId volume, std::string name,
                                         kj::Array<const kj::byte> question) override;

 private:
  void note(const replicator::NodeId& from, const char* method) { calls.emplace_back(from, method); }
};

// Where the nodes of a test listen.
using AddressBook = std::map<replicator::NodeId, std::string>;

struct TestNodeOptions {
  std::string cluster = "alpha";
  kj::Maybe<TlsFiles> files = nullptr;  // else those of the node
  std::string certifiedAs = {};  // whose files these are; empty: the node's
  kj::Maybe<kj::Timer&> timer = nullptr;
};

class TestNode {
 public:
  TestNode(kj::AsyncIoContext& io, AddressBook& book, std::string id,
           TestNodeOptions options = {});
  ~TestNode() noexcept(false);

  // Starts to listen, on `port` or a free one, and enters the address in the book.
  void listen(uint16_t port = 0);
  void close() { listener = nullptr; }

  // Waits until a notice contains `text`. Notices before are kept.
  void waitForNotice(kj::StringPtr text);
  bool noticed(kj::StringPtr text) const;

  std::string id;
  FakeService service;
  std::vector<std::string> notices;
  kj::Own<TlsMaterial> tls;
  kj::Own<PeerTransport> transport;
  kj::Maybe<kj::Own<PeerListener>> listener;

 private:
  kj::AsyncIoContext& io_;
  AddressBook& book_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> noticeWaiter_;
};

}  // namespace packmoor::rpc
