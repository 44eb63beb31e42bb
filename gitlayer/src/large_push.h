// Pushes that do not fit into a record: their pack becomes an extent, and its index another.
//
// The pack is written to every member of the volume while it comes in, and parsed at the same time
// on a worker. Then deltas are resolved on several workers; bases that only the repository has
// are appended, so that the pack stands alone; the index is written. What the client sent is never
// changed but for that: with bases appended, the header's count and the trailer.
//
// LargePush is the part that workers use and may outlive the session. LargeReceiver is the loop's
// part: it owns the extents' writers, and dropping it before seal() abandons them on every member.
#pragma once

#include "gitlayer/indexer.h"
#include "gitlayer/pkt_line.h"
#include "pack_bytes.h"
#include "pack_parser.h"
#include "push_verifier.h"

#include <kernelio/co.h>

namespace packmoor::gitlayer {

class LargePush final : public PushedPack {
 public:
  LargePush(const PackLimits& limits, SharedView view)
      : PushedPack(view), indexer(limits), indexedStrictly_(limits.strict), stored_(std::move(view)) {
    indexer.compareWith(stored_->objects());
  }

  VerifyResult verify(std::vector<ReceiveCommand>& commands) override;
  size_t bytesToVerify() const override { return indexer.packBytes(); }
  void addTo(PushTransaction& transaction) override;

  ObjectType typeOf(const ObjectId& id) override;
  kj::Array<const kj::byte> read(const ObjectId& id) override;

  // One worker job at a time touches these, or the loop while there is none.
  Indexer indexer;
  std::unique_ptr<PackBytes> bytes;
  // Set on the loop once sealed.
  PackExtents extents;
  std::vector<replicator::NodeId> sealedOn;

 private:
  const bool indexedStrictly_;
  const SharedView stored_;   // that objects are compared with as they come
};

// An extent that is written from front to back, whose blocks may be written anew.
class ExtentBlocks {
 public:
  explicit ExtentBlocks(kj::Own<replicator::ReplicatedExtentWriter> writer)
      : writer_(kj::mv(writer)) {}

  replicator::ReplicatedExtentWriter& writer() { return *writer_; }
  uint64_t bytes() const { return bytes_; }

  // The next block, full but for the last.
  kj::Promise<void> add(kernelio::IoBuffer block);
  // Cuts the end and goes on there: append(), then flushTail().
  void cut(uint64_t bytes);
  Co<void> append(kj::ArrayPtr<const kj::byte> bytes);
  kj::Promise<void> flushTail();
  // Writes over the first bytes.
  kj::Promise<void> overwriteFront(kj::ArrayPtr<const kj::byte> bytes);

  // Where blocks are kept too, for a copy without a file.
  MemoryPackBytes* memory = nullptr;

 private:
  kj::Promise<void> write(uint64_t block, kernelio::IoBuffer data);

  kj::Own<replicator::ReplicatedExtentWriter> writer_;
  uint64_t bytes_ = 0;
  kernelio::IoBuffer first_, previous_, last_;  // blocks as they were written last
  kernelio::IoBuffer tail_;                     // being filled by append(), of full size
  size_t tailBytes_ = 0;
};

class LargeReceiver {
 public:
  using FreshView = kj::Function<kj::Promise<SharedView>()>;

  LargeReceiver(GitNode& node, RepositoryId repository, uint64_t packBytesMax, FreshView freshView)
      : node_(node),
        repository_(repository),
        packBytesMax_(packBytesMax),
        freshView_(kj::mv(freshView)) {}

  // Receives `begun` and all that `reader` has. The result's indexer says when it is refused.
  Co<std::shared_ptr<LargePush>> receive(PktReader& reader, kj::Array<const kj::byte> begun,
                                         SharedView view);
  // Resolves when W members hold pack and index sealed. Once.
  Co<void> seal();

 private:
  Co<bool> readAll(PktReader& reader, kj::Array<const kj::byte> begun);
  Co<bool> take(kernelio::IoBuffer block);
  kj::Promise<bool> fed();
  Co<void> openBytes();
  Co<void> resolveDeltas();
  Co<void> runLane(std::shared_ptr<DeltaLane> lane);
  Co<void> completeThin();
  Co<void> rewriteFrame();
  Co<void> writeIndex();
  template <typename F>
  auto onWorker(F job);

  GitNode& node_;
  RepositoryId repository_;
  uint64_t packBytesMax_;
  FreshView freshView_;
  std::shared_ptr<LargePush> push_;
  kj::Own<ExtentBlocks> pack_, index_;
  kj::Maybe<kj::Promise<bool>> feeding_;
  ObjectId trailer_;
};

}  // namespace packmoor::gitlayer
