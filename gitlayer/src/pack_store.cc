#include "pack_store.h"

#include <kernelio/co.h>
#include <kj/debug.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

std::string nameOf(const char* kind, const replicator::ExtentId& id) {
  return kj::str(kind, " ", id).cStr();
}

// One file of a pack, as seen on the loop, for a thread to open.
struct FilePlan {
  std::string what, path;
  uint64_t bytes = 0;
  std::shared_ptr<const kj::Array<replicator::Hash128>> checksums;
  BlockMender::Mend mend;

  std::shared_ptr<CheckedBytes> open() const {
    KJ_REQUIRE(checksums != nullptr, "A pack's extent is not on this node.", what.c_str());
    return CheckedBytes::map(path, what, bytes,
                             kj::heapArray<replicator::Hash128>(checksums->asPtr()), mend);
  }
};

FilePlan planOf(kernelio::Env& env, replicator::ExtentStore& extents, BlockMender* mender,
                const char* kind, const replicator::ExtentId& id) {
  FilePlan plan;
  if (mender != nullptr) plan.mend = mender->of(id);
  plan.what = nameOf(kind, id);
  KJ_IF_MAYBE(info, extents.info(id)) {
    plan.path = kj::str(env.disk.root(), "/", extents.path(id)).cStr();
    plan.bytes = info->bytes;
    plan.checksums =
        std::make_shared<const kj::Array<replicator::Hash128>>(extents.blockChecksums(id));
  }
  return plan;
}

Co<std::shared_ptr<CheckedBytes>> readExtent(replicator::ExtentStore& extents, std::string what,
                                             replicator::ExtentId id) {
  uint64_t bytes = 0;
  KJ_IF_MAYBE(info, extents.info(id)) { bytes = info->bytes; }
  auto content = kj::heapArray<kj::byte>(bytes);
  for (uint64_t at = 0, block = 0; at < bytes; ++block) {
    auto data = co_await extents.readBlock(id, block);
    std::memcpy(content.begin() + at, data.begin(), data.size());
    at += data.size();
  }
  co_return CheckedBytes::inMemory(kj::mv(content), std::move(what));
}

Co<PackFile::Parts> readParts(replicator::ExtentStore& extents, PackRow row) {
  PackFile::Parts parts;
  auto readingPack = readExtent(extents, nameOf("pack", row.pack), row.pack);
  auto pack = co_await kj::mv(readingPack);
  parts.pack = std::move(pack);
  auto readingIndex = readExtent(extents, nameOf("index of pack", row.pack), row.index);
  auto index = co_await kj::mv(readingIndex);
  parts.index = std::move(index);
  co_return std::move(parts);
}

}  // namespace

std::shared_ptr<PackFile> PackStore::get(const PackRow& row) {
  auto found = entries_.find(row.pack);
  if (found != entries_.end()) {
    byUse_.splice(byUse_.begin(), byUse_, found->second);
    return found->second->pack;
  }
  const FilePlan packPlan = planOf(env_, extents_, mender_.get(), "pack", row.pack);
  const FilePlan indexPlan =
      planOf(env_, extents_, mender_.get(), "index of pack", row.index);
  auto pack = std::make_shared<PackFile>(
      [packPlan, indexPlan]() { return PackFile::Parts{packPlan.open(), indexPlan.open()}; },
      row.objectCount, bases_);
  // An extent that is not here yet may come; only what can be opened is worth keeping.
  if (packPlan.checksums != nullptr && indexPlan.checksums != nullptr) add(row.pack, pack);
  return pack;
}

void PackStore::add(const replicator::ExtentId& id, std::shared_ptr<PackFile> pack) {
  byUse_.push_front(Entry{id, std::move(pack)});
  entries_[id] = byUse_.begin();
  while (isMapped() && byUse_.size() > kOpenPacksMax) {
    entries_.erase(byUse_.back().id);
    byUse_.pop_back();
  }
}

kj::Promise<void> PackStore::load(PackRow row) {
  if (isMapped() || entries_.count(row.pack) > 0) return kj::READY_NOW;
  kj::Promise<PackFile::Parts> parts = readParts(extents_, row);
  return parts.then([this, row](PackFile::Parts parts) {
    if (entries_.count(row.pack) > 0) return;
    add(row.pack,
        std::make_shared<PackFile>([parts]() { return parts; }, row.objectCount, bases_));
  });
}

void PackStore::forget(const replicator::ExtentId& pack) {
  auto found = entries_.find(pack);
  if (found == entries_.end()) return;
  byUse_.erase(found->second);
  entries_.erase(found);
}

}  // namespace packmoor::gitlayer
