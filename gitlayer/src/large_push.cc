#include "large_push.h"

#include "delta_plan.h"
#include "index_table.h"
#include "link_set.h"

#include <kernelio/check.h>

#include <algorithm>
#include <cstring>

namespace packmoor::gitlayer {

using kernelio::IoBuffer;
using replicator::kBlockBytes;

namespace {

constexpr size_t kResolveSliceBytes = 16u << 20;   // of inflated data, per turn of a worker
constexpr size_t kAppendSliceBytes = 4u << 20;
constexpr size_t kLanesMax = 8;

}  // namespace

VerifyResult LargePush::verify(std::vector<ReceiveCommand>& commands) {
  VerifyResult result;
  if (strict() && !indexedStrictly_) {
    result.refusal = indexPackRefusal("objects are checked by fsck since this push began: push again");
    return result;
  }
  std::vector<ObjectLink> outside;
  std::vector<ObjectLink> broken;
  indexer.links().forEach([&](const ObjectLink& link) {
    if (strict() && link.special != 0 && !result.refusal) result.refusal = specialFileRefusal(link);
    ObjectType type = typeOf(link.id);
    if (type == ObjectType::kNone) {
      outside.push_back(link);
    } else if (type != link.type) {
      broken.push_back(link);
    }
  });
  if (result.refusal) return result;
  // Bases that were taken from the repository are complete as long as it has them itself; in another
  // view they may have been pruned, and what they name with them.
  const auto& table = indexer.table();
  for (uint32_t i = table.size() - indexer.appendedCount(); i < table.size(); ++i) {
    if (table[i].type != ObjectType::kBlob) outside.push_back({table[i].id, table[i].type, 0});
  }
  if (broken.empty()) broken = brokenOutside(view_->objects(), std::move(outside));
  verifyTips(broken, commands, result);
  return result;
}

void LargePush::addTo(PushTransaction& transaction) {
  if (!connected()) return;
  transaction.pack = extents;
  transaction.sealedOn = sealedOn;
}

ObjectType LargePush::typeOf(const ObjectId& id) {
  uint32_t number = indexer.table().find(id);
  return number == kNoEntry ? ObjectType::kNone : indexer.table()[number].type;
}

kj::Array<const kj::byte> LargePush::read(const ObjectId& id) {
  return indexer.read(indexer.table().find(id));
}

// ---- ExtentBlocks -------------------------------------------------------------------------------

kj::Promise<void> ExtentBlocks::write(uint64_t block, IoBuffer data) {
  if (block == 0) first_ = data;
  if (memory != nullptr) memory->set(block, data);
  return writer_->writeBlock(block, kj::mv(data));
}

kj::Promise<void> ExtentBlocks::add(IoBuffer block) {
  PACKMOOR_CHECK(bytes_ % kBlockBytes == 0, "a block behind the last one", bytes_);
  uint64_t number = bytes_ / kBlockBytes;
  bytes_ += block.size();
  previous_ = kj::mv(last_);
  last_ = block;
  return write(number, kj::mv(block));
}

void ExtentBlocks::cut(uint64_t bytes) {
  uint64_t block = bytes / kBlockBytes, lastBlock = (bytes_ - 1) / kBlockBytes;
  PACKMOOR_CHECK(lastBlock - block <= 1, "cutting more than was kept", bytes, bytes_);
  const IoBuffer& source = block == lastBlock ? last_ : previous_;
  tail_ = IoBuffer::allocate(kBlockBytes);
  tailBytes_ = bytes % kBlockBytes;
  if (tailBytes_ > 0) memcpy(tail_.begin(), source.begin(), tailBytes_);
  bytes_ = bytes;
}

Co<void> ExtentBlocks::append(kj::ArrayPtr<const kj::byte> bytes) {
  while (bytes.size() > 0) {
    size_t piece = kj::min(bytes.size(), kBlockBytes - tailBytes_);
    memcpy(tail_.begin() + tailBytes_, bytes.begin(), piece);
    tailBytes_ += piece;
    bytes_ += piece;
    bytes = bytes.slice(piece, bytes.size());
    if (tailBytes_ == kBlockBytes) {
      IoBuffer full = kj::mv(tail_);
      tail_ = IoBuffer::allocate(kBlockBytes);
      tailBytes_ = 0;
      auto writing = write(bytes_ / kBlockBytes - 1, kj::mv(full));
      co_await kj::mv(writing);
    }
  }
}

kj::Promise<void> ExtentBlocks::flushTail() {
  if (tailBytes_ == 0) return kj::READY_NOW;
  return write(bytes_ / kBlockBytes, IoBuffer::copyOf(tail_.bytes().slice(0, tailBytes_)));
}

kj::Promise<void> ExtentBlocks::overwriteFront(kj::ArrayPtr<const kj::byte> bytes) {
  IoBuffer changed = IoBuffer::copyOf(first_.bytes());
  memcpy(changed.begin(), bytes.begin(), bytes.size());
  if (bytes_ < kBlockBytes && tail_.size() > 0) {
    memcpy(tail_.begin(), bytes.begin(), bytes.size());   // the only block is still being filled
  }
  return write(0, kj::mv(changed));
}

// ---- LargeReceiver ------------------------------------------------------------------------------

template <typename F>
auto LargeReceiver::onWorker(F job) {
  return node_.env().workers.run([push = push_, job = kj::mv(job)]() mutable { return job(*push); });
}

Co<std::shared_ptr<LargePush>> LargeReceiver::receive(PktReader& reader,
                                                      kj::Array<const kj::byte> begun,
                                                      SharedView view) {
  PackLimits limits;
  limits.packBytesMax = packBytesMax_;
  limits.strict = view->info().settings.fsckObjects;
  limits.heldBytesMax = node_.options().heldObjectBytesMax;
  limits.expansionMax = node_.options().expansionMax;
  limits.scratchFolder = node_.env().disk.root().cStr();
  push_ = std::make_shared<LargePush>(limits, std::move(view));
  auto writer = co_await node_.beginExtent(repository_);
  pack_ = kj::heap<ExtentBlocks>(kj::mv(writer));
  co_await openBytes();
  auto reading = readAll(reader, kj::mv(begun));
  bool good = co_await kj::mv(reading);
  if (!good) co_return push_;
  co_await openBytes();
  co_await resolveDeltas();
  if (push_->indexer.thinBasesLeft()) co_await completeThin();
  auto finishing = onWorker([](LargePush& push) { return push.indexer.finish(); });
  good = co_await kj::mv(finishing);
  if (!good) co_return push_;
  trailer_ = push_->indexer.trailer();
  if (push_->indexer.appendedCount() > 0) co_await rewriteFrame();
  co_return push_;
}

// Makes the pack's bytes readable: those that were written before the call.
Co<void> LargeReceiver::openBytes() {
  auto& blocks = *pack_;
  auto path = co_await blocks.writer().localData();
  if (push_->bytes != nullptr) co_return;
  if (path.size() > 0) {
    push_->bytes = std::make_unique<FilePackBytes>(path.cStr());
  } else {
    auto memory = std::make_unique<MemoryPackBytes>();
    blocks.memory = memory.get();
    push_->bytes = std::move(memory);
  }
}

Co<bool> LargeReceiver::readAll(PktReader& reader, kj::Array<const kj::byte> begun) {
  kj::ArrayPtr<const kj::byte> held = begun;
  for (bool ended = false; !ended;) {
    IoBuffer block = IoBuffer::allocate(kBlockBytes);
    size_t filled = kj::min(held.size(), kBlockBytes);
    if (filled > 0) memcpy(block.begin(), held.begin(), filled);
    held = held.slice(filled, held.size());
    while (filled < kBlockBytes && !ended) {
      auto reading = reader.readRaw(block.bytes().slice(filled, kBlockBytes));
      size_t got = co_await kj::mv(reading);
      ended = got == 0;
      filled += got;
    }
    if (filled == 0) break;
    auto taking = take(block.slice(0, filled));
    bool good = co_await kj::mv(taking);
    if (!good) co_return false;
  }
  bool good = co_await fed();
  if (!good) co_return false;
  auto ending = onWorker([](LargePush& push) { return push.indexer.end(); });
  bool whole = co_await kj::mv(ending);
  co_return whole;
}

// False: the pack is refused.
kj::Promise<bool> LargeReceiver::fed() {
  KJ_IF_MAYBE(feeding, feeding_) {
    auto result = kj::mv(*feeding);
    feeding_ = nullptr;
    return result;
  }
  return true;
}

// The block is parsed while it is written and the next one comes in.
Co<bool> LargeReceiver::take(IoBuffer block) {
  bool good = co_await fed();
  if (!good) co_return false;
  feeding_ = onWorker([block](LargePush& push) { return push.indexer.feed(block.bytes()); })
                 .eagerlyEvaluate(nullptr);
  auto writing = pack_->add(kj::mv(block));
  co_await kj::mv(writing);
  co_return true;
}

Co<void> LargeReceiver::resolveDeltas() {
  auto beginning = onWorker([](LargePush& push) { push.indexer.beginDeltas(*push.bytes); });
  co_await kj::mv(beginning);
  if (!push_->indexer.thinBasesLeft()) co_return;
  size_t lanes = std::clamp(node_.env().workers.threadCount(), size_t(1), kLanesMax);
  kj::Vector<kj::Promise<void>> running;
  for (size_t i = 0; i < lanes; ++i) {
    running.add(runLane(std::shared_ptr<DeltaLane>(push_->indexer.makeLane())));
  }
  co_await kj::joinPromises(running.releaseAsArray());
}

Co<void> LargeReceiver::runLane(std::shared_ptr<DeltaLane> lane) {
  for (bool more = true; more;) {
    auto working = onWorker([lane](LargePush& push) {
      return push.indexer.resolve(*lane, kResolveSliceBytes);
    });
    more = co_await kj::mv(working);
  }
}

Co<void> LargeReceiver::completeThin() {
  auto& blocks = *pack_;
  bool fresh = false, cut = false;
  while (push_->indexer.thinBasesLeft()) {
    auto working = onWorker([](LargePush& push) {
      return push.indexer.resolveThin(push.view().objects(), kAppendSliceBytes);
    });
    auto appended = co_await kj::mv(working);
    if (appended.bytes.size() > 0) {
      if (!cut) blocks.cut(blocks.bytes() - kPackTrailerBytes);
      cut = true;
      co_await blocks.append(appended.bytes);
    }
    if (!appended.stuck) continue;
    if (fresh) co_return;
    fresh = true;
    SharedView view = co_await freshView_();
    push_->setView(std::move(view));
  }
}

// With bases appended, the count in the header and the trailer are others.
Co<void> LargeReceiver::rewriteFrame() {
  auto& blocks = *pack_;
  kj::byte header[kPackHeaderBytes];
  encodePackHeader(header, push_->indexer.objectCount());
  co_await blocks.flushTail();
  co_await blocks.overwriteFront(header);
  co_await openBytes();
  uint64_t end = blocks.bytes();
  auto summing = onWorker([end](LargePush& push) {
    Sha1Stream sha1;
    auto buffer = kj::heapArray<kj::byte>(kBlockBytes);
    for (uint64_t at = 0; at < end;) {
      auto piece = buffer.slice(0, kj::min(end - at, buffer.size()));
      push.bytes->read(at, piece);
      sha1.update(piece);
      at += piece.size();
    }
    return sha1.finish();
  });
  trailer_ = co_await kj::mv(summing);
  auto appending = blocks.append(kj::arrayPtr(trailer_.bytes.data(), kOidBytes));
  co_await kj::mv(appending);
  co_await blocks.flushTail();
  co_await openBytes();
}

Co<void> LargeReceiver::writeIndex() {
  auto writer = co_await node_.beginExtent(repository_);
  index_ = kj::heap<ExtentBlocks>(kj::mv(writer));
  auto stream = std::make_shared<IndexStream>(push_->indexer.table(), trailer_);
  for (;;) {
    IoBuffer block = IoBuffer::allocate(kBlockBytes);
    auto filling = onWorker(
        [stream, block](LargePush&) mutable { return stream->fill(block.bytes()); });
    size_t filled = co_await kj::mv(filling);
    if (filled == 0) co_return;
    auto writing = index_->add(block.slice(0, filled));
    co_await kj::mv(writing);
  }
}

Co<void> LargeReceiver::seal() {
  co_await writeIndex();
  auto& pack = *pack_;
  auto& index = *index_;
  auto sealingPack = pack.writer().seal(pack.bytes());
  auto sealedIndex = co_await index.writer().seal(index.bytes());
  auto sealedPack = co_await kj::mv(sealingPack);
  push_->extents.pack = sealedPack.info.id;
  push_->extents.index = sealedIndex.info.id;
  push_->extents.packBytes = pack.bytes();
  push_->extents.objectCount = push_->indexer.objectCount();
  for (const auto& node : sealedPack.sealedOn) {
    const auto& others = sealedIndex.sealedOn;
    if (std::find(others.begin(), others.end(), node) != others.end()) {
      push_->sealedOn.push_back(node);
    }
  }
}

}  // namespace packmoor::gitlayer
