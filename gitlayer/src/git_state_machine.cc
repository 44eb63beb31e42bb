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
                                 const GitOptions& options, replicator::VolumeId volume)
    : env_(env),
      extents_(extents),
      options_(options),
      volume_(volume),
      folder_(kj::str("volumes/", volume).cStr()) {}

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
  store_->scan(kPackTable, {}, [this](std::string_view key, std::string_view value) {
    const PackRow row = PackRow::decode(key, value);
    extents_.link(row.pack);
    extents_.link(row.index);
    return true;
  });
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
  follow(written.effects);
  KJ_IF_MAYBE(speculation, speculation_) { speculation->applied(last.index.value); }
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

void GitStateMachine::follow(const ApplyEffects& effects) {
  for (const auto& pack : effects.packsAdded) {
    extents_.link(pack.row.pack);
    extents_.link(pack.row.index);
  }
  for (const auto& pack : effects.packsDropped) dropped_.push_back(pack);
  repositoryCount_ += effects.repositoriesCreated.size();
  repositoryCount_ -= effects.repositoriesDeleted.size();
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
  auto dropped = std::move(dropped_);
  dropped_.clear();
  co_await store_->flush();
  for (const auto& pack : dropped) {
    extents_.unlink(pack.row.pack);
    extents_.unlink(pack.row.index);
  }
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
  return makeRepositoryView(std::move(state), std::move(*row));
}

std::shared_ptr<const StateReader> GitStateMachine::snapshot() { return store_->snapshot(); }

}  // namespace packmoor::gitlayer
