// Data of volumes that this node is to have no more (removal.h).
#include "replicator_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

// At start: what an earlier process had begun.
Co<void> ReplicatorImpl::loadRemovals() {
  if (recovered_.empty()) co_return;  // there is nothing that could be removed
  auto names = co_await parts_.env.disk.list(kRemovalFolder);
  for (const auto& name : names) {
    VolumeId id;
    if (!VolumeId::parse(name, id)) continue;
    const std::string path = removalNotePath(id);
    auto content = co_await kernelio::readWholeFile(parts_.env.disk, path, kRemovalNoteBytesMax);
    KJ_IF_MAYBE(bytes, content) {
      RemovalNote note;
      const std::string text(bytes->asChars().begin(), bytes->size());
      if (!parseRemovalNote(text.c_str(), note)) continue;  // it is written anew when it is due
      removals_[id] = note;
      if (note.discarding) startDiscarding(id);
    }
  }
}

// `record` was read from the coordinator itself.
void ReplicatorImpl::noteStanding(const VolumeRecord& record) {
  std::vector<VolumeId> ids = record.traits.former;
  ids.push_back(record.id);
  for (const VolumeId& id : ids) {
    const bool have = byId_.count(id) > 0 || recovered_.count(id) > 0;
    const bool hasData = byId_.count(id) > 0 || hasRecords(id);
    auto noted = removals_.find(id);
    if (noted != removals_.end() && noted->second.discarding) continue;
    switch (standingOf(record, id, self_.node)) {
      case Standing::kUnknown: break;
      case Standing::kMember:
        if (noted == removals_.end()) break;
        KJ_LOG(INFO, "this node is a member of the volume again and keeps its data",
               record.name.c_str());
        removals_.erase(noted);
        tasks_.add(forgetNote(id));
        break;
      case Standing::kRemoved:
        if (hasData && noted == removals_.end()) beginRemoval(record, id, false);
        discardIfDue(record, id);
        break;
      case Standing::kDeleted:
        if (!have && noted == removals_.end()) break;
        if (noted == removals_.end() || !noted->second.deleted) beginRemoval(record, id, true);
        discardIfDue(record, id);
        break;
    }
  }
}

// Of a volume that is not open; a promise alone is no data.
bool ReplicatorImpl::hasRecords(const VolumeId& id) {
  auto found = recovered_.find(id);
  return found != recovered_.end() &&
         (found->second.last.index.value > 0 || found->second.checkpoint.index.value > 0);
}

void ReplicatorImpl::beginRemoval(const VolumeRecord& record, const VolumeId& id, bool deleted) {
  RemovalNote note;
  note.name = record.name;
  note.sinceMs = parts_.env.clock.nowMs();
  note.deleted = deleted;
  if (deleted) {
    KJ_LOG(WARNING, "the volume was deleted: this node removes its data", record.name.c_str(), id);
  } else {
    KJ_LOG(WARNING, "REMOVED_DATA: this node is no member of the volume any more: it keeps the data for "
                    "a while and then removes it, unless it is added again", record.name.c_str(), id,
           options_.removedDataKeepMs);
  }
  removals_[id] = note;
  if (removalLeftMs(note) > 0) tasks_.add(writeNote(id, note));  // else it is written at once, below
}

Co<void> ReplicatorImpl::writeNote(VolumeId id, RemovalNote note) {
  const std::string path = removalNotePath(id), text = toText(note);
  co_await parts_.env.disk.makeFolders(kRemovalFolder);
  co_await parts_.env.disk.syncDirectory("");
  co_await kernelio::replaceFile(parts_.env.disk, path,
                                 kj::StringPtr(text.c_str(), text.size()).asBytes());
}

Co<void> ReplicatorImpl::forgetNote(VolumeId id) {
  const std::string path = removalNotePath(id);
  co_await parts_.env.disk.remove(path);
  co_await parts_.env.disk.syncDirectory(kRemovalFolder);
}

int64_t ReplicatorImpl::removalLeftMs(const RemovalNote& note) {
  if (note.deleted || note.discarding) return 0;
  return std::max<int64_t>(
      0, note.sinceMs + options_.removedDataKeepMs - parts_.env.clock.nowMs());
}

void ReplicatorImpl::discardIfDue(const VolumeRecord& record, const VolumeId& id) {
  auto noted = removals_.find(id);
  if (noted == removals_.end() || stopped_ || removalLeftMs(noted->second) > 0) return;
  auto opening = opening_.find(noted->second.name);
  if (opening != opening_.end()) return;  // it is looked at again when that has ended
  auto open = byId_.find(id);
  if (open != byId_.end()) {
    VolumeImpl& volume = *open->second;
    // This node may have been added again since the record was read. It acknowledges nothing in an
    // epoch that it has not promised, so an epoch above the record's tells; and from this turn on it
    // acknowledges nothing at all.
    if (!noted->second.deleted && volume.promised().epoch > record.current.epoch) {
      coordinatorWanted_.notify();
      return;
    }
    leaving_[id] = &close(volume, noted->second.deleted
                                      ? "the volume " + volume.name() + " was deleted"
                                      : "this node is no member of volume " + volume.name() +
                                            " any more");
  }
  noted->second.discarding = true;
  startDiscarding(id);
}

