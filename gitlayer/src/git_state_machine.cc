#include "git_state_machine.h"

#include "repository_view_impl.h"
#include "settle.h"

#include "kernelio/check.h"
#include "kernelio/co.h"
#include "replicator/outcome.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

namespace {

// Groups of records up to this many bytes are applied on the loop: the memory table takes them
// in less time than handing them to a worker.
constexpr size_t kApplyOnLoopBytesMax = 64u << 10;
constexpr int64_t kRoomRetryMs = 500;

size_t bytesOfRecords(kj::ArrayPtr<const replicator::RecordRef> records) {
  size_t bytes = 0;
  for (const auto& record : records) bytes += record->payload.size();
  return bytes;
}

// These read rows as they lie in the store: a settle also needs its pack first.
bool standsAlone(const replicator::RecordRef& record) {
  return record->kind == kSettle || record->kind == kPrune || record->kind == kRepositoryFork;
}

// Where the records that begin at `begin` and can be one batch end: a verification needs the state
// as it leaves it.
size_t endOfRun(const std::vector<replicator::RecordRef>& records, size_t begin) {
  if (standsAlone(records[begin])) return begin + 1;
  for (size_t end = begin; end < records.size(); ++end) {
    if (standsAlone(records[end])) return end;
    if (records[end]->kind == kVerify) return end + 1;
  }
  return records.size();
}

void requireSame(bool same, const SettleRecord& settle) {
  KJ_REQUIRE(same,
             "The objects of a repository on this node differ from those on the node that ordered "
             "their settling. The state of this node is wrong: remove it and let it be built "
             "again from peers.",
             settle.repository, settle.upto, settle.objectCount);
}

void requireRoot(replicator::ExtentStore& extents, const replicator::ExtentId& id,
                 const replicator::Hash128& root) {
  auto info = extents.info(id);
  KJ_IF_MAYBE(found, info) {
    KJ_REQUIRE(found->root == root, "A pack's extent has another root than the record says.", id);
  }
}

// What takes the place of other packs is what was ordered, on every member. Not sealed here: the record
// was applied before, and another repack has let the pack go since.
void requireRepackRoots(replicator::ExtentStore& extents, kj::ArrayPtr<const kj::byte> payload) {
  const RepackRecord repack = decodeRepack(payload);
  requireRoot(extents, repack.pack.pack, repack.packRoot);
  requireRoot(extents, repack.pack.index, repack.indexRoot);
}

}  // namespace

GitStateMachine::GitStateMachine(kernelio::Env& env, replicator::ExtentStore& extents,
                                 PackStore& packs, const GitOptions& options,
                                 replicator::VolumeId volume,
                                 kj::Function<void()> maintenanceWanted)
    : env_(env),
      extents_(extents),
      packs_(packs),
      options_(options),
      volume_(volume),
      folder_(kj::str("volumes/", volume).cStr()),
      links_(env.disk, extents, folder_ + "/repositories"),
      digests_(env, packs),
      maintenanceWanted_(kj::mv(maintenanceWanted)) {}

GitStateMachine::~GitStateMachine() noexcept(false) {}

kj::Promise<std::vector<kj::Array<const kj::byte>>> GitStateMachine::apply(
    std::vector<replicator::RecordRef> records) {
  return applyAll(std::move(records));
}

