// What records do that make, set, name and delete repositories.
#include "record_applier.h"

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

// By key, each key once.
void changeSetting(Settings& settings, const Setting& change) {
  auto at = std::lower_bound(settings.begin(), settings.end(), change.key,
                             [](const Setting& a, const std::string& key) { return a.key < key; });
  const bool known = at != settings.end() && at->key == change.key;
  if (change.values.empty()) {
    if (known) settings.erase(at);
  } else if (known) {
    at->values = change.values;
  } else {
    settings.insert(at, change);
  }
}

}  // namespace

ApplyResult RecordApplier::repositoryCreate(const replicator::Record& record) {
  const RepositoryCreateRecord create = decodeRepositoryCreate(record.payload);
  if (findRepositoryId(draft_, create.name).has_value()) {
    return refused(ApplyResult::Status::kExists,
                   "a repository with the name '" + create.name + "' exists");
  }
  if (findRepository(draft_, create.repository).has_value()) {
    return refused(ApplyResult::Status::kExists, "a repository with this id exists");
  }
  RepositoryRow row;
  row.info.id = create.repository;
  row.info.name = create.name;
  row.info.description = create.description;
  row.info.head = create.head;
  row.info.createdAtIndex = record.index.value;
  row.info.createdAtMs = create.timeMs;
  takeName(create.name, create.repository);
  draft_.put(repositoryKey(create.repository), row.encode());
  effects_.repositoriesCreated.push_back(create.repository);
  return {};
}

ApplyResult forkVerdict(const StateReader& state, const RepositoryForkRecord& fork) {
  const auto parent = findLiveRepository(state, fork.parent);
  if (!parent.has_value()) {
    return refused(ApplyResult::Status::kNotFound,
                   "there is no repository with the name '" + fork.parentName + "'");
  }
  if (!fork.defaultBranchOnly && parent->statistics.refs > kForkRefsMax) {
    return refused(ApplyResult::Status::kRefused,
                   "it has more than " + std::to_string(kForkRefsMax) +
                       " refs: fork its default branch only (`--default-branch-only`)");
  }
  if (parent->statistics.hotBytes > kForkHotBytesMax) {
    return refused(ApplyResult::Status::kRefused,
                   "much was pushed to it in small pushes, which are being settled into packs: try again in a "
                   "minute");
  }
  return {};
}

// The fork is what the parent is at this record. Its rows name the parent's packs, each of which stays while
// a repository names it (GitStateMachine::packUsers_); hot objects are copied, since each repository settles
// and prunes its own. So nothing that happens to one of the two from here on concerns the other.
ApplyResult RecordApplier::repositoryFork(const replicator::Record& record) {
  const RepositoryForkRecord fork = decodeRepositoryFork(record.payload);
  if (findRepositoryId(draft_, fork.name).has_value()) {
    return refused(ApplyResult::Status::kExists,
                   "a repository with the name '" + fork.name + "' exists");
  }
  if (findRepository(draft_, fork.repository).has_value()) {
    return refused(ApplyResult::Status::kExists, "a repository with this id exists");
  }
  const auto parent = findLiveRepository(draft_, fork.parent);
  if (!parent.has_value()) {
    return refused(ApplyResult::Status::kNotFound,
                   "there is no repository with the name '" + fork.parentName + "'");
  }
  RepositoryRow row;
  row.info = parent->info;  // with its settings: what is hidden in the parent is not shown in the fork
  row.info.id = fork.repository;
  row.info.name = fork.name;
  row.info.createdAtIndex = record.index.value;
  row.info.createdAtMs = fork.timeMs;
  row.info.forkedFrom = fork.parent;
  row.info.forkedFromName = parent->info.name;
  for (const PackRow& pack : packRows(draft_, fork.parent)) {
    addPack({pack.pack, pack.index, pack.packBytes, pack.objectCount}, pack.addedAt, row);
  }
  copyRows(hotPrefix(fork.parent), hotPrefix(fork.repository));
  row.statistics.hotObjects = parent->statistics.hotObjects;
  row.statistics.hotBytes = parent->statistics.hotBytes;
  if (!fork.defaultBranchOnly) {
    row.statistics.refs = copyRows(refPrefix(fork.parent), refPrefix(fork.repository));
  } else if (std::string ref; draft_.get(refKey(fork.parent, row.info.head), ref)) {
    draft_.put(refKey(fork.repository, row.info.head), ref);
    row.statistics.refs = 1;
  }
  // What only refs reach that were left behind is not to be cloned.
  if (row.statistics.refs != parent->statistics.refs) row.info.appendOnly = false;
  takeName(fork.name, fork.repository);
  draft_.put(repositoryKey(fork.repository), row.encode());
  effects_.repositoriesCreated.push_back(fork.repository);
  effects_.changed[fork.repository] = row.statistics;
  return {};
}

// Straight into the batch: a fork is alone in its run, so nobody reads them through the draft.
uint64_t RecordApplier::copyRows(std::string_view from, const std::string& to) {
  uint64_t rows = 0;
  draft_.scan(from, {}, [&](std::string_view key, std::string_view value) {
    draft_.putUnread(to + std::string(key.substr(from.size())), value, {});
    ++rows;
    return true;
  });
  return rows;
}

