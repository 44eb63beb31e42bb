// What other nodes ask of this one (PeerService): routed to the volume, or to the extents.
#include "replicator_impl.h"

#include <kj/debug.h>

namespace packmoor::replicator {

VolumeImpl& ReplicatorImpl::route(const NodeId& from, VolumeId id) {
  auto it = byId_.find(id);
  KJ_REQUIRE(it != byId_.end(), "the volume is not open on this node", id, self_.node);
  // What is known here may be old.
  if (!namesNode(it->second->configuration(), from)) coordinatorWanted_.notify();
  KJ_REQUIRE(namesNode(it->second->configuration(), from), "the sender is not a member of the volume",
             from, it->second->name());
  return *it->second;
}

kj::Promise<AppendReply> ReplicatorImpl::append(const NodeId& from, AppendRequest request) {
  VolumeImpl& volume = route(from, request.volume);
  return canceler_.wrap(volume.handleAppend(from, kj::mv(request)));
}

kj::Promise<FenceReply> ReplicatorImpl::fence(const NodeId& from, FenceRequest request) {
  // Rule 11: against the record that it carries.
  KJ_REQUIRE(isMember(configurationAsked(request), request.coordinator.current.primary),
             "a fence of a node that is not a member of the volume", from);
  auto it = byId_.find(request.coordinator.id);
  KJ_REQUIRE(it != byId_.end(), "the volume is not open on this node", self_.node);
  VolumeImpl& volume = *it->second;
  return canceler_.wrap(volume.handleFence(from, kj::mv(request)));
}

kj::Promise<FetchReply> ReplicatorImpl::fetch(const NodeId& from, FetchRequest request) {
  VolumeImpl& volume = route(from, request.volume);
  return canceler_.wrap(volume.handleFetch(kj::mv(request)));
}

kj::Promise<LogPosition> ReplicatorImpl::commonPrefix(const NodeId& from,
                                                      CommonPrefixRequest request) {
  return route(from, request.volume).handleCommonPrefix(request);
}

kj::Promise<ProposeReply> ReplicatorImpl::propose(const NodeId& from, ProposeRequest request) {
  VolumeImpl& volume = route(from, request.volume);
  return canceler_.wrap(volume.handlePropose(from, kj::mv(request)));
}

kj::Promise<ReadIndexReply> ReplicatorImpl::readIndex(const NodeId& from,
                                                      ReadIndexRequest request) {
  VolumeImpl& volume = route(from, request.volume);
  return canceler_.wrap(volume.handleReadIndex(from, kj::mv(request)));
}

kj::Promise<ConfirmReply> ReplicatorImpl::confirm(const NodeId& from, ConfirmRequest request) {
  return route(from, request.volume).handleConfirm(request);
}

kj::Promise<ConsentReply> ReplicatorImpl::consent(const NodeId& from, ConsentRequest request) {
  VolumeImpl& volume = route(from, request.volume);
  return canceler_.wrap(volume.handleConsent(from, request));
}

kj::Promise<void> ReplicatorImpl::takeOver(const NodeId& from, VolumeId volume) {
  return canceler_.wrap(route(from, volume).takeOver());
}

kj::Promise<void> ReplicatorImpl::writeExtentBlock(const NodeId& from, ExtentId id, uint64_t block,
                                                   kernelio::IoBuffer data, Hash128 checksum) {
  return canceler_.wrap(exchange_.writeBlock(from, id, block, kj::mv(data), checksum));
}

kj::Promise<void> ReplicatorImpl::sealExtent(const NodeId& from, ExtentId id, uint64_t bytes,
                                             Hash128 root) {
  return canceler_.wrap(exchange_.seal(from, id, bytes, root));
}

kj::Promise<void> ReplicatorImpl::abandonExtent(const NodeId& from, ExtentId id) {
  exchange_.abandon(from, id);
  return kj::READY_NOW;
}

kj::Promise<ExtentBlockReply> ReplicatorImpl::readExtentBlock(const NodeId& from, ExtentId id,
                                                              uint64_t block) {
  return canceler_.wrap(exchange_.readBlock(id, block));
}

kj::Promise<std::pair<uint64_t, Hash128>> ReplicatorImpl::extentInfo(const NodeId& from,
                                                                     ExtentId id) {
  return exchange_.info(id);
}

kj::Promise<OpenCheckpointReply> ReplicatorImpl::openCheckpoint(const NodeId& from,
                                                                OpenCheckpointRequest request) {
  return canceler_.wrap(route(from, request.volume).handleOpenCheckpoint(from, request));
}

kj::Promise<ExtentBlockReply> ReplicatorImpl::readCheckpointBlock(const NodeId& from,
                                                                  CheckpointBlockRequest request) {
  return canceler_.wrap(route(from, request.volume).handleReadCheckpoint(from, request));
}

kj::Promise<void> ReplicatorImpl::closeCheckpoint(const NodeId& from,
                                                  CloseCheckpointRequest request) {
  route(from, request.volume).handleCloseCheckpoint(from, request);
  return kj::READY_NOW;
}

kj::Promise<kj::Array<kj::byte>> ReplicatorImpl::query(const NodeId& from, VolumeId volume,
                                                       std::string name,
                                                       kj::Array<const kj::byte> question) {
  if (volume.isNull()) return canceler_.wrap(nodeQuery_(kj::mv(name), kj::mv(question)));
  return canceler_.wrap(
      route(from, volume).stateMachine().query(kj::mv(name), kj::mv(question)));
}

}  // namespace packmoor::replicator
