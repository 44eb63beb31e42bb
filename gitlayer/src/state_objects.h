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
               bool hasHot, std::vector<std::shared_ptr<PackFile>> packs)
      : state_(std::move(state)),
        repository_(repository),
        hasHot_(hasHot),
        packs_(std::move(packs)) {}

  bool exists(const ObjectId& id) override;
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override;
  kj::Maybe<Object> read(const ObjectId& id) override;
  kj::Maybe<StoredEntry> stored(const ObjectId& id) override;
  std::vector<PackView> packs() override;
  std::vector<ObjectId> hotObjects() override;

 private:
  bool getHot(const ObjectId& id, std::string& row) const;
  // Asks the packs, beginning with the one that had the last answer, until one has it.
  template <typename F>
  auto firstOf(F ask) -> decltype(ask(*std::declval<PackFile*>()));

  std::shared_ptr<const StateReader> state_;
  RepositoryId repository_;
  const bool hasHot_;
  const std::vector<std::shared_ptr<PackFile>> packs_;
  std::atomic<size_t> lastHit_{0};
};

}  // namespace packmoor::gitlayer
