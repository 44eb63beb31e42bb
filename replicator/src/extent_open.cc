#include "extent_store_impl.h"

namespace packmoor::replicator {

using kernelio::Env;

namespace {
constexpr size_t kLoadConcurrency = 32;
constexpr size_t kSidecarBytesMax =
    sizeof(format::ExtentHeader) + format::kExtentBlocksMax * sizeof(Hash128);

Co<kj::Own<ExtentStore>> openBody(kj::Own<ExtentStoreImpl> store) {
  co_await store->load();
  co_return kj::mv(store);
}

// "<32 hex digits><suffix>"
bool parseName(kj::StringPtr name, kj::StringPtr suffix, ExtentId& id) {
  if (!name.endsWith(suffix)) return false;
  return Uuid::parse(kj::heapString(name.slice(0, name.size() - suffix.size())), id);
}

}  // namespace

kj::Promise<kj::Own<ExtentStore>> ExtentStore::open(Env& env, ExtentStoreOptions options) {
  return openBody(kj::heap<ExtentStoreImpl>(env, options));
}

Co<void> ExtentStoreImpl::load() {
  auto& disk = env_.disk;
  const auto quarantine = kj::str(folder_.c_str(), "/quarantine");
  const auto sealed = kj::str(folder_.c_str(), "/sealed");
  co_await disk.removeTree(quarantine);
  co_await disk.makeFolders(quarantine);
  co_await disk.makeFolders(sealed);
  // Names up to the root, and of what an earlier process left unsynced.
  kj::String parent = kj::heapString(folder_.c_str());
  while (parent.size() > 0) {
    co_await disk.syncDirectory(parent);
    KJ_IF_MAYBE (slash, parent.findLast('/')) {
      parent = kj::heapString(parent.slice(0, *slash));
    } else {
      parent = kj::String();
    }
  }
  co_await disk.syncDirectory("");
  co_await disk.syncDirectory(sealed);

  auto folders = co_await disk.list(sealed);
  for (auto& name : folders) {
    auto folder = kj::str(sealed, "/", name);
    co_await loadFolder(kj::heapString(folder));
    foldersDurable_.insert(folder.cStr());
  }
}

Co<void> ExtentStoreImpl::loadFolder(kj::String folder) {
  // A seal whose sync an earlier process did not live to see counts when its names are there.
  co_await env_.disk.syncDirectory(folder);
  auto names = co_await env_.disk.list(folder);
  std::set<std::string> present;
  for (auto& name : names) present.insert(name.cStr());

  kj::Vector<kj::Promise<void>> loads;
  for (auto& name : names) {
    ExtentId id;
    if (parseName(name, ".sum", id) && present.count(kj::str(id, ".data").cStr()) == 0) {
      co_await env_.disk.remove(kj::str(folder, "/", name));
    }
    if (!parseName(name, ".data", id)) continue;
    loads.add(loadExtent(kj::heapString(folder), kj::heapString(name)));
    if (loads.size() < kLoadConcurrency) continue;
    co_await kj::joinPromises(loads.releaseAsArray());
    loads = kj::Vector<kj::Promise<void>>();
  }
  co_await kj::joinPromises(loads.releaseAsArray());
}

Co<void> ExtentStoreImpl::loadExtent(kj::String folder, kj::String name) {
  ExtentId id;
  parseName(name, ".data", id);
  kj::String problem;
  try {
    auto bytes = co_await kernelio::readWholeFile(env_.disk, kj::str(folder, "/", id, ".sum"),
                                                  kSidecarBytesMax);
    KJ_IF_MAYBE (content, bytes) {
      format::Sidecar sidecar = format::parseSidecar(id, *content);
      auto file = co_await env_.disk.open(kj::str(folder, "/", name), {});
      KJ_REQUIRE(file->size() == sidecar.info.bytes, "The data file has the wrong size.",
                 file->size(), sidecar.info.bytes);
      ++statistics_.sealed;
      statistics_.sealedBytes += sidecar.info.bytes;
      sealed_[id] = {sidecar.info, kj::mv(sidecar.checksums), nowMs()};
    } else {
      problem = kj::str("its sidecar is missing");
    }
  } catch (kj::Exception& exception) {
    problem = kj::str(exception.getDescription());
  }
  if (problem.size() > 0) {
    ++statistics_.damaged;
    damaged_.insert(id);
    damage_.add(kj::str("Extent ", id, " is damaged and counts as absent: ", problem));
  }
}

}  // namespace packmoor::replicator
