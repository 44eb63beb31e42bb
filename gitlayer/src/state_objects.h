// StateObjects: the objects of one repository in one state, hot and packed.
#pragma once

#include "state_store.h"
#include "state_tables.h"

namespace packmoor::gitlayer {

class StateObjects final : public ObjectSource {
 public:
  StateObjects(std::shared_ptr<const StateReader> state, const RepositoryId& repository)
      : state_(std::move(state)), repository_(repository) {}

  bool exists(const ObjectId& id) override;
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override;
  kj::Maybe<Object> read(const ObjectId& id) override;
  kj::Maybe<StoredEntry> stored(const ObjectId& id) override;
  std::vector<PackView> packs() override;
  std::vector<ObjectId> hotObjects() override;

 private:
  std::shared_ptr<const StateReader> state_;
  RepositoryId repository_;
};

}  // namespace packmoor::gitlayer
