#include "remote_peer.h"

#include <kj/debug.h>

#include "peer_translate.h"

namespace packmoor::rpc {

using replicator::ExtentId;
using replicator::Hash128;
using replicator::VolumeId;

RemotePeer::RemotePeer(PeerHub& hub, replicator::NodeId node)
    : node_(node),
      control_(hub, node, PeerRole::kControl, []() {}),
      bulk_(hub, node, PeerRole::kBulk, [this]() {
        for (auto& [id, sink] : sinks_) {
          sink.client = nullptr;
          sink.lost = true;
        }
      }) {}

PeerConnectionStatus RemotePeer::status() const {
  PeerConnectionStatus status;
  status.node = node_;
  status.address = control_.address();
  status.software = control_.software();
  status.control = control_.connected();
  status.bulk = bulk_.connected();
  if (!status.control) {
    status.problem = control_.problem();
  } else if (!status.bulk) {
    status.problem = bulk_.problem();
  }
  return status;
}

void RemotePeer::dialNow() {
  control_.dialNow();
  bulk_.dialNow();
}

template <typename T, typename Func>
kj::Promise<T> RemotePeer::with(PeerLink& link, Func func) {
  KJ_IF_MAYBE(node, link.node()) { return func(*node); }
  return link.whenConnected().then([&link, func = kj::mv(func)]() mutable -> kj::Promise<T> {
    KJ_IF_MAYBE(node, link.node()) { return func(*node); }
    return KJ_EXCEPTION(DISCONNECTED, "The connection was lost.");
  });
}

kj::Promise<replicator::AppendReply> RemotePeer::append(replicator::AppendRequest request) {
  return with<replicator::AppendReply>(
      control_, [request = kj::mv(request)](wire::Node::Client& node) {
        auto call = node.appendRequest(sizeOf(request));
        write(request, call);
        return call.send().then([](auto response) {
          return read(wire::AppendReply::Reader(response));
        });
      });
}

kj::Promise<replicator::FenceReply> RemotePeer::fence(replicator::FenceRequest request) {
  return with<replicator::FenceReply>(
      control_, [request = kj::mv(request)](wire::Node::Client& node) {
        auto call = node.fenceRequest();
        write(request.coordinator, call.initCoordinator());
        call.setAcceptsLoss(request.acceptsLoss);
        return call.send().then([](auto response) {
          return read(wire::FenceReply::Reader(response));
        });
      });
}

kj::Promise<replicator::FetchReply> RemotePeer::fetch(replicator::FetchRequest request) {
  return with<replicator::FetchReply>(
      bulk_, [request = kj::mv(request)](wire::Node::Client& node) {
        auto call = node.fetchRequest();
        write(request.volume, call.initVolume());
        call.setEpoch(request.epoch.value);
        call.setFirst(request.first.value);
        call.setLast(request.last.value);
        return call.send().then([](auto response) {
          return read(wire::FetchReply::Reader(response));
        });
      });
}

kj::Promise<replicator::LogPosition> RemotePeer::commonPrefix(
    replicator::CommonPrefixRequest request) {
  return with<replicator::LogPosition>(
      control_, [request = kj::mv(request)](wire::Node::Client& node) {
        auto call = node.commonPrefixRequest();
        write(request.volume, call.initVolume());
        auto positions = call.initPositions(request.positions.size());
        for (size_t i = 0; i < request.positions.size(); ++i) {
          write(request.positions[i], positions[i]);
        }
        return call.send().then([](auto response) { return read(response.getPosition()); });
      });
}

kj::Promise<replicator::ProposeReply> RemotePeer::propose(replicator::ProposeRequest request) {
  return with<replicator::ProposeReply>(
      control_, [request = kj::mv(request)](wire::Node::Client& node) {
        auto call = node.proposeRequest(
            sizeOfBytes(request.payload.size() + request.extents.size() * sizeof(ExtentId)));
        write(request, call);
        return call.send().then([](auto response) {
          return read(wire::ProposeReply::Reader(response));
        });
      });
}

kj::Promise<replicator::ReadIndexReply> RemotePeer::readIndex(
    replicator::ReadIndexRequest request) {
  return with<replicator::ReadIndexReply>(control_, [request](wire::Node::Client& node) {
    auto call = node.readIndexRequest();
    write(request, call);
    return call.send().then([](auto response) {
      return read(wire::ReadIndexReply::Reader(response));
    });
  });
}

kj::Promise<replicator::ConfirmReply> RemotePeer::confirm(replicator::ConfirmRequest request) {
  return with<replicator::ConfirmReply>(control_, [request](wire::Node::Client& node) {
    auto call = node.confirmRequest();
    write(request.volume, call.initVolume());
    write(request.member, call.initMember());
    call.setEpoch(request.epoch.value);
    call.setRound(request.round);
    return call.send().then([](auto response) {
      return read(wire::ConfirmReply::Reader(response));
    });
  });
}

kj::Promise<replicator::ConsentReply> RemotePeer::consent(replicator::ConsentRequest request) {
  return with<replicator::ConsentReply>(control_, [request](wire::Node::Client& node) {
    auto call = node.consentRequest(sizeOfBytes(0));
    write(request, call);
    return call.send().then([](auto response) {
      return read(wire::ConsentReply::Reader(response));
    });
  });
}

kj::Promise<void> RemotePeer::takeOver(VolumeId volume) {
  return with<void>(control_, [volume](wire::Node::Client& node) -> kj::Promise<void> {
    auto call = node.takeOverRequest();
    write(volume, call.initVolume());
    return call.send().ignoreResult();
  });
}

// --- extents

kj::Exception RemotePeer::lostExtent(const ExtentId& id) const {
  return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                       kj::str("The connection to node ", node_.c_str(),
                               " broke while extent ", id, " was sent over it."));
}

