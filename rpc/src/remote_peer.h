// RemotePeer: replicator::Peer over the two links to one node.
//
// Owned by the transport, for its whole life.
#pragma once

#include "peer_link.h"

#include <map>

namespace packmoor::rpc {

class RemotePeer final : public replicator::Peer {
 public:
  RemotePeer(PeerHub& hub, replicator::NodeId node);

  PeerConnectionStatus status() const;
  void dialNow();

  const replicator::NodeId& node() override { return node_; }
  bool connected() override { return control_.connected(); }
  bool refused() override { return control_.refused(); }

  kj::Promise<replicator::AppendReply> append(replicator::AppendRequest request) override;
  kj::Promise<replicator::FenceReply> fence(replicator::FenceRequest request) override;
  kj::Promise<replicator::FetchReply> fetch(replicator::FetchRequest request) override;
  kj::Promise<replicator::LogPosition> commonPrefix(
      replicator::CommonPrefixRequest request) override;
  kj::Promise<replicator::ProposeReply> propose(replicator::ProposeRequest request) override;
  kj::Promise<replicator::ReadIndexReply> readIndex(
      replicator::ReadIndexRequest request) override;
  kj::Promise<replicator::ConfirmReply> confirm(replicator::ConfirmRequest request) override;
  kj::Promise<replicator::ConsentReply> consent(replicator::ConsentRequest request) override;
  kj::Promise<void> takeOver(replicator::VolumeId volume) override;

  kj::Promise<void> writeExtentBlock(replicator::ExtentId id, uint64_t block,
                                     kernelio::IoBuffer data,
                                     replicator::Hash128 checksum) override;
  kj::Promise<void> sealExtent(replicator::ExtentId id, uint64_t bytes,
                               replicator::Hash128 root) override;
  kj::Promise<void> abandonExtent(replicator::ExtentId id) override;
  kj::Promise<replicator::ExtentBlockReply> readExtentBlock(replicator::ExtentId id,
                                                            uint64_t block) override;
  kj::Promise<std::pair<uint64_t, replicator::Hash128>> extentInfo(
      replicator::ExtentId id) override;
  kj::Promise<replicator::OpenCheckpointReply> openCheckpoint(
      replicator::OpenCheckpointRequest request) override;
  kj::Promise<replicator::ExtentBlockReply> readCheckpointBlock(
      replicator::CheckpointBlockRequest request) override;
  kj::Promise<void> closeCheckpoint(replicator::CloseCheckpointRequest request) override;
  kj::Promise<kj::Array<kj::byte>> query(replicator::VolumeId volume, std::string name,
                                         kj::Array<const kj::byte> question) override;

 private:
  // An extent that is being streamed. `lost`: its connection broke; nothing more of it is sent.
  struct Sink {
    kj::Maybe<wire::ExtentSink::Client> client;
    bool lost = false;
  };

  // Runs `func(node)` now, or when the attempt to connect that is under way has succeeded.
  template <typename T, typename Func>
  kj::Promise<T> with(PeerLink& link, Func func);
  kj::Promise<wire::ExtentSink::Client> sinkFor(replicator::ExtentId id);
  kj::Exception lostExtent(const replicator::ExtentId& id) const;

  replicator::NodeId node_;
  std::map<replicator::ExtentId, Sink> sinks_;
  PeerLink control_, bulk_;
};

}  // namespace packmoor::rpc
