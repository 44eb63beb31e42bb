// Which state of a volume there is on the disk, and checkpoints of it from and to other members.
//
// A state is a folder of the state store: volumes/<id>/state, or state-<index> where it came as a
// checkpoint of that record from another member. The journal decides: of those that are there, the
// newest whose index is not above the journal's last checkpoint is the state; so the record that
// installs a checkpoint switches to it, and what a crash left before that record is removed.
//
// A damaged state may be replaced by one of the same record, state-<index>.<number>. Either is the state
// at that record, so a crash may leave both, and the newer one is taken. That a state was found
// damaged is noted in volumes/<id>/damage: the folder's name, a line's end, what was found.
#include "git_state_machine.h"

#include "durable_folders.h"
#include "reach_notes.h"

#include <kj/debug.h>

#include <algorithm>
#include <charconv>
#include <set>

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kStateName = "state";
constexpr size_t kNoteBytesMax = 64u << 10;

bool parseNumber(std::string_view text, uint64_t& number) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

}  // namespace

// nullopt: not a state's folder.
std::optional<GitStateMachine::Generation> GitStateMachine::generationOf(std::string_view name) {
  Generation generation;
  if (name.substr(0, kStateName.size()) != kStateName) return std::nullopt;
  name.remove_prefix(kStateName.size());
  if (name.empty()) return generation;
  if (name.front() != '-') return std::nullopt;
  name.remove_prefix(1);
  const size_t dot = name.find('.');
  if (!parseNumber(name.substr(0, dot), generation.index)) return std::nullopt;
  if (dot != name.npos && !parseNumber(name.substr(dot + 1), generation.number)) return std::nullopt;
  return generation;
}

std::string GitStateMachine::stateFolder(const Generation& generation) const {
  std::string folder = folder_ + "/" + std::string(kStateName);
  if (generation == Generation()) return folder;
  folder += "-" + std::to_string(generation.index);
  return generation.number == 0 ? folder : folder + "." + std::to_string(generation.number);
}

// ---- At start ---------------------------------------------------------------------------------

kj::Promise<replicator::LogPosition> GitStateMachine::open() { return openStore(); }

Co<replicator::LogPosition> GitStateMachine::openStore() {
  auto choosing = chooseFolder();
  generation_ = co_await kj::mv(choosing);
  auto recalling = recallDamage();
  co_await kj::mv(recalling);
  auto opening = openFolder(stateFolder(generation_), damage_);
  auto store = co_await kj::mv(opening);
  auto using_ = useStore(kj::mv(store));
  auto present = co_await kj::mv(using_);
  links_.start(std::move(present));
  co_return applied_;
}

Co<GitStateMachine::Generation> GitStateMachine::chooseFolder() {
  Generation chosen;
  auto names = co_await env_.disk.list(folder_);
  for (const auto& name : names) {
    const auto generation = generationOf(name.cStr());
    if (generation.has_value() && generation->index <= checkpoint_.index.value) {
      chosen = std::max(chosen, *generation);
    }
  }
  for (const auto& name : names) {
    const auto generation = generationOf(name.cStr());
    if (!generation.has_value() || *generation == chosen) continue;
    const std::string path = stateFolder(*generation);
    co_await env_.disk.removeTree(path);
  }
  co_return chosen;
}