Co<std::vector<kj::Array<const kj::byte>>> GitStateMachine::applyAll(
    std::vector<replicator::RecordRef> records) {
  std::vector<kj::Array<const kj::byte>> results;
  if (records.empty()) co_return kj::mv(results);
  PACKMOOR_CHECK(records.front()->index == applied_.index.next(), "applying a record out of order",
                 records.front()->index, applied_.index);
  for (size_t begin = 0, end = 0; begin < records.size(); begin = end) {
    end = endOfRun(records, begin);
    Settling settling;
    while (records[begin]->kind == kSettle) {
      auto prepared = replicator::outcomeOf(prepareSettle(records[begin]).promise());
      auto outcome = co_await kj::mv(prepared);
      if (outcome.ok()) {
        settling = kj::mv(*outcome.value);
        break;
      }
      KJ_IF_MAYBE(failure, outcome.exception) {
        auto waiting = waitForRoom(kj::mv(*failure));
        co_await kj::mv(waiting);
      }
    }
    for (size_t i = begin; i < end; ++i) {
      if (records[i]->kind == kRepack) requireRepackRoots(extents_, records[i]->payload);
    }
    const std::vector<replicator::RecordRef> run(records.begin() + begin, records.begin() + end);
    for (;;) {
      auto applying = replicator::outcomeOf(applyRun(run, settling.objects).promise());
      auto applied = co_await kj::mv(applying);
      if (applied.ok()) {
        auto& some = *applied.value;
        std::move(some.begin(), some.end(), std::back_inserter(results));
        break;
      }
      KJ_IF_MAYBE(failure, applied.exception) {
        auto waiting = waitForRoom(kj::mv(*failure));
        co_await kj::mv(waiting);
      }
    }
    problem_.clear();
    for (const auto& extent : settling.pinned) extents_.unpin(extent);
  }
  co_return kj::mv(results);
}

Co<void> GitStateMachine::waitForRoom(kj::Exception failure) {
  if (failure.getType() != kj::Exception::Type::OVERLOADED) {
    kj::throwFatalException(kj::mv(failure));
  }
  if (problem_.empty()) {
    KJ_LOG(WARNING, "the volume waits for room on the disk", failure.getDescription());
  }
  problem_ = kj::str("what is committed cannot be applied yet: ", failure.getDescription()).cStr();
  co_await env_.timer.afterDelay(kRoomRetryMs * kj::MILLISECONDS);
  auto resuming = store_->resume();
  co_await kj::mv(resuming);
}

Co<std::vector<kj::Array<const kj::byte>>> GitStateMachine::applyRun(
    std::vector<replicator::RecordRef> run, std::vector<ObjectId> settled) {
  Written written;
  const bool onLoop = settled.empty() && !standsAlone(run.front()) &&
                      bytesOfRecords(kj::arrayPtr(run.data(), run.size())) <= kApplyOnLoopBytesMax;
  if (onLoop) {
    written = write(*store_, kj::arrayPtr(run.data(), run.size()), settled);
  } else {
    // The job has what it works on: it may end after this machine does.
    auto done = env_.workers.run([store = store_, run, settled = std::move(settled)]() {
      return write(*store, kj::arrayPtr(run.data(), run.size()), settled);
    });
    auto onWorker = co_await kj::mv(done);
    written = kj::mv(onWorker);
  }
  const auto& last = *run.back();
  applied_ = replicator::LogPosition{last.index, last.epoch, last.hash};
  if (last.kind == kVerify) digests_.keep(last.index.value, store_->snapshot());
  KJ_IF_MAYBE(speculation, speculation_) { speculation->applied(last.index.value); }
  auto followed = follow(kj::mv(written.effects));
  co_await kj::mv(followed);
  co_return kj::mv(written.results);
}

Co<GitStateMachine::Settling> GitStateMachine::prepareSettle(replicator::RecordRef record) {
  Settling settling;
  const SettleRecord settle = decodeSettle(record->payload);
  if (store_->exists(txnKey(settle.txn)) || isBeyondHorizon(settle.txn, record->index.value) ||
      settleVerdict(*store_, settle).status != ApplyResult::Status::kDone) {
    co_return kj::mv(settling);  // it changes nothing
  }
  auto state = store_->snapshot();
  if (extents_.isSealed(settle.pack) && extents_.isSealed(settle.index)) {
    // Built ahead of its own proposal, or applied before a crash.
    requireRoot(extents_, settle.pack, settle.packRoot);
    requireRoot(extents_, settle.index, settle.indexRoot);
    if (ahead_.has_value() && ahead_->pack == settle.pack) {
      settling.objects = std::move(ahead_->objects);
      ahead_.reset();
      requireSame(settling.objects.size() == settle.objectCount, settle);
      co_return kj::mv(settling);
    }
    auto listed = env_.workers.run([state, settle]() {
      return settledObjects(*state, settle.repository, settle.upto);
    });
    auto objects = co_await kj::mv(listed);
    requireSame(objects.size() == settle.objectCount, settle);
    settling.objects = kj::mv(objects);
    co_return kj::mv(settling);
  }
  auto building = env_.workers.run([state, settle]() {
    return buildSettledPack(*state, settle.repository, settle.upto, settle.order);
  });
  auto built = co_await kj::mv(building);
  requireSame(built.objects.size() == settle.objectCount && built.packRoot == settle.packRoot &&
                  built.indexRoot == settle.indexRoot,
              settle);
  settling.objects = kj::mv(built.objects);
  if (!extents_.isSealed(settle.pack)) {
    auto sealed = sealExtent(extents_, settle.pack, built.pack, built.packRoot);
    co_await kj::mv(sealed);
    settling.pinned.push_back(settle.pack);
  }
  if (!extents_.isSealed(settle.index)) {
    auto sealed = sealExtent(extents_, settle.index, built.index, built.indexRoot);
    co_await kj::mv(sealed);
    settling.pinned.push_back(settle.index);
  }
  co_return kj::mv(settling);
}