kj::Promise<wire::ExtentSink::Client> RemotePeer::sinkFor(ExtentId id) {
  auto found = sinks_.find(id);
  if (found != sinks_.end()) {
    if (found->second.lost) return lostExtent(id);
    KJ_IF_MAYBE(client, found->second.client) { return wire::ExtentSink::Client(*client); }
  }
  return with<wire::ExtentSink::Client>(
      bulk_, [this, id](wire::Node::Client& node) -> kj::Promise<wire::ExtentSink::Client> {
        auto& sink = sinks_[id];  // another block may have opened it meanwhile
        if (sink.lost) return lostExtent(id);
        KJ_IF_MAYBE(client, sink.client) { return wire::ExtentSink::Client(*client); }
        auto call = node.writeExtentRequest();
        write(id, call.initId());
        auto client = call.send().getSink();
        sink.client = client;
        return client;
      });
}

kj::Promise<void> RemotePeer::writeExtentBlock(ExtentId id, uint64_t block,
                                               kernelio::IoBuffer data, Hash128 checksum) {
  return sinkFor(id).then([block, data = kj::mv(data), checksum](wire::ExtentSink::Client sink) {
    auto call = sink.writeBlockRequest(sizeOfBytes(data.size()));
    call.setBlock(block);
    write(checksum, call.initChecksum());
    call.setData(data.bytes());
    return call.send();
  });
}

kj::Promise<void> RemotePeer::sealExtent(ExtentId id, uint64_t bytes, Hash128 root) {
  return sinkFor(id)
      .then([bytes, root](wire::ExtentSink::Client sink) {
        auto call = sink.sealRequest();
        call.setBytes(bytes);
        write(root, call.initRoot());
        return call.send().ignoreResult().attach(kj::mv(sink));
      })
      .then([this, id]() { sinks_.erase(id); },
            [this, id](kj::Exception&& e) {
              sinks_.erase(id);
              kj::throwFatalException(kj::mv(e));
            });
}

kj::Promise<void> RemotePeer::abandonExtent(ExtentId id) {
  sinks_.erase(id);
  return with<void>(bulk_, [id](wire::Node::Client& node) -> kj::Promise<void> {
    auto call = node.abandonExtentRequest();
    write(id, call.initId());
    return call.send().ignoreResult();
  });
}

kj::Promise<replicator::ExtentBlockReply> RemotePeer::readExtentBlock(ExtentId id,
                                                                      uint64_t block) {
  return with<replicator::ExtentBlockReply>(bulk_, [id, block](wire::Node::Client& node) {
    auto call = node.readExtentBlockRequest();
    write(id, call.initId());
    call.setBlock(block);
    return call.send().then([](auto response) {
      return replicator::ExtentBlockReply{kernelio::IoBuffer::copyOf(response.getData()),
                                          read(response.getChecksum())};
    });
  });
}

kj::Promise<std::pair<uint64_t, Hash128>> RemotePeer::extentInfo(ExtentId id) {
  using Info = std::pair<uint64_t, Hash128>;
  return with<Info>(control_, [id](wire::Node::Client& node) {
    auto call = node.extentInfoRequest();
    write(id, call.initId());
    return call.send().then(
        [](auto response) { return Info(response.getBytes(), read(response.getRoot())); });
  });
}

// --- checkpoints

kj::Promise<replicator::OpenCheckpointReply> RemotePeer::openCheckpoint(
    replicator::OpenCheckpointRequest request) {
  return with<replicator::OpenCheckpointReply>(bulk_, [request](wire::Node::Client& node) {
    auto call = node.openCheckpointRequest();
    write(request.volume, call.initVolume());
    write(request.member, call.initMember());
    write(request.resume, call.initResume());
    call.setReplaces(request.replaces);
    return call.send().then([](auto response) {
      replicator::OpenCheckpointReply reply;
      reply.checkpoint = read(response.getCheckpoint());
      reply.position = read(response.getPosition());
      reply.manifestBytes = response.getManifestBytes();
      reply.manifestHash = read(response.getManifestHash());
      return reply;
    });
  });
}

kj::Promise<replicator::ExtentBlockReply> RemotePeer::readCheckpointBlock(
    replicator::CheckpointBlockRequest request) {
  return with<replicator::ExtentBlockReply>(bulk_, [request](wire::Node::Client& node) {
    auto call = node.readCheckpointBlockRequest();
    write(request.volume, call.initVolume());
    write(request.checkpoint, call.initCheckpoint());
    call.setFile(request.file);
    call.setBlock(request.block);
    return call.send().then([](auto response) {
      return replicator::ExtentBlockReply{kernelio::IoBuffer::copyOf(response.getData()),
                                          read(response.getChecksum())};
    });
  });
}

kj::Promise<void> RemotePeer::closeCheckpoint(replicator::CloseCheckpointRequest request) {
  return with<void>(bulk_, [request](wire::Node::Client& node) -> kj::Promise<void> {
    auto call = node.closeCheckpointRequest();
    write(request.volume, call.initVolume());
    write(request.checkpoint, call.initCheckpoint());
    return call.send().ignoreResult();
  });
}

kj::Promise<kj::Array<kj::byte>> RemotePeer::query(VolumeId volume, std::string name,
                                                   kj::Array<const kj::byte> question) {
  return with<kj::Array<kj::byte>>(
      bulk_, [volume, name = kj::mv(name),
              question = kj::mv(question)](wire::Node::Client& node) {
        auto call = node.queryRequest(sizeOfBytes(question.size() + name.size()));
        write(volume, call.initVolume());
        call.setName(asStringPtr(name));
        call.setQuestion(question);
        return call.send().then([](auto response) { return copyBytes(response.getAnswer()); });
      });
}

}  // namespace packmoor::rpc
