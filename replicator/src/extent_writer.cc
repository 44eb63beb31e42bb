#include "extent_store_impl.h"

#include "kernelio/check.h"
#include "planted_fault.h"

namespace packmoor::replicator {

using kernelio::File;
using kernelio::IoBuffer;
using kernelio::WriteMode;

namespace {

class ExtentWriterImpl final : public ExtentWriter {
 public:
  ExtentWriterImpl(ExtentStoreImpl& store, ExtentId id, kj::Own<File> file)
      : store_(store), id_(id), file_(kj::mv(file)) {}
  ~ExtentWriterImpl() noexcept(false) { abandon(); }

  ExtentId id() override { return id_; }
  kj::Promise<void> writeBlock(uint64_t block, IoBuffer data, Hash128 checksum) override;
  kj::Promise<ExtentInfo> seal(uint64_t bytes, kj::Maybe<Hash128> expectedRoot) override {
    return sealBody(bytes, expectedRoot);
  }
  kj::String path() override { return store_.quarantinePath(id_, "data"); }

 private:
  struct Block {
    Hash128 checksum;
    uint32_t bytes = 0;  // 0: not written
  };

  // The last write of a block that is on its way; those before it are part of its promise. The
  // writer keeps it, so that a caller who goes away does not let another write overtake.
  struct InFlight {
    uint64_t number;
    kj::ForkedPromise<void> done;
  };

  Co<void> finishWrite(uint64_t block, uint64_t number, kj::Promise<void> written);
  Co<void> writeNow(uint64_t block, IoBuffer data, Hash128 checksum);
  Co<ExtentInfo> sealBody(uint64_t bytes, kj::Maybe<Hash128> expectedRoot);
  Co<void> makeDurable(ExtentInfo info, kj::ArrayPtr<const Hash128> checksums);
  kj::Array<Hash128> checkBlocks(uint64_t bytes) const;
  void requireIntact() const;
  void requireUsable() const;
  kj::Exception diskFailed(kj::Exception exception);
  void abandon();

