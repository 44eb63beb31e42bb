// PackLinks: the packs of each repository under the names that stock git looks for.
//
// Why: no lock-in. repositories/<id>/objects/pack/pack-<extent>.{pack,idx} of a volume are second
// names of the extents' files, so git can read every settled object whatever becomes of
// Packmoor. A repository without packs has no folder.
//
// The work is done in the background, one name at a time, and nothing waits for it: Packmoor
// itself reads the extents. Names that a crash or an error left out are made at the next start;
// names of packs and folders of repositories that are gone are removed then. The last error is kept for status.
// Loop: the node's.
#pragma once

#include "state_tables.h"

#include <kernelio/co.h>
#include <kernelio/disk.h>
#include <replicator/extent_store.h>

#include <deque>
#include <map>
#include <set>

namespace packmoor::gitlayer {

class PackLinks {
 public:
  // `folder` holds the repositories' folders.
  PackLinks(kernelio::Disk& disk, replicator::ExtentStore& extents, std::string folder);

  // Once: makes the names of all packs that are there and removes what is not among them.
  void start(std::vector<PackLink> present);
  void add(const PackLink& pack);
  void remove(const PackLink& pack);
  void removeRepository(const RepositoryId& id);

  kj::Promise<void> whenIdle();         // for tests
  const std::string& lastError() const { return lastError_; }

 private:
  struct Job {
    enum class Kind : uint8_t { kSweep, kAdd, kRemove, kRemoveRepository };
    Kind kind = Kind::kAdd;
    PackLink pack;
    std::map<RepositoryId, std::set<std::string>> present;  // kSweep: names of packs without suffix
  };
  void enqueue(Job job);
  Co<void> work();
  Co<void> perform(Job job);
  Co<void> sweep(std::map<RepositoryId, std::set<std::string>> present);
  Co<void> sweepPacks(RepositoryId id, std::set<std::string> present);
  Co<void> link(PackLink pack);
  std::string packFolder(const RepositoryId& id) const;
  static std::string fileName(const PackLink& pack, const char* suffix);

  kernelio::Disk& disk_;
  replicator::ExtentStore& extents_;
  const std::string folder_;
  std::deque<Job> jobs_;
  bool working_ = false;
  std::string lastError_;
  kj::ForkedPromise<void> done_ = kj::Promise<void>(kj::READY_NOW).fork();
};

}  // namespace packmoor::gitlayer
