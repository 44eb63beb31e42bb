// Extents that are read only to see whether they are whole (scrubber.h).
#include "extent_store_impl.h"

#include "replicator/outcome.h"

namespace packmoor::replicator {

namespace {
constexpr size_t kSidecarBytesMax =
    sizeof(format::ExtentHeader) + format::kExtentBlocksMax * sizeof(Hash128);
}  // namespace

kj::Promise<ExtentCheck> ExtentStoreImpl::check(ExtentId id, uint64_t place) {
  if (!isSealed(id)) return ExtentCheck();
  if (place == kSidecar) return checkSidecar(id);
  return checkBlock(id, place);
}

// Past the page cache, which may hold what the disk does not give any more.
Co<ExtentStoreImpl::FileRef> ExtentStoreImpl::openDirect(ExtentId id) {
  if (directId_ == id && direct_ != nullptr) co_return direct_;
  auto file = std::make_shared<kj::Own<kernelio::File>>();
  *file = co_await env_.disk.open(path(id), {.direct = true});
  directId_ = id;
  direct_ = file;
  co_return file;
}

Co<ExtentCheck> ExtentStoreImpl::checkBlock(ExtentId id, uint64_t block) {
  ExtentCheck check;
  auto reading = outcomeOf(readBlockBody(id, block, true).promise());
  auto read = co_await kj::mv(reading);
  if (read.ok() || !isSealed(id)) co_return check;
  check.bad = true;
  kj::Exception& found = KJ_ASSERT_NONNULL(read.exception);
  check.what = found.getDescription().cStr();
  auto repairing = outcomeOf(repairFromSource(id, block, kj::cp(found)).promise());
  auto repaired = co_await kj::mv(repairing);
  check.repaired = repaired.ok();
  if (!check.repaired && spoils(id, block)) {
    check.repaired = true;
    check.what += " It is needed no more: its pack was merged into another, or pruned.";
    co_return check;
  }
  KJ_IF_MAYBE(exception, repaired.exception) {
    check.problem = exception->getDescription().cStr();
  }
  co_return check;
}

// A bad block that no other member has either. True: nobody needs it.
bool ExtentStoreImpl::spoils(const ExtentId& id, uint64_t block) {
  auto hold = holds_.find(id);
  if (hold == holds_.end() || hold->second.linked || !hold->second.letGo) return false;
  spoiled_.insert(id);
  standing_.erase({id, block});
  return true;
}

// The checksums in memory were whole when they were read, or are those of the seal.
Co<ExtentCheck> ExtentStoreImpl::checkSidecar(ExtentId id) {
  ExtentCheck check;
  const kj::String path = sealedPath(id, "sum");
  kj::String wrong;
  auto reading = outcomeOf(kernelio::readWholeFile(env_.disk, path, kSidecarBytesMax));
  auto read = co_await kj::mv(reading);
  auto found = sealed_.find(id);
  if (found == sealed_.end()) co_return check;
  const Sealed& extent = found->second;
  auto failure = kj::runCatchingExceptions([&]() {
    KJ_IF_MAYBE(exception, read.exception) { kj::throwFatalException(kj::cp(*exception)); }
    KJ_IF_MAYBE(bytes, *read.value) {
      const format::Sidecar sidecar = format::parseSidecar(id, *bytes);
      KJ_REQUIRE(sidecar.info.root == extent.info.root && sidecar.info.bytes == extent.info.bytes,
                 "it is of another content");
    } else {
      KJ_FAIL_REQUIRE("it is missing");
    }
  });
  KJ_IF_MAYBE(exception, failure) { wrong = kj::heapString(exception->getDescription()); }
  if (failure == nullptr) co_return check;
  check.bad = true;
  check.what = kj::str("The sidecar of extent ", id, " is damaged on disk: ", wrong, ".").cStr();
  auto content = format::encodeSidecar(extent.info, extent.checksums);
  auto writing = outcomeOf(kernelio::replaceFile(env_.disk, path, content));
  auto written = co_await kj::mv(writing);
  check.repaired = written == nullptr;
  KJ_IF_MAYBE(exception, written) { check.problem = exception->getDescription().cStr(); }
  co_return check;
}

}  // namespace packmoor::replicator