GitStateMachine::Written GitStateMachine::write(StateStore& store, Records records,
                                                const std::vector<ObjectId>& settled) {
  Written written;
  auto batch = store.newBatch();
  StateDraft draft(store, *batch);
  RecordApplier applier(draft, written.effects);
  for (const auto& record : records) {
    written.results.push_back(applier.apply(*record, settled));
  }
  draft.finish();
  const auto& last = *records.back();
  store.write(kj::mv(batch), replicator::LogPosition{last.index, last.epoch, last.hash});
  return written;
}

Co<void> GitStateMachine::follow(ApplyEffects effects) {
  repositoryCount_ += effects.repositoriesCreated.size();
  repositoryCount_ -= effects.repositoriesDeleted.size();
  for (const auto& pack : effects.packsAdded) {
    useExtents(pack.row);
    links_.add(pack);
  }
  for (const auto& pack : effects.packsDropped) {
    auto users = packUsers_.find(pack.row.pack);
    PACKMOOR_CHECK(users != packUsers_.end(), "dropping a pack that no repository had", pack.row.pack);
    if (--users->second == 0) packUsers_.erase(users);
  }
  std::copy(effects.packsDropped.begin(), effects.packsDropped.end(),
            std::back_inserter(dropped_.packsDropped));
  std::copy(effects.repositoriesDeleted.begin(), effects.repositoriesDeleted.end(),
            std::back_inserter(dropped_.repositoriesDeleted));
  for (const auto& pack : effects.packsAdded) co_await packs_.load(pack.row);
  // Who is woken by it reads the packs.
  for (const auto& [id, statistics] : effects.changed) noteWork(id, statistics);
  for (const auto& id : effects.repositoriesDeleted) noteWork(id, {});
  for (const auto& [id, timeMs] : effects.discardedAtMs) {
    if (timeMs.has_value()) {
      discarded_[id] = *timeMs;
    } else {
      discarded_.erase(id);
    }
  }
}

std::vector<RepositoryId> GitStateMachine::discardedUntil(int64_t timeMs) const {
  std::vector<RepositoryId> ids;
  for (const auto& [id, sinceMs] : discarded_) {
    if (sinceMs <= timeMs) ids.push_back(id);
  }
  return ids;
}

void GitStateMachine::noteWork(const RepositoryId& id, const RepositoryStatistics& statistics) {
  auto note = [&](std::set<RepositoryId>& candidates, bool wanted) {
    if (!wanted) {
      candidates.erase(id);
    } else if (candidates.insert(id).second) {
      maintenanceWanted_();
    }
  };
  note(settleCandidates_, statistics.hotObjects >= options_.settleObjects ||
                              statistics.hotBytes >= options_.settleBytes);
  note(repackCandidates_,
       options_.repackPacks > 0 && statistics.packs >= options_.repackPacks);
}

void GitStateMachine::useExtents(const PackRow& pack) {
  ++packUsers_[pack.pack];
  extents_.link(pack.pack);
  extents_.link(pack.index);
}

void GitStateMachine::letGo(const ApplyEffects& dropped) {
  for (const auto& pack : dropped.packsDropped) {
    links_.remove(pack);
    if (packUsers_.count(pack.row.pack) > 0) continue;  // another repository's too
    packs_.forget(pack.row.pack);
    extents_.unlink(pack.row.pack);
    extents_.unlink(pack.row.index);
  }
  for (const auto& repository : dropped.repositoriesDeleted) links_.removeRepository(repository);
}