ApplyResult RecordApplier::repositoryDelete(const replicator::Record& record) {
  const RepositoryDeleteRecord remove = decodeRepositoryDelete(record.payload);
  auto row = findRepository(draft_, remove.repository);
  const bool restored = row.has_value() && remove.discardedAtIndex != 0 &&
                        row->info.discardedAtIndex != remove.discardedAtIndex;
  if (!row.has_value() || restored || row->info.name != remove.name) {
    return refused(ApplyResult::Status::kNotFound,
                   "there is no repository with the name '" + remove.name + "'");
  }
  const RepositoryId& id = remove.repository;
  for (const auto& pack : packRows(draft_, id)) effects_.packsDropped.push_back({id, pack});
  // The name of one that was discarded may be another's.
  if (row->info.discardedAtIndex == 0) draft_.erase(repositoryNameKey(row->info.name));
  for (const std::string& name : row->formerNames) forgetFormerName(name, id);
  draft_.erase(repositoryKey(id));
  for (const auto& prefix : {refPrefix(id), hotPrefix(id), packPrefix(id), reflogPrefix(id)}) {
    draft_.erasePrefix(prefix);
  }
  effects_.changed.erase(id);
  effects_.discardedAtMs[id] = std::nullopt;
  effects_.repositoriesDeleted.push_back(id);
  return {};
}

ApplyResult RecordApplier::repositoryNaming(const replicator::Record& record) {
  const RepositoryNamingRecord naming = decodeRepositoryNaming(record.payload);
  const bool restores = record.kind == kRepositoryRestore;
  auto row = findRepository(draft_, naming.repository);
  if (!row.has_value() || row->info.name != naming.name ||
      (row->info.discardedAtIndex != 0) != restores) {
    return refused(ApplyResult::Status::kNotFound,
                   restores ? "the repository is not there to be restored"
                            : "there is no repository with the name '" + naming.name + "'");
  }
  const bool names = record.kind != kRepositoryDiscard;
  if (names && findRepositoryId(draft_, naming.to).has_value()) {
    return refused(ApplyResult::Status::kExists,
                   "a repository with the name '" + naming.to + "' exists");
  }
  if (!restores) leaveName(*row);
  if (names) {
    row->info.name = naming.to;
    takeName(naming.to, naming.repository);
  }
  row->info.discardedAtIndex = names ? 0 : record.index.value;
  row->info.discardedAtMs = names ? 0 : naming.timeMs;
  // A push that was begun before under the name goes back to be judged again, and finds what became of it.
  row->lastSettings = record.index.value;
  draft_.put(repositoryKey(naming.repository), row->encode());
  effects_.discardedAtMs[naming.repository] =
      names ? std::nullopt : std::optional<int64_t>(naming.timeMs);
  return {};
}

void RecordApplier::takeName(const std::string& name, const RepositoryId& id) {
  draft_.put(repositoryNameKey(name), textOf(id));
  if (draft_.exists(formerNameKey(name))) draft_.erase(formerNameKey(name));
}

void RecordApplier::leaveName(RepositoryRow& row) {
  const std::string& name = row.info.name;
  draft_.erase(repositoryNameKey(name));
  draft_.put(formerNameKey(name), textOf(row.info.id));
  std::erase(row.formerNames, name);
  row.formerNames.push_back(name);
  if (row.formerNames.size() <= kFormerNamesMax) return;
  forgetFormerName(row.formerNames.front(), row.info.id);
  row.formerNames.erase(row.formerNames.begin());
}

// Another one may have had it since.
void RecordApplier::forgetFormerName(const std::string& name, const RepositoryId& id) {
  std::string last;
  if (draft_.get(formerNameKey(name), last) && uuidOf(last) == id) draft_.erase(formerNameKey(name));
}

ApplyResult RecordApplier::repositorySet(const replicator::Record& record) {
  const RepositorySetRecord set = decodeRepositorySet(record.payload);
  auto row = findLiveRepository(draft_, set.repository);
  if (!row.has_value()) {
    return refused(ApplyResult::Status::kNotFound, "the repository was deleted");
  }
  Settings& stored = row->info.settings.stored;
  for (const Setting& change : set.changes) {
    const std::string value = change.values.empty() ? std::string() : change.values.front();
    if (change.key == kHeadSetting) {
      row->info.head = value.empty() ? RepositoryInfo().head : value;
    } else if (change.key == kDescriptionSetting) {
      row->info.description = value;
    } else {
      changeSetting(stored, change);
    }
  }
  if (stored.size() > kSettingsMax) {
    return refused(ApplyResult::Status::kRefused, "a repository has at most " +
                                                      std::to_string(kSettingsMax) + " settings");
  }
  row->lastSettings = record.index.value;
  draft_.put(repositoryKey(set.repository), row->encode());
  return {};
}

}  // namespace packmoor::gitlayer