  ExtentStoreImpl& store_;
  const ExtentId id_;
  kj::Own<File> file_;
  std::vector<Block> blocks_;
  std::map<uint64_t, InFlight> writes_;
  uint64_t writesBegun_ = 0;
  bool sealing_ = false, ended_ = false;
  kj::Maybe<kj::Exception> failure_;
};

void ExtentWriterImpl::requireIntact() const {
  KJ_IF_MAYBE (exception, failure_) { kj::throwFatalException(kj::cp(*exception)); }
}

void ExtentWriterImpl::requireUsable() const {
  requireIntact();
  KJ_REQUIRE(!ended_, "The extent is sealed already.", id_);
  KJ_REQUIRE(!sealing_, "The extent is being sealed.", id_);
}

kj::Promise<void> ExtentWriterImpl::writeBlock(uint64_t block, IoBuffer data, Hash128 checksum) {
  requireUsable();
  KJ_REQUIRE(block < format::kExtentBlocksMax, "The block lies beyond the largest extent.", id_,
             block);
  KJ_REQUIRE(data.size() > 0 && data.size() <= kBlockBytes, "The block has a wrong size.", id_,
             block, data.size());
  KJ_REQUIRE(hashBytes(data.bytes()) == checksum || planted(PlantedFault::kAcceptBadChecksum),
             "The block's bytes do not match its checksum.",
             id_, block);
  // Writes of one block follow each other: the last one counts.
  auto begin = [this, block, checksum, data = kj::mv(data)]() mutable {
    return kj::Promise<void>(writeNow(block, kj::mv(data), checksum));
  };
  auto earlier = writes_.find(block);
  auto write = (earlier == writes_.end() ? kj::evalLater(kj::mv(begin))
                                         : earlier->second.done.addBranch().then(kj::mv(begin)))
                   .fork();
  auto written = write.addBranch();
  const uint64_t number = ++writesBegun_;
  writes_.erase(block);
  writes_.emplace(block, InFlight{number, kj::mv(write)});
  return finishWrite(block, number, kj::mv(written));
}

Co<void> ExtentWriterImpl::finishWrite(uint64_t block, uint64_t number,
                                       kj::Promise<void> written) {
  co_await kj::mv(written);
  auto last = writes_.find(block);
  if (last != writes_.end() && last->second.number == number) writes_.erase(last);
  requireIntact();
}

// Does not throw: a failure is the writer's.
Co<void> ExtentWriterImpl::writeNow(uint64_t block, IoBuffer data, Hash128 checksum) {
  if (failure_ != nullptr) co_return;
  const uint32_t bytes = static_cast<uint32_t>(data.size());
  if (block < blocks_.size()) blocks_[block] = {};
  kj::Maybe<kj::Exception> failure;
  try {
    co_await file_->write(block * kBlockBytes, kj::mv(data), WriteMode::kBuffered);
  } catch (kj::Exception& exception) {
    failure = kj::mv(exception);
  }
  KJ_IF_MAYBE (exception, failure) {
    diskFailed(kj::mv(*exception));
    co_return;
  }
  if (blocks_.size() <= block) blocks_.resize(block + 1);
  blocks_[block] = {checksum, bytes};
}

kj::Array<Hash128> ExtentWriterImpl::checkBlocks(uint64_t bytes) const {
  const uint64_t count = (bytes + kBlockBytes - 1) / kBlockBytes;
  KJ_REQUIRE(count <= format::kExtentBlocksMax, "The extent is too large.", id_, bytes);
  KJ_REQUIRE(blocks_.size() <= count, "A block lies beyond the extent's end.", id_, bytes,
             blocks_.size() - 1);
  auto checksums = kj::heapArray<Hash128>(count);
  for (uint64_t block = 0; block < count; ++block) {
    KJ_REQUIRE(block < blocks_.size() && blocks_[block].bytes > 0, "A block is missing.", id_,
               block);
    KJ_REQUIRE(blocks_[block].bytes == blockBytesAt(bytes, block), "A block has the wrong size.",
               id_, block, blocks_[block].bytes);
    checksums[block] = blocks_[block].checksum;
  }
  return checksums;
}

Co<ExtentInfo> ExtentWriterImpl::sealBody(uint64_t bytes, kj::Maybe<Hash128> expectedRoot) {
  requireUsable();
  sealing_ = true;
  KJ_DEFER(sealing_ = false);
  while (!writes_.empty()) {
    const uint64_t block = writes_.begin()->first, number = writes_.begin()->second.number;
    co_await finishWrite(block, number, writes_.begin()->second.done.addBranch());
  }
  requireIntact();
  auto checksums = checkBlocks(bytes);
  const ExtentInfo info{id_, bytes, extentRoot(bytes, checksums)};
  KJ_IF_MAYBE (expected, expectedRoot) {
    KJ_REQUIRE(*expected == info.root, "The extent's root is not the one expected.", id_,
               info.root, *expected);
  }
  kj::Maybe<kj::Exception> failure;
  try {
    co_await makeDurable(info, checksums);
  } catch (kj::Exception& exception) {
    failure = kj::mv(exception);
  }
  KJ_IF_MAYBE (exception, failure) { kj::throwFatalException(diskFailed(kj::mv(*exception))); }
  ended_ = true;
  file_ = nullptr;
  store_.writerGone(id_);
  store_.sealed(info, kj::mv(checksums));
  co_return info;
}

// The order that extent_format.h gives.
Co<void> ExtentWriterImpl::makeDurable(ExtentInfo info, kj::ArrayPtr<const Hash128> checksums) {
  auto& disk = store_.env().disk;
  co_await file_->sync();
  const auto sidecarPath = store_.quarantinePath(id_, "sum");
  {
    auto content = format::encodeSidecar(info, checksums);
    co_await disk.remove(sidecarPath);
    auto sidecar = co_await disk.open(sidecarPath, {.write = true, .create = true});
    co_await sidecar->write(0, IoBuffer::copyOf(content), WriteMode::kDurable);
  }
  co_await store_.env().faults.hit("extent.before-seal");
  auto folder = store_.sealedFolder(id_);
  co_await store_.prepareFolder(kj::heapString(folder));
  co_await disk.rename(sidecarPath, store_.sealedPath(id_, "sum"));
  co_await disk.rename(store_.quarantinePath(id_, "data"), store_.sealedPath(id_, "data"));
  co_await disk.syncDirectory(folder);
}

// The disk refused: nothing of this extent is of use any more, and on a full disk its space is
// wanted.
kj::Exception ExtentWriterImpl::diskFailed(kj::Exception exception) {
  KJ_IF_MAYBE (earlier, failure_) { return kj::cp(*earlier); }
  const bool full = exception.getType() == kj::Exception::Type::OVERLOADED;
  failure_ = kj::Exception(
      exception.getType(), __FILE__, __LINE__,
      kj::str("Extent ", id_, " could not be written", full ? ", the disk is full: " : ": ",
              exception.getDescription()));
  abandon();
  return kj::cp(KJ_ASSERT_NONNULL(failure_));
}

void ExtentWriterImpl::abandon() {
  if (ended_) return;
  ended_ = true;
  file_ = nullptr;
  store_.writerAbandoned(id_);
}

}  // namespace

kj::Own<ExtentWriter> makeExtentWriter(ExtentStoreImpl& store, ExtentId id,
                                       kj::Own<File> file) {
  return kj::heap<ExtentWriterImpl>(store, id, kj::mv(file));
}

}  // namespace packmoor::replicator
