// PackStore: the packs of a node that are in use, by extent.
//
// Why: views of one repository share its open packs, with their mappings and what is known to be
// undamaged. At most kOpenPacksMax are kept; the least recently used are closed once the last
// view that has them is gone.
//
// Loop: the node's; what it hands out may be used on any thread. On a disk without files of the
// operating system (the simulator's), packs are read into memory by load() and stay there.
#pragma once

#include "block_mender.h"
#include "pack_file.h"
#include "state_tables.h"

#include <kernelio/env.h>

#include <list>
#include <map>

namespace packmoor::gitlayer {

constexpr size_t kOpenPacksMax = 512;

class PackStore {
 public:
  PackStore(kernelio::Env& env, replicator::ExtentStore& extents)
      : env_(env), extents_(extents), bases_(std::make_shared<DeltaBaseCache>()) {
    if (isMapped()) mender_ = kj::heap<BlockMender>(env, extents);
  }

  // Does not fail: what is wrong with a pack is thrown to whoever uses it.
  std::shared_ptr<PackFile> get(const PackRow& row);
  // Before the first get() of a pack. Does nothing where packs are mapped.
  kj::Promise<void> load(PackRow row);
  // The pack is gone from the state.
  void forget(const replicator::ExtentId& pack);

  size_t openPacks() const { return byUse_.size(); }

 private:
  struct Entry {
    replicator::ExtentId id;
    std::shared_ptr<PackFile> pack;
  };
  void add(const replicator::ExtentId& id, std::shared_ptr<PackFile> pack);
  bool isMapped() const { return env_.disk.root().size() > 0; }

  kernelio::Env& env_;
  replicator::ExtentStore& extents_;
  kj::Own<BlockMender> mender_;            // where packs are mapped
  std::shared_ptr<DeltaBaseCache> bases_;  // the packs share it, and may outlive this
  std::list<Entry> byUse_;                 // newest first
  std::map<replicator::ExtentId, std::list<Entry>::iterator> entries_;
};

}  // namespace packmoor::gitlayer
