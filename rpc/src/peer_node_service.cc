#include "peer_node_service.h"

#include <kj/debug.h>

#include "peer_translate.h"

namespace packmoor::rpc {

using replicator::ExtentId;

InboundCalls::InboundCalls(replicator::PeerService& service, replicator::NodeId from,
                           kj::TaskSet& cleanups)
    : service_(&service), from_(kj::mv(from)), cleanups_(cleanups) {}

kj::Exception InboundCalls::closedException() {
  return KJ_EXCEPTION(DISCONNECTED, "The connection was closed.");
}

uint64_t InboundCalls::beginExtent(const ExtentId& id) {
  return open_[id] = ++lastTicket_;
}

void InboundCalls::requireOpen(const ExtentId& id, uint64_t ticket) const {
  auto found = open_.find(id);
  KJ_REQUIRE(found != open_.end() && found->second == ticket,
             "The extent was abandoned or sealed.", id);
}

void InboundCalls::abandonIfOpen(const ExtentId& id, uint64_t ticket) {
  auto found = open_.find(id);
  if (service_ == nullptr || found == open_.end() || found->second != ticket) return;
  open_.erase(found);
  cleanups_.add(service_->abandonExtent(from_, id));
}

void InboundCalls::close() {
  if (service_ == nullptr) return;
  auto& service = *service_;
  service_ = nullptr;
  canceler_.cancel(closedException());
  for (auto& [id, ticket] : open_) cleanups_.add(service.abandonExtent(from_, id));
  open_.clear();
}

namespace {

class ExtentSinkService final : public wire::ExtentSink::Server {
 public:
  ExtentSinkService(kj::Own<InboundCalls> calls, ExtentId id)
      : calls_(kj::mv(calls)), id_(id), ticket_(calls_->beginExtent(id)) {}
  ~ExtentSinkService() noexcept(false) { calls_->abandonIfOpen(id_, ticket_); }

 protected:
  kj::Promise<void> writeBlock(WriteBlockContext context) override {
    auto params = context.getParams();
    calls_->requireOpen(id_, ticket_);
    auto data = kernelio::IoBuffer::copyOf(params.getData());
    const uint64_t block = params.getBlock();
    const auto checksum = read(params.getChecksum());
    context.releaseParams();
    return calls_->call<void>([&](auto& service, auto& from) {
      return service.writeExtentBlock(from, id_, block, kj::mv(data), checksum);
    });
  }

  kj::Promise<void> seal(SealContext context) override {
    auto params = context.getParams();
    calls_->requireOpen(id_, ticket_);
    return calls_
        ->call<void>([&](auto& service, auto& from) {
          return service.sealExtent(from, id_, params.getBytes(), read(params.getRoot()));
        })
        .then([this]() { calls_->endExtent(id_); });
  }

 private:
  kj::Own<InboundCalls> calls_;
  ExtentId id_;
  uint64_t ticket_;
};

class NodeService final : public wire::Node::Server {
 public:
  explicit NodeService(kj::Own<InboundCalls> calls) : calls_(kj::mv(calls)) {}

 protected:
  kj::Promise<void> append(AppendContext context) override {
    auto request = read(context.getParams());
    context.releaseParams();
    return calls_
        ->call<replicator::AppendReply>([&](auto& service, auto& from) {
          return service.append(from, kj::mv(request));
        })
        .then([context](replicator::AppendReply reply) mutable {
          write(reply, context.initResults(sizeOfBytes(0)));
        });
  }

  kj::Promise<void> fence(FenceContext context) override {
    auto params = context.getParams();
    replicator::FenceRequest request{read(params.getCoordinator()), params.getAcceptsLoss()};
    return calls_
        ->call<replicator::FenceReply>([&](auto& service, auto& from) {
          return service.fence(from, kj::mv(request));
        })
        .then([context](replicator::FenceReply reply) mutable {
          write(reply, context.initResults(sizeOfBytes(0)));
        });
  }

  kj::Promise<void> fetch(FetchContext context) override {
    auto params = context.getParams();
    replicator::FetchRequest request{
        read(params.getVolume()), replicator::Epoch(params.getEpoch()),
        replicator::RecordIndex(params.getFirst()), replicator::RecordIndex(params.getLast())};
    return calls_
        ->call<replicator::FetchReply>([&](auto& service, auto& from) {
          return service.fetch(from, kj::mv(request));
        })
        .then([context](replicator::FetchReply reply) mutable {
          write(reply, context.initResults(sizeOf(reply)));
        });
  }

  kj::Promise<void> commonPrefix(CommonPrefixContext context) override {
    auto params = context.getParams();
    replicator::CommonPrefixRequest request{read(params.getVolume()), {}};
    for (auto position : params.getPositions()) request.positions.push_back(read(position));
    return calls_
        ->call<replicator::LogPosition>([&](auto& service, auto& from) {
          return service.commonPrefix(from, kj::mv(request));
        })
        .then([context](replicator::LogPosition position) mutable {
          write(position, context.initResults(sizeOfBytes(0)).initPosition());
        });
  }

  kj::Promise<void> propose(ProposeContext context) override {
    auto request = read(context.getParams());
    context.releaseParams();
    return calls_
        ->call<replicator::ProposeReply>([&](auto& service, auto& from) {
          return service.propose(from, kj::mv(request));
        })
        .then([context](replicator::ProposeReply reply) mutable {
          write(reply, context.initResults(
                           sizeOfBytes(reply.result.size() + reply.reason.size())));
        });
  }

  kj::Promise<void> readIndex(ReadIndexContext context) override {
    const auto request = read(context.getParams());
    return calls_
        ->call<replicator::ReadIndexReply>([&](auto& service, auto& from) {
          return service.readIndex(from, request);
        })
        .then([context](replicator::ReadIndexReply reply) mutable {
          write(reply, context.initResults(sizeOfBytes(reply.reason.size())));
        });
  }