Co<std::shared_ptr<StateStore>> GitStateMachine::openFolder(std::string folder,
                                                            std::shared_ptr<StateDamage> damage) {
  StateStoreOptions options;
  options.cacheBytes = options_.stateCacheBytes;
  options.damage = std::move(damage);
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
  reachNotes_ = std::make_shared<ReachNotes>();
  refBooks_ = std::make_shared<RefBooks>(options_.refCacheBytes);
  applied_ = store_->position();
  repositoryCount_ = 0;
  settleCandidates_.clear();
  repackCandidates_.clear();
  discarded_.clear();
  packUsers_.clear();
  ahead_.reset();
  store_->scan(kRepositoryPrefix, {}, [this](std::string_view key, std::string_view value) {
    ++repositoryCount_;
    const auto row = RepositoryRow::decode(uuidOf(key.substr(1)), value);
    noteWork(row.info.id, row.statistics);
    if (row.info.discardedAtIndex != 0) discarded_[row.info.id] = row.info.discardedAtMs;
    return true;
  });
  std::vector<PackLink> present;
  store_->scan(kPackTable, {}, [&](std::string_view key, std::string_view value) {
    present.push_back({repositoryOfPackKey(key), PackRow::decode(key, value)});
    return true;
  });
  for (const auto& pack : present) {
    useExtents(pack.row);
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
  // Forks share packs.
  std::sort(content.extents.begin(), content.extents.end());
  content.extents.erase(std::unique(content.extents.begin(), content.extents.end()),
                        content.extents.end());
  co_await store_->checkpoint(std::move(folder));
  co_return kj::mv(content);
}

kj::Promise<void> GitStateMachine::stageCheckpoint(std::string folder,
                                                   replicator::LogPosition position) {
  return stage(std::move(folder), position);
}

Co<void> GitStateMachine::stage(std::string folder, replicator::LogPosition position) {
  staged_ = Generation{position.index.value, 0};
  if (staged_.index == generation_.index) {
    KJ_REQUIRE(!damage().empty(), "a checkpoint that is the state already", position.index);
    staged_.number = generation_.number + 1;
  }
  const std::string target = stateFolder(staged_);
  co_await makeDurableFolders(env_.disk, folder_);
  co_await env_.disk.removeTree(target);  // of an attempt that failed
  co_await env_.disk.rename(folder, target);
  co_await env_.disk.syncDirectory(folder_);
}

kj::Promise<void> GitStateMachine::switchToStaged(replicator::LogPosition position) {
  return switchTo(position);
}

Co<void> GitStateMachine::switchTo(replicator::LogPosition position) {
  const std::string former = stateFolder(generation_);
  auto damage = std::make_shared<StateDamage>();
  auto opening = openFolder(stateFolder(staged_), damage);
  auto store = co_await kj::mv(opening);
  KJ_REQUIRE(store->position() == position,
             "The checkpoint that was fetched is of another record than its source said.",
             position.index, store->position().index);
  // Of a damaged state as far as it can be read: what stays linked by that is unlinked at the next start.
  std::vector<PackLink> before;
  auto unread = kj::runCatchingExceptions([&]() {
    if (store_ == nullptr) return;
    store_->scan(kPackTable, {}, [&](std::string_view key, std::string_view value) {
      before.push_back({repositoryOfPackKey(key), PackRow::decode(key, value)});
      return true;
    });
  });
  KJ_IF_MAYBE(exception, unread) {
    KJ_REQUIRE(!damage_->text().empty(), exception->getDescription());
  }
  generation_ = staged_;
  damage_ = std::move(damage);
  auto using_ = useStore(kj::mv(store));
  auto present = co_await kj::mv(using_);
  std::set<std::pair<RepositoryId, replicator::ExtentId>> kept;
  for (const auto& pack : present) kept.insert({pack.repository, pack.row.pack});
  // The new state is durable, so nothing that is not in it will be needed again.
  ApplyEffects dropped;
  std::swap(dropped, dropped_);
  for (auto& pack : before) {
    if (kept.count({pack.repository, pack.row.pack}) == 0) dropped.packsDropped.push_back(std::move(pack));
  }
  letGo(dropped);
  links_.start(std::move(present));
  // Who reads the former state has its files open.
  co_await env_.disk.removeTree(former);
  const std::string note = damageNote();
  co_await env_.disk.remove(note);
}

// ---- Damage -----------------------------------------------------------------------------------

kj::Promise<void> GitStateMachine::rememberDamage() {
  if (damage().empty()) return kj::READY_NOW;
  const std::string folder = stateFolder(generation_);
  std::string note = folder.substr(folder_.size() + 1) + "\n" + damage();
  if (note.size() > kNoteBytesMax) note.resize(kNoteBytesMax);
  auto content = kj::heapArray(bytesOf(note));
  auto written = kernelio::replaceFile(env_.disk, damageNote(), content);
  return written.attach(kj::mv(content));
}

// What an earlier process found in the state that is in use.
Co<void> GitStateMachine::recallDamage() {
  const std::string path = damageNote();
  auto content = co_await kernelio::readWholeFile(env_.disk, path, kNoteBytesMax);
  KJ_IF_MAYBE(bytes, content) {
    const std::string_view note = textOf(*bytes);
    const size_t end = std::min(note.find('\n'), note.size());
    if (generationOf(note.substr(0, end)) == generation_) {
      damage_->note(std::string(note.substr(std::min(end + 1, note.size()))));
    }
  }
}

void GitStateMachine::abandon(std::string reason) {
  damage_->note(std::move(reason));
  speculation_ = nullptr;
  store_ = nullptr;
}

kj::Promise<std::vector<replicator::StoredFile>> GitStateMachine::storedFiles() {
  return store_ == nullptr ? std::vector<replicator::StoredFile>() : store_->files();
}

kj::Promise<void> GitStateMachine::verifyStored(std::string name, replicator::Pace& pace) {
  if (store_ == nullptr) return kj::READY_NOW;
  auto store = store_;   // it may be replaced meanwhile
  auto verified = store->verify(std::move(name), pace);
  return verified.attach(std::move(store));
}

// ---- The end -----------------------------------------------------------------------------------

std::string GitStateMachine::holds() {
  if (repositoryCount_ == 0) return {};
  std::string text =
      std::to_string(repositoryCount_) + (repositoryCount_ == 1 ? " repository" : " repositories");
  if (!discarded_.empty()) {
    text += ", of which " + std::to_string(discarded_.size()) + " deleted and kept";
  }
  return text;
}

kj::Promise<void> GitStateMachine::discard() { return discardAll(); }

// Who reads the state has it until they end; everybody else finds an empty one.
Co<void> GitStateMachine::discardAll() {
  if (store_ != nullptr) {
    ApplyEffects dropped;
    std::swap(dropped, dropped_);
    store_->scan(kPackTable, {}, [&](std::string_view key, std::string_view value) {
      dropped.packsDropped.push_back({repositoryOfPackKey(key), PackRow::decode(key, value)});
      return true;
    });
    auto opening = openMapStateStore(env_, kj::str("discarded-", volume_).cStr());
    auto store = co_await kj::mv(opening);
    auto held = std::make_shared<kj::Own<StateStore>>(kj::mv(store));
    auto using_ = useStore(std::shared_ptr<StateStore>(held, held->get()));
    auto present = co_await kj::mv(using_);
    (void)present;
    letGo(dropped);
    auto idle = links_.whenIdle();
    co_await kj::mv(idle);
  }
  co_await env_.disk.makeFolders("volumes");
  co_await env_.disk.removeTree(folder_);
  co_await env_.disk.syncDirectory("volumes");
}

}  // namespace packmoor::gitlayer
