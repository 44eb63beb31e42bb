#include "pack_links.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

PackLinks::PackLinks(kernelio::Disk& disk, replicator::ExtentStore& extents, std::string folder)
    : disk_(disk), extents_(extents), folder_(std::move(folder)) {}

std::string PackLinks::packFolder(const RepositoryId& id) const {
  return kj::str(folder_.c_str(), "/", id, "/objects/pack").cStr();
}

std::string PackLinks::fileName(const PackLink& pack, const char* suffix) {
  return kj::str("pack-", pack.row.pack, suffix).cStr();
}

void PackLinks::start(std::vector<PackLink> present) {
  Job sweep;
  sweep.kind = Job::Kind::kSweep;
  for (const auto& pack : present) sweep.present[pack.repository].insert(fileName(pack, ""));
  enqueue(std::move(sweep));
  for (const auto& pack : present) add(pack);
}

void PackLinks::add(const PackLink& pack) { enqueue({Job::Kind::kAdd, pack, {}}); }
void PackLinks::remove(const PackLink& pack) { enqueue({Job::Kind::kRemove, pack, {}}); }
void PackLinks::removeRepository(const RepositoryId& id) {
  enqueue({Job::Kind::kRemoveRepository, PackLink{id, {}}, {}});
}

void PackLinks::enqueue(Job job) {
  jobs_.push_back(std::move(job));
  if (working_) return;
  working_ = true;
  done_ = kj::evalLater([this]() -> kj::Promise<void> { return work(); })
              .eagerlyEvaluate(nullptr)
              .fork();
}

kj::Promise<void> PackLinks::whenIdle() { return done_.addBranch(); }

Co<void> PackLinks::work() {
  while (!jobs_.empty()) {
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    kj::Promise<void> performed = perform(std::move(job));
    co_await performed.catch_([this](kj::Exception&& exception) {
      lastError_ = exception.getDescription().cStr();
    });
  }
  working_ = false;
}

Co<void> PackLinks::perform(Job job) {
  switch (job.kind) {
    case Job::Kind::kSweep: {
      auto swept = sweep(std::move(job.present));
      co_await kj::mv(swept);
      break;
    }
    case Job::Kind::kAdd: {
      auto linked = link(job.pack);
      co_await kj::mv(linked);
      break;
    }
    case Job::Kind::kRemove: {
      const std::string folder = packFolder(job.pack.repository);
      // The index first: a pack without one is nothing to git.
      const std::string index = folder + "/" + fileName(job.pack, ".idx");
      co_await disk_.remove(index);
      const std::string pack = folder + "/" + fileName(job.pack, ".pack");
      co_await disk_.remove(pack);
      break;
    }
    case Job::Kind::kRemoveRepository: {
      const auto folder = kj::str(folder_.c_str(), "/", job.pack.repository);
      co_await disk_.removeTree(folder);
      break;
    }
  }
}

Co<void> PackLinks::sweep(std::map<RepositoryId, std::set<std::string>> present) {
  auto names = co_await disk_.list(folder_);
  for (auto& name : names) {
    RepositoryId id;
    auto known = RepositoryId::parse(name, id) ? present.find(id) : present.end();
    if (known != present.end()) {
      auto sweeping = sweepPacks(id, std::move(known->second));
      co_await kj::mv(sweeping);
      continue;
    }
    const auto folder = kj::str(folder_.c_str(), "/", name);
    co_await disk_.removeTree(folder);
  }
}

// Names of packs that were dropped before a crash.
Co<void> PackLinks::sweepPacks(RepositoryId id, std::set<std::string> present) {
  const std::string folder = packFolder(id);
  const bool there = co_await disk_.exists(folder);
  if (!there) co_return;
  auto names = co_await disk_.list(folder);
  for (const char* suffix : {".idx", ".pack"}) {
    for (const auto& entry : names) {
      const std::string name = entry.cStr();
      const size_t stem = name.rfind('.');
      if (name.rfind("pack-", 0) != 0 || stem == std::string::npos || name.substr(stem) != suffix ||
          present.count(name.substr(0, stem)) > 0) {
        continue;
      }
      const std::string path = folder + "/" + name;
      co_await disk_.remove(path);
    }
  }
}

Co<void> PackLinks::link(PackLink pack) {
  const std::string folder = packFolder(pack.repository);
  const std::string index = folder + "/" + fileName(pack, ".idx");
  const bool there = co_await disk_.exists(index);
  if (there) co_return;
  co_await disk_.makeFolders(folder);
  const std::string file = folder + "/" + fileName(pack, ".pack");
  const auto packPath = extents_.path(pack.row.pack);
  co_await disk_.link(packPath, file);
  const auto indexPath = extents_.path(pack.row.index);
  co_await disk_.link(indexPath, index);
}

}  // namespace packmoor::gitlayer