// For good. Call discard() in a later turn.
VolumeImpl& ReplicatorImpl::close(VolumeImpl& volume, std::string why) {
  volume.retire(std::move(why));
  byId_.erase(volume.id());
  auto named = volumes_.find(volume.name());
  gone_.push_back(std::move(named->second));
  volumes_.erase(named);
  return volume;
}

void ReplicatorImpl::startDiscarding(const VolumeId& id) {
  auto noted = removals_.find(id);
  if (noted == removals_.end() || noted->second.running) return;
  noted->second.running = true;
  tasks_.add(discardUntilDone(id));
}

Co<void> ReplicatorImpl::discardUntilDone(VolumeId id) {
  int64_t retryMs = kCoordinatorRetryMsMin;
  const std::string name = removals_[id].name;
  for (;;) {
    co_await kj::evalLater([]() {});  // nothing of the volume is on the stack
    auto discarding = outcomeOf(discard(id).promise());
    auto failure = co_await kj::mv(discarding);
    KJ_IF_MAYBE(exception, failure) {
      removals_[id].problem = exception->getDescription().cStr();
      KJ_LOG(WARNING, "data of a volume that is not this node's any more cannot be removed",
             name.c_str(), exception->getDescription());
      co_await parts_.env.timer.afterDelay(retryMs * kj::MILLISECONDS);
      retryMs = std::min(retryMs * 2, kCoordinatorRetryMsMax);
      continue;
    }
    break;
  }
  KJ_LOG(INFO, "the data of a volume that is not this node's any more is removed", name.c_str(), id);
  removals_.erase(id);
  opened_.notify();
  coordinatorWanted_.notify();  // the node may be a member again, or the name be used again
}

// Each step may be made again. Before the first one, the note that says so is durable; it goes last.
Co<void> ReplicatorImpl::discard(VolumeId id) {
  const RemovalNote note = removals_[id];
  co_await writeNote(id, note);
  auto found = recovered_.find(id);
  FencePromise promise = found != recovered_.end() ? found->second.promise : FencePromise();
  auto left = leaving_.find(id);
  if (left != leaving_.end()) {
    VolumeImpl& volume = *left->second;
    auto ending = volume.discard().promise();
    co_await kj::mv(ending);
    promise = volume.promised();
  } else {
    VolumeRecord record;
    record.id = id;
    record.name = note.name;
    auto state = makeStateMachine_(record);
    co_await state->discard();
    co_await parts_.env.disk.removeTree(CheckpointOffers::folderOf(id));
  }
  co_await parts_.env.disk.removeTree(StateTransfer::folderOf(id));
  if (note.deleted) {
    co_await parts_.journal.drop(id);
    recovered_.erase(id);
  } else {
    // The log is gone by one entry, and the promise stays.
    if (parts_.journal.last(id).index.value > 0) {
      co_await parts_.journal.checkpoint(id, LogPosition(), true);
    }
    RecoveredVolume rest;
    rest.promise = promise;
    recovered_[id] = rest;
  }
  leaving_.erase(id);
  co_await forgetNote(id);
}

// ---- Diverged copies that were discarded by order ------------------------------------------------

void ReplicatorImpl::beginDiscardedAnew() {
  if (stopped_) return;
  for (auto& [name, volume] : volumes_) {
    if (!volume->beginsAnew()) continue;
    const std::string why = "volume " + name + " begins anew on this node, as an empty member's";
    opening_[name] = why;
    tasks_.add(beginAnew(close(*volume, why)));
    return;  // the list has changed; others have the next turn
  }
}

// Its log is no more, durably, so whatever ends this, the next start begins the volume anew as well.
Co<void> ReplicatorImpl::beginAnew(VolumeImpl& volume) {
  int64_t retryMs = kCoordinatorRetryMsMin;
  for (;;) {
    co_await kj::evalLater([]() {});  // nothing of the volume is on the stack
    auto discarding = outcomeOf(volume.discard().promise());
    auto failure = co_await kj::mv(discarding);
    if (failure == nullptr) break;
    KJ_IF_MAYBE(exception, failure) {
      KJ_LOG(WARNING, "the state of a volume that was discarded cannot be removed",
             volume.name().c_str(), exception->getDescription());
    }
    co_await parts_.env.timer.afterDelay(retryMs * kj::MILLISECONDS);
    retryMs = std::min(retryMs * 2, kCoordinatorRetryMsMax);
  }
  RecoveredVolume rest;
  rest.promise = volume.promised();
  // The volume takes what it is opened with for durable (invariant 1).
  auto promising = parts_.journal.promise(volume.id(), rest.promise);
  co_await kj::mv(promising);
  recovered_[volume.id()] = rest;
  auto opening = openVolume(volume.record());
  co_await kj::mv(opening);
}

std::vector<RemovalStatus> ReplicatorImpl::removals() {
  std::vector<RemovalStatus> all;
  for (const auto& [id, note] : removals_) {
    all.push_back({id, note.name, note.deleted, note.discarding, removalLeftMs(note), note.problem});
  }
  return all;
}

}  // namespace packmoor::replicator
