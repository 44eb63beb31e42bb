// StateObjects: the objects of one repository in one state, hot and packed.
#pragma once

#include "pack_file.h"
#include "state_store.h"
#include "state_tables.h"

#include <atomic>

namespace packmoor::gitlayer {

class StateObjects final : public ObjectSource {
 public:
  // `hasHot`: false when the repository is known to have no hot objects.
  StateObjects(std::shared_ptr<const StateReader> state, const RepositoryId& repository,
               bool hasHot, std::vector<std::shared_ptr<PackFile>> packs);

  bool exists(const ObjectId& id) override;
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override;
  kj::Maybe<Object> read(const ObjectId& id) override;
  kj::Maybe<StoredEntry> stored(const ObjectId& id) override;
  std::vector<PackView> packs() override;
  std::vector<ObjectId> hotObjects() override;

 private:
  bool getHot(const ObjectId& id, std::string& row) const;
  // Asks the packs until one has it: first the one that had the last answer, since neighbours are
  // mostly asked for together, then the larger before the smaller.
  template <typename F>
  auto firstOf(F ask) -> decltype(ask(*std::declval<PackFile*>()));

  std::shared_ptr<const StateReader> state_;
  RepositoryId repository_;
  const bool hasHot_;
  const std::vector<std::shared_ptr<PackFile>> packs_;
  std::vector<PackFile*> bySize_;        // largest first
  std::atomic<PackFile*> lastHit_{nullptr};
};

}  // namespace packmoor::gitlayer