  kj::Promise<void> confirm(ConfirmContext context) override {
    auto params = context.getParams();
    replicator::ConfirmRequest request{read(params.getVolume()), read(params.getMember()),
                                       replicator::Epoch(params.getEpoch()), params.getRound()};
    return calls_
        ->call<replicator::ConfirmReply>([&](auto& service, auto& from) {
          return service.confirm(from, kj::mv(request));
        })
        .then([context](replicator::ConfirmReply reply) mutable {
          write(reply, context.initResults(sizeOfBytes(0)));
        });
  }

  kj::Promise<void> consent(ConsentContext context) override {
    auto request = read(context.getParams());
    return calls_
        ->call<replicator::ConsentReply>([&](auto& service, auto& from) {
          return service.consent(from, kj::mv(request));
        })
        .then([context](replicator::ConsentReply reply) mutable {
          write(reply, context.initResults(sizeOfBytes(reply.reason.size())));
        });
  }

  kj::Promise<void> takeOver(TakeOverContext context) override {
    const auto volume = read(context.getParams().getVolume());
    return calls_->call<void>(
        [&](auto& service, auto& from) { return service.takeOver(from, volume); });
  }

  kj::Promise<void> writeExtent(WriteExtentContext context) override {
    const auto id = read(context.getParams().getId());
    context.getResults().setSink(kj::heap<ExtentSinkService>(kj::addRef(*calls_), id));
    return kj::READY_NOW;
  }

  kj::Promise<void> abandonExtent(AbandonExtentContext context) override {
    const auto id = read(context.getParams().getId());
    calls_->endExtent(id);  // blocks that are still queued are refused
    return calls_->call<void>(
        [&](auto& service, auto& from) { return service.abandonExtent(from, id); });
  }

  kj::Promise<void> readExtentBlock(ReadExtentBlockContext context) override {
    auto params = context.getParams();
    const auto id = read(params.getId());
    const uint64_t block = params.getBlock();
    return calls_
        ->call<replicator::ExtentBlockReply>([&](auto& service, auto& from) {
          return service.readExtentBlock(from, id, block);
        })
        .then([context](replicator::ExtentBlockReply reply) mutable {
          auto results = context.initResults(sizeOfBytes(reply.data.size()));
          write(reply.checksum, results.initChecksum());
          results.setData(kj::implicitCast<const kernelio::IoBuffer&>(reply.data).bytes());
        });
  }

  kj::Promise<void> extentInfo(ExtentInfoContext context) override {
    const auto id = read(context.getParams().getId());
    using Info = std::pair<uint64_t, replicator::Hash128>;
    return calls_
        ->call<Info>([&](auto& service, auto& from) { return service.extentInfo(from, id); })
        .then([context](Info info) mutable {
          auto results = context.initResults(sizeOfBytes(0));
          results.setBytes(info.first);
          write(info.second, results.initRoot());
        });
  }

  kj::Promise<void> openCheckpoint(OpenCheckpointContext context) override {
    auto params = context.getParams();
    replicator::OpenCheckpointRequest request{read(params.getVolume()), read(params.getMember()),
                                              read(params.getResume()), params.getReplaces()};
    return calls_
        ->call<replicator::OpenCheckpointReply>([&](auto& service, auto& from) {
          return service.openCheckpoint(from, request);
        })
        .then([context](replicator::OpenCheckpointReply reply) mutable {
          auto results = context.initResults(sizeOfBytes(0));
          write(reply.checkpoint, results.initCheckpoint());
          write(reply.position, results.initPosition());
          results.setManifestBytes(reply.manifestBytes);
          write(reply.manifestHash, results.initManifestHash());
        });
  }

  kj::Promise<void> readCheckpointBlock(ReadCheckpointBlockContext context) override {
    auto params = context.getParams();
    replicator::CheckpointBlockRequest request{read(params.getVolume()),
                                               read(params.getCheckpoint()), params.getFile(),
                                               params.getBlock()};
    return calls_
        ->call<replicator::ExtentBlockReply>([&](auto& service, auto& from) {
          return service.readCheckpointBlock(from, request);
        })
        .then([context](replicator::ExtentBlockReply reply) mutable {
          auto results = context.initResults(sizeOfBytes(reply.data.size()));
          write(reply.checksum, results.initChecksum());
          results.setData(kj::implicitCast<const kernelio::IoBuffer&>(reply.data).bytes());
        });
  }

  kj::Promise<void> closeCheckpoint(CloseCheckpointContext context) override {
    auto params = context.getParams();
    replicator::CloseCheckpointRequest request{read(params.getVolume()),
                                               read(params.getCheckpoint())};
    return calls_->call<void>([&](auto& service, auto& from) {
      return service.closeCheckpoint(from, request);
    });
  }

  kj::Promise<void> query(QueryContext context) override {
    auto params = context.getParams();
    const auto volume = read(params.getVolume());
    auto name = asString(params.getName());
    kj::Array<const kj::byte> question = copyBytes(params.getQuestion());
    context.releaseParams();
    return calls_
        ->call<kj::Array<kj::byte>>([&](auto& service, auto& from) {
          return service.query(from, volume, kj::mv(name), kj::mv(question));
        })
        .then([context](kj::Array<kj::byte> answer) mutable {
          context.initResults(sizeOfBytes(answer.size())).setAnswer(answer);
        });
  }

 private:
  kj::Own<InboundCalls> calls_;
};

}  // namespace

wire::Node::Client makeNodeService(kj::Own<InboundCalls> calls) {
  return kj::heap<NodeService>(kj::mv(calls));
}

}  // namespace packmoor::rpc
