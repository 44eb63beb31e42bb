// BareRepository: a stock bare git repository on disk, read as Packmoor reads its own.
//
// Packs are given as they are, loose objects as hot objects; refs are read once when it is
// opened. Stored entries are the pack's own, so that copying of deltas is tested on what real git
// made. Objects are read through a small cache of delta bases. Thread-safe.
#pragma once

#include "gitlayer/repository.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace packmoor::gitlayer::test {

class BareRepository final : public ObjectSource {
 public:
  // A bare repository, or one with a work tree.
  explicit BareRepository(const std::string& folder);
  ~BareRepository() noexcept(false);

  kj::Own<RepositoryView> view();

  RepositoryInfo info;
  std::map<std::string, Ref, std::less<>> refs;
  uint64_t reads = 0;

  bool exists(const ObjectId& id) override;
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override;
  kj::Maybe<Object> read(const ObjectId& id) override;
  kj::Maybe<StoredEntry> stored(const ObjectId& id) override;
  std::vector<PackView> packs() override;
  std::vector<ObjectId> hotObjects() override;

 private:
  struct Pack;
  struct Loose {
    ObjectType type;
    std::string data;
  };
  struct Place {
    Pack* pack = nullptr;
    uint64_t offset = 0;
  };
  using Shared = std::shared_ptr<const Object>;
  void openPack(const std::string& stem);
  void openLoose(const std::string& folder);
  void readRefs(const std::string& gitFolder);
  bool find(const ObjectId& id, Place& place);
  Shared resolve(const Place& place);
  void remember(const Place& place, const Shared& object);

  std::vector<std::unique_ptr<Pack>> packs_;
  std::map<ObjectId, Loose> loose_;
  std::mutex mutex_;
  std::map<std::pair<Pack*, uint64_t>, Shared> cache_;
  size_t cacheBytes_ = 0;
};

}  // namespace packmoor::gitlayer::test
