// Which state of a volume there is on the disk, and checkpoints of it from and to other members.
//
// A state is a folder of the state store: volumes/<id>/state, or state-<index> where it came as a
// checkpoint of that record from another member. The journal decides: of those that are there, the
// newest whose index is not above the journal's last checkpoint is the state; so the record that
// installs a checkpoint switches to it, and what a crash left before that record is removed.
#include "git_state_machine.h"

#include "durable_folders.h"

#include <kj/debug.h>

#include <charconv>
#include <set>

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kStateName = "state";

// The index in the name of a state's folder, 0 for the first one's; nullopt: not one.
std::optional<uint64_t> generationOf(std::string_view name) {
  if (name.substr(0, kStateName.size()) != kStateName) return std::nullopt;
  name.remove_prefix(kStateName.size());
  if (name.empty()) return 0;
  if (name.front() != '-') return std::nullopt;
  name.remove_prefix(1);
  uint64_t index = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), index);
  if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) return std::nullopt;
  return index;
}

}  // namespace

std::string GitStateMachine::stateFolder(uint64_t generation) const {
  const std::string first = folder_ + "/" + std::string(kStateName);
  return generation == 0 ? first : first + "-" + std::to_string(generation);
}

// ---- At start ---------------------------------------------------------------------------------

kj::Promise<replicator::LogPosition> GitStateMachine::open() { return openStore(); }

Co<replicator::LogPosition> GitStateMachine::openStore() {
  auto choosing = chooseFolder();
  stateFolder_ = co_await kj::mv(choosing);
  auto opening = openFolder(stateFolder_);
  auto store = co_await kj::mv(opening);
  auto using_ = useStore(kj::mv(store));
  auto present = co_await kj::mv(using_);
  links_.start(std::move(present));
  co_return applied_;
}

Co<std::string> GitStateMachine::chooseFolder() {
  uint64_t chosen = 0;
  auto names = co_await env_.disk.list(folder_);
  for (const auto& name : names) {
    const auto generation = generationOf(name.cStr());
    if (generation.has_value() && *generation <= checkpoint_.index.value) {
      chosen = std::max(chosen, *generation);
    }
  }
  for (const auto& name : names) {
    const auto generation = generationOf(name.cStr());
    if (!generation.has_value() || *generation == chosen) continue;
    const std::string path = stateFolder(*generation);
    co_await env_.disk.removeTree(path);
  }
  co_return stateFolder(chosen);
}

Co<std::shared_ptr<StateStore>> GitStateMachine::openFolder(std::string folder) {
  StateStoreOptions options;
  options.cacheBytes = options_.stateCacheBytes;
  auto opening = openStateStore(env_, folder, options);
  auto store = co_await kj::mv(opening);
  auto held = std::make_shared<kj::Own<StateStore>>(kj::mv(store));
  co_return std::shared_ptr<StateStore>(held, held->get());
}

// Makes it the state, with everything that is derived from it but the names of packs, which are
// returned.
Co<std::vector<PackLink>> GitStateMachine::useStore(std::shared_ptr<StateStore> store) {
  speculation_ = nullptr;
  store_ = std::move(store);
  speculation_.emplace(*store_);
  applied_ = store_->position();
  repositoryCount_ = 0;
  settleCandidates_.clear();
  ahead_.reset();
  store_->scan(kRepositoryPrefix, {}, [this](std::string_view key, std::string_view value) {
    ++repositoryCount_;
    const auto row = RepositoryRow::decode(uuidOf(key.substr(1)), value);
    noteHot(row.info.id, row.statistics);
    return true;
  });
  std::vector<PackLink> present;
  store_->scan(kPackTable, {}, [&](std::string_view key, std::string_view value) {
    present.push_back({repositoryOfPackKey(key), PackRow::decode(key, value)});
    return true;
  });
  for (const auto& pack : present) {
    extents_.link(pack.row.pack);
    extents_.link(pack.row.index);
    co_await packs_.load(pack.row);
  }
  co_return kj::mv(present);
}

// ---- Checkpoints ------------------------------------------------------------------------------

kj::Promise<replicator::CheckpointContent> GitStateMachine::makeCheckpoint(std::string folder) {
  return writeCheckpoint(std::move(folder));
}

Co<replicator::CheckpointContent> GitStateMachine::writeCheckpoint(std::string folder) {
  replicator::CheckpointContent content;
  content.position = applied_;
  store_->scan(kPackTable, {}, [&](std::string_view key, std::string_view value) {
    const PackRow row = PackRow::decode(key, value);
    content.extents.push_back(row.pack);
    content.extents.push_back(row.index);
    return true;
  });
  co_await store_->checkpoint(std::move(folder));
  co_return kj::mv(content);
}

kj::Promise<void> GitStateMachine::stageCheckpoint(std::string folder,
                                                   replicator::LogPosition position) {
  return stage(std::move(folder), position);
}

Co<void> GitStateMachine::stage(std::string folder, replicator::LogPosition position) {
  const std::string target = stateFolder(position.index.value);
  KJ_REQUIRE(target != stateFolder_, "a checkpoint that is the state already", position.index);
  co_await makeDurableFolders(env_.disk, folder_);
  co_await env_.disk.removeTree(target);  // of an attempt that failed
  co_await env_.disk.rename(folder, target);
  co_await env_.disk.syncDirectory(folder_);
}

kj::Promise<void> GitStateMachine::switchToStaged(replicator::LogPosition position) {
  return switchTo(position);
}

Co<void> GitStateMachine::switchTo(replicator::LogPosition position) {
  const std::string former = stateFolder_, target = stateFolder(position.index.value);
  auto opening = openFolder(target);
  auto store = co_await kj::mv(opening);
  KJ_REQUIRE(store->position() == position,
             "The checkpoint that was fetched is of another record than its source said.",
             position.index, store->position().index);
  std::vector<PackLink> before;
  store_->scan(kPackTable, {}, [&](std::string_view key, std::string_view value) {
    before.push_back({repositoryOfPackKey(key), PackRow::decode(key, value)});
    return true;
  });
  stateFolder_ = target;
  auto using_ = useStore(kj::mv(store));
  auto present = co_await kj::mv(using_);
  std::set<replicator::ExtentId> kept;
  for (const auto& pack : present) kept.insert(pack.row.pack);
  // The new state is durable, so nothing that is not in it will be needed again.
  ApplyEffects dropped;
  std::swap(dropped, dropped_);
  for (auto& pack : before) {
    if (kept.count(pack.row.pack) == 0) dropped.packsDropped.push_back(std::move(pack));
  }
  letGo(dropped);
  links_.start(std::move(present));
  // Who reads the former state has its files open.
  co_await env_.disk.removeTree(former);
}

}  // namespace packmoor::gitlayer
