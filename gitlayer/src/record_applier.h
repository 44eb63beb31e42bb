// RecordApplier: what each kind of record does to the tables.
//
// Deterministic: from the state and the record alone. It writes to a draft and notes what has to
// follow once the draft is written (effects). Any thread; one at a time.
#pragma once

#include "ref_rules.h"
#include "state_draft.h"
#include "state_tables.h"

#include <map>
#include <optional>
#include <vector>

namespace packmoor::gitlayer {

// What follows from a written batch outside the state store.
struct ApplyEffects {
  std::vector<PackLink> packsAdded, packsDropped;
  std::vector<RepositoryId> repositoriesCreated, repositoriesDeleted;
  std::map<RepositoryId, std::optional<int64_t>> discardedAtMs;   // none: not any more
  // Repositories whose hot objects or packs changed, with their counts after the batch.
  std::map<RepositoryId, RepositoryStatistics> changed;
};

// The refs of one repository in a state, which does not change meanwhile. One thread.
class StateRefs final : public RefsBefore {
 public:
  // `none`: the repository is known to have no refs, and nothing is looked up.
  StateRefs(const StateReader& state, const RepositoryId& repository, bool none)
      : state_(state), repository_(repository), none_(none) {}
  std::optional<ObjectId> ref(std::string_view name) const override;
  std::optional<std::string> anyBelow(std::string_view prefix, Ignore ignore) const override;

 private:
  const StateReader& state_;
  // There is no ref from a name on up to another (`to` empty: to the last). Refs that come in great numbers
  // mostly come beside each other, where there was none.
  struct Gap {
    bool known = false;
    std::string from, to;
    bool has(std::string_view name) const { return known && from <= name && (to.empty() || name < to); }
  };

  const RepositoryId& repository_;
  bool none_;
  mutable Gap gap_;   // that was met last
};

std::optional<RepositoryRow> findRepository(const StateReader& state, const RepositoryId& id);
// The one that had the name last, and has another one now or is discarded.
std::optional<RepositoryRow> findFormer(const StateReader& state, std::string_view name);
// Not one that is discarded.
std::optional<RepositoryRow> findLiveRepository(const StateReader& state, const RepositoryId& id);
std::optional<RepositoryId> findRepositoryId(const StateReader& state, std::string_view name);
// The packs of a repository, in order of their ids.
std::vector<PackRow> packRows(const StateReader& state, const RepositoryId& id);

// True when the result of a transaction with this id may be forgotten at the index, so that it
// must be refused (rule 20).
bool isBeyondHorizon(const replicator::TxnId& id, uint64_t index);
constexpr const char* kBeyondHorizonText =
    "the transaction is older than the results that are kept: ask for the state and try anew";

// What a settle record is for, decided before its pack is built. Not kDone: void, with the reason: its
// pack would be another than the one that was ordered, since objects were settled or pruned meanwhile.
ApplyResult settleVerdict(const StateReader& state, const SettleRecord& settle);

// What a fork copies at most: rows of refs and hot objects, in one batch. Decided where it is ordered.
constexpr uint64_t kForkRefsMax = 1'000'000;
constexpr uint64_t kForkHotBytesMax = 128ull << 20;
// Whether the parent can be forked now.
ApplyResult forkVerdict(const StateReader& state, const RepositoryForkRecord& fork);

// Whether a prune counts (rule 21), and why not. `guard`: of its repository, nullptr when that is gone.
ApplyResult pruneVerdict(const replicator::PruneGuard* guard, const PruneRecord& prune);
// Whether a repack counts: all packs that it replaces are there.
ApplyResult repackVerdict(const StateReader& state, const RepackRecord& repack);
// Whether a push that was checked at `verifiedAt` must be checked again: what it rests on may have been
// pruned since (rule 21), or it was judged by other settings.
bool mustVerifyAgain(const replicator::PruneGuard& guard, uint64_t lastSettings, uint64_t verifiedAt);
constexpr const char* kVerifyAgainText = "objects were pruned, or settings changed, since the check";

class RecordApplier {
 public:
  RecordApplier(StateDraft& draft, ApplyEffects& effects) : draft_(draft), effects_(effects) {}

  // The result of the record, empty for the replicator's kinds. Throws a sentence for a kind that
  // is not known here, and for a payload that cannot be read. A record whose transaction has a
  // result already changes nothing and gives that result.
  // For a settle record that takes effect the pack must be there; `settled` are the objects in it.
  kj::Array<const kj::byte> apply(const replicator::Record& record,
                                  const std::vector<ObjectId>& settled);

 private:
  ApplyResult applyKind(const replicator::Record& record, const std::vector<ObjectId>& settled);
  ApplyResult refTransaction(const replicator::Record& record);
  void addObjects(const RefTransactionView& txn, uint64_t index, RepositoryRow& row);
  void addPack(const PackExtents& pack, uint64_t addedAt, RepositoryRow& row);
  // Nothing where it is gone already.
  std::optional<PackRow> dropPack(const replicator::ExtentId& pack, RepositoryRow& row);
  void changeRefs(const RefTransactionView& txn, const RefDecision& decision, uint64_t index,
                  RepositoryRow& row);
  void addReflog(const RefTransactionView& txn, const RefDecision& decision, uint64_t index,
                 RepositoryRow& row);
  ApplyResult repositoryCreate(const replicator::Record& record);
  ApplyResult repositoryDelete(const replicator::Record& record);
  ApplyResult repositorySet(const replicator::Record& record);
  ApplyResult repositoryNaming(const replicator::Record& record);
  ApplyResult repositoryFork(const replicator::Record& record);
  uint64_t copyRows(std::string_view from, const std::string& to);
  void takeName(const std::string& name, const RepositoryId& id);
  void leaveName(RepositoryRow& row);
  void forgetFormerName(const std::string& name, const RepositoryId& id);
  ApplyResult settle(const replicator::Record& record, const std::vector<ObjectId>& settled);
  ApplyResult prune(const replicator::Record& record);
  ApplyResult repack(const replicator::Record& record);
  void expireResults(uint64_t index);

  StateDraft& draft_;
  ApplyEffects& effects_;
};

}  // namespace packmoor::gitlayer
