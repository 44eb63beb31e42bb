#include "git_state_machine.h"

#include "repository_view_impl.h"

#include "kernelio/check.h"
#include "kernelio/co.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

namespace {

// Groups of records up to this many bytes are applied on the loop: the memory table takes them
// in less time than handing them to a worker.
constexpr size_t kApplyOnLoopBytesMax = 64u << 10;

size_t bytesOfRecords(kj::ArrayPtr<const replicator::RecordRef> records) {
  size_t bytes = 0;
  for (const auto& record : records) bytes += record->payload.size();
  return bytes;
}

}  // namespace

GitStateMachine::GitStateMachine(kernelio::Env& env, replicator::ExtentStore& extents,
                                 PackStore& packs, const GitOptions& options,
                                 replicator::VolumeId volume)
    : env_(env),
      extents_(extents),
      packs_(packs),
      options_(options),
      volume_(volume),
      folder_(kj::str("volumes/", volume).cStr()),
      links_(env.disk, extents, folder_ + "/repositories") {}

GitStateMachine::~GitStateMachine() noexcept(false) {}

kj::Promise<replicator::LogPosition> GitStateMachine::open() { return openStore(); }

Co<replicator::LogPosition> GitStateMachine::openStore() {
  StateStoreOptions options;
  options.cacheBytes = options_.stateCacheBytes;
  auto store = co_await openStateStore(env_, folder_ + "/state", options);
  store_ = kj::mv(store);
  speculation_.emplace(*store_);
  applied_ = store_->position();
  store_->scan(kRepositoryPrefix, {}, [this](std::string_view, std::string_view) {
    ++repositoryCount_;
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
  links_.start(std::move(present));
  co_return applied_;
}

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
  const Records all = kj::arrayPtr(records.data(), records.size());
  Written written;
  if (bytesOfRecords(all) <= kApplyOnLoopBytesMax) {
    written = write(all, nullptr);
  } else {
    // The records stay alive in this frame; the volume does not drop an apply that runs.
    auto done = env_.workers.run([this, all]() { return write(all, nullptr); });
    auto onWorker = co_await kj::mv(done);
    written = kj::mv(onWorker);
  }
  const auto& last = *records.back();
  applied_ = replicator::LogPosition{last.index, last.epoch, last.hash};
  KJ_IF_MAYBE(speculation, speculation_) { speculation->applied(last.index.value); }
  auto followed = follow(kj::mv(written.effects));
  co_await kj::mv(followed);
  results = kj::mv(written.results);
  co_return kj::mv(results);
}

GitStateMachine::Written GitStateMachine::write(Records records,
                                                const std::vector<ObjectId>* settled) {
  Written written;
  auto batch = store_->newBatch();
  StateDraft draft(*store_, *batch);
  RecordApplier applier(draft, written.effects);
  for (const auto& record : records) {
    written.results.push_back(applier.apply(*record, settled));
  }
  const auto& last = *records.back();
  store_->write(kj::mv(batch), replicator::LogPosition{last.index, last.epoch, last.hash});
  return written;
}

Co<void> GitStateMachine::follow(ApplyEffects effects) {
  repositoryCount_ += effects.repositoriesCreated.size();
  repositoryCount_ -= effects.repositoriesDeleted.size();
  std::move(effects.packsDropped.begin(), effects.packsDropped.end(),
            std::back_inserter(dropped_.packsDropped));
  std::move(effects.repositoriesDeleted.begin(), effects.repositoriesDeleted.end(),
            std::back_inserter(dropped_.repositoriesDeleted));
  for (const auto& pack : effects.packsAdded) {
    extents_.link(pack.row.pack);
    extents_.link(pack.row.index);
    links_.add(pack);
  }
  for (const auto& pack : effects.packsAdded) co_await packs_.load(pack.row);
}

void GitStateMachine::letGo(const ApplyEffects& dropped) {
  for (const auto& pack : dropped.packsDropped) {
    packs_.forget(pack.row.pack);
    links_.remove(pack);
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
  const ApplyEffects dropped = std::move(dropped_);
  dropped_ = ApplyEffects();
  co_await store_->flush();
  letGo(dropped);
  co_return position;
}

uint64_t GitStateMachine::unflushedBytes() { return store_->unflushedBytes(); }

kj::Promise<kj::Array<kj::byte>> GitStateMachine::query(std::string name,
                                                        kj::Array<const kj::byte> question) {
  KJ_FAIL_REQUIRE("The git layer does not know this question.", name.c_str());
}

std::optional<RepositoryId> GitStateMachine::findByName(std::string_view name) {
  if (store_.get() == nullptr) return std::nullopt;
  return findRepositoryId(*store_, name);
}

bool GitStateMachine::holds(const RepositoryId& id) {
  return store_.get() != nullptr && store_->exists(repositoryKey(id));
}

kj::Maybe<kj::Own<RepositoryView>> GitStateMachine::view(std::string_view name) {
  auto state = store_->snapshot();
  auto id = findRepositoryId(*state, name);
  if (!id.has_value()) return nullptr;
  auto row = findRepository(*state, *id);
  PACKMOOR_CHECK(row.has_value(), "a repository's name without its row", *id);
  std::vector<std::shared_ptr<PackFile>> packs;
  if (row->statistics.packs > 0) {
    state->scan(packPrefix(*id), {}, [&](std::string_view key, std::string_view value) {
      packs.push_back(packs_.get(PackRow::decode(key, value)));
      return true;
    });
  }
  return makeRepositoryView(std::move(state), std::move(*row), std::move(packs));
}

std::shared_ptr<const StateReader> GitStateMachine::snapshot() { return store_->snapshot(); }

}  // namespace packmoor::gitlayer