replicator::Verdict GitStateMachine::validate(const replicator::Proposal& proposal,
                                              replicator::RecordIndex index) {
  auto& speculation = KJ_ASSERT_NONNULL(speculation_);
  return speculation.validate(proposal, index.value, applied_.index.value);
}

void GitStateMachine::endSpeculation() {
  KJ_IF_MAYBE(speculation, speculation_) { speculation->clear(); }
}

kj::Maybe<replicator::TxnResult> GitStateMachine::findResult(const replicator::TxnId& txn) {
  std::string row;
  if (txn.isNull() || !store_->get(txnKey(txn), row)) return nullptr;
  const TxnRow found = TxnRow::decode(row);
  auto bytes = bytesOf(found.result);
  return replicator::TxnResult{replicator::RecordIndex(found.index),
                               kj::heapArray<const kj::byte>(bytes.begin(), bytes.size())};
}

kj::Promise<replicator::LogPosition> GitStateMachine::flush() { return flushStore(); }

Co<replicator::LogPosition> GitStateMachine::flushStore() {
  const replicator::LogPosition position = applied_;
  ApplyEffects dropped;
  // A digest may be reading packs that are gone from the newest state.
  if (!digests_.isReading()) std::swap(dropped, dropped_);
  co_await store_->flush();
  letGo(dropped);
  co_return position;
}

uint64_t GitStateMachine::unflushedBytes() {
  return store_ == nullptr ? 0 : store_->unflushedBytes();
}

kj::Promise<kj::Array<kj::byte>> GitStateMachine::query(std::string name,
                                                        kj::Array<const kj::byte> question) {
  if (name == "digest") return digests_.answer(question, applied_.index.value);
  KJ_FAIL_REQUIRE("The git layer does not know this question.", name.c_str());
}

std::optional<RepositoryId> GitStateMachine::findByName(std::string_view name) {
  if (store_ == nullptr) return std::nullopt;
  return findRepositoryId(*store_, name);
}

bool GitStateMachine::holds(const RepositoryId& id) {
  return store_ != nullptr && store_->exists(repositoryKey(id));
}

kj::Maybe<kj::Own<RepositoryView>> GitStateMachine::view(std::string_view name) {
  return viewOf(name, snapshot(), refBooks_);
}

kj::Maybe<kj::Own<RepositoryView>> GitStateMachine::view(std::string_view name,
                                                         std::shared_ptr<const StateReader> state) {
  return viewOf(name, std::move(state), nullptr);
}
kj::Maybe<kj::Own<RepositoryView>> GitStateMachine::viewOf(std::string_view name,
                                                           std::shared_ptr<const StateReader> state,
                                                           std::shared_ptr<RefBooks> books) {
  auto id = findRepositoryId(*state, name);
  if (!id.has_value()) return nullptr;
  auto row = findRepository(*state, *id);
  PACKMOOR_CHECK(row.has_value(), "a repository's name without its row", *id);
  std::vector<std::shared_ptr<PackFile>> packs;
  if (row->statistics.packs > 0) {
    packs = openPacks(packRows(*state, *id));
  }
  return makeRepositoryView(std::move(state), std::move(*row), std::move(packs), std::move(books),
                            reachNotes_);
}

std::vector<std::shared_ptr<PackFile>> GitStateMachine::openPacks(
    const std::vector<PackRow>& rows) {
  std::vector<std::shared_ptr<PackFile>> packs;
  for (const auto& row : rows) packs.push_back(packs_.get(row));
  return packs;
}

std::shared_ptr<const StateReader> GitStateMachine::snapshot() { return openedStore().snapshot(); }

StateStore& GitStateMachine::openedStore() {
  requireOpened();
  return *store_;
}

void GitStateMachine::requireOpened() const {
  if (store_ != nullptr) return;
  kj::throwFatalException(kj::Exception(
      kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
      kj::str("The state of a volume is damaged on this node, and is not here yet from another one. Ask "
              "another node.")));
}

}  // namespace packmoor::gitlayer
