#include "speculation.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

// Rule 22 rests on it.
void requireNamed(const replicator::Proposal& proposal, const PackExtents& pack) {
  for (const auto& extent : {pack.pack, pack.index}) {
    KJ_REQUIRE(std::count(proposal.extents.begin(), proposal.extents.end(), extent) == 1,
               "malformed record: it does not name the extents of its pack", extent);
  }
}

}  // namespace

// The refs of a repository behind everything in flight.
class Speculation::RefsInFlight final : public RefsBefore {
 public:
  RefsInFlight(const RefsBefore& applied, const Repository* inFlight)
      : applied_(applied), inFlight_(inFlight) {}

  std::optional<ObjectId> ref(std::string_view name) const override {
    if (inFlight_ != nullptr) {
      auto found = inFlight_->refs.find(name);
      if (found != inFlight_->refs.end()) return found->second.id;
    }
    return applied_.ref(name);
  }

  std::optional<std::string> anyBelow(std::string_view prefix, Ignore ignore) const override {
    if (inFlight_ == nullptr) return applied_.anyBelow(prefix, kj::mv(ignore));
    const auto& refs = inFlight_->refs;
    for (auto ref = refs.lower_bound(prefix);
         ref != refs.end() && std::string_view(ref->first).substr(0, prefix.size()) == prefix;
         ++ref) {
      if (ref->second.id.has_value() && !ignore(ref->first)) return ref->first;
    }
    return applied_.anyBelow(prefix, [&](std::string_view name) {
      return refs.find(name) != refs.end() || ignore(name);
    });
  }

 private:
  const RefsBefore& applied_;
  const Repository* inFlight_;
};

replicator::Verdict Speculation::validate(const replicator::Proposal& proposal, uint64_t index,
                                          uint64_t applied) {
  Judgement judgement;
  if (isBeyondHorizon(proposal.txn, index)) {
    judgement.result = refused(ApplyResult::Status::kRefused, kBeyondHorizonText);
  } else {
    auto malformed = kj::runCatchingExceptions([&]() { judgement = judge(proposal, index); });
    KJ_IF_MAYBE(exception, malformed) {
      judgement.accepted = false;
      judgement.result =
          refused(ApplyResult::Status::kRefused, exception->getDescription().cStr());
    }
  }
  replicator::Verdict verdict;
  verdict.accepted = judgement.accepted;
  if (!verdict.accepted) {
    verdict.result = encodeResult(judgement.result);
    verdict.restsOn = replicator::RecordIndex(restsOn(judgement.repository, applied));
  }
  return verdict;
}

Speculation::Judgement Speculation::judge(const replicator::Proposal& proposal, uint64_t index) {
  if (proposal.kind == kRefTransaction) return judgeRefs(proposal, index);
  if (proposal.kind == kRepositoryCreate) return judgeCreate(proposal, index);
  if (proposal.kind == kRepositoryDelete) return judgeDelete(proposal, index);
  if (proposal.kind == kRepositorySet) return judgeSet(proposal, index);
  if (isNaming(proposal.kind)) return judgeNaming(proposal, index);
  if (proposal.kind == kRepositoryFork) return judgeFork(proposal, index);
  if (proposal.kind == kSettle) return judgeSettle(proposal, index);
  if (proposal.kind == kPrune) return judgePrune(proposal, index);
  if (proposal.kind == kRepack) return judgeRepack(proposal, index);
  Judgement judgement;
  judgement.accepted = proposal.kind == kVerify;
  if (!judgement.accepted) {
    judgement.result = refused(ApplyResult::Status::kRefused, "unknown kind of record");
  }
  return judgement;
}

Speculation::Judgement Speculation::judgeRefs(const replicator::Proposal& proposal,
                                              uint64_t index) {
  const RefTransactionView txn = decodeRefTransaction(proposal.payload);
  Judgement judgement;
  judgement.repository = txn.repository;
  if (!isLive(txn.repository)) {
    judgement.result = refused(ApplyResult::Status::kNotFound, "the repository was deleted");
    return judgement;
  }
  for (const auto& update : txn.updates) {
    KJ_REQUIRE(isValidRefName(update.name), "malformed record: ref name",
               std::string(update.name).c_str());
  }
  if (txn.pack.has_value()) requireNamed(proposal, *txn.pack);
  auto row = findRepository(state_, txn.repository);
  auto known = repositories_.find(txn.repository);
  const bool forking = known != repositories_.end() && known->second.forking != 0;
  if (forking || mustVerifyAgain(guardOf(txn.repository, row), lastSettingsOf(txn.repository, row),
                                 txn.verifiedAt)) {
    judgement.result = refused(ApplyResult::Status::kVerifyAgain, kVerifyAgainText);
    return judgement;
  }
  const StateRefs applied(state_, txn.repository, !row.has_value() || row->statistics.refs == 0);
  RefsInFlight before(applied, known == repositories_.end() ? nullptr : &known->second);
  RefDecision decision = decideRefs(before, txn.updates, txn.atomic);
  if (decision.done == 0 && !txn.updates.empty()) {
    judgement.result.status = ApplyResult::Status::kRefused;
    judgement.result.refProblems = std::move(decision.problems);
    judgement.result.refDetails = std::move(decision.details);
    return judgement;
  }
  Repository& repository = repositories_[txn.repository];
  repository.lastIndex = repository.changing = index;
  Flight& flight = flights_[index];
  flight.repository = txn.repository;
  for (auto& [name, change] : decision.changes) {
    repository.refs[name] = Repository::Ref{index, change.id};
    flight.refs.push_back(name);
  }
  judgement.accepted = true;
  return judgement;
}

std::optional<Speculation::Judgement> Speculation::makingProblem(const RepositoryId& id,
                                                                  const std::string& name) const {
  Judgement judgement;
  judgement.repository = id;
  if (auto problem = repositoryNameProblem(name)) {
    judgement.result = refused(ApplyResult::Status::kRefused, *problem);
    return judgement;
  }
  const auto holder = holderOf(name);
  if (!holder.has_value() && !repositoryExists(id)) return std::nullopt;
  if (holder.has_value()) judgement.repository = *holder;
  judgement.result = refused(ApplyResult::Status::kExists,
                             "a repository with the name '" + name + "' exists");
  return judgement;
}

Speculation::Judgement Speculation::judgeCreate(const replicator::Proposal& proposal,
                                                uint64_t index) {
  const RepositoryCreateRecord create = decodeRepositoryCreate(proposal.payload);
  if (auto problem = makingProblem(create.repository, create.name)) return *problem;
  KJ_REQUIRE(isValidRefName(create.head), "malformed record: head", create.head.c_str());
  Judgement judgement;
  judgement.repository = create.repository;
  Repository& repository = repositories_[create.repository];
  repository.lastIndex = index;
  repository.exists = true;
  flights_[index].repository = create.repository;
  take(create.name, create.repository, index);
  judgement.accepted = true;
  return judgement;
}

// What it will have is known when it is applied: a push to it that is faster is judged again.
Speculation::Judgement Speculation::judgeFork(const replicator::Proposal& proposal, uint64_t index) {
  const RepositoryForkRecord fork = decodeRepositoryFork(proposal.payload);
  if (auto problem = makingProblem(fork.repository, fork.name)) return *problem;
  Judgement judgement;
  judgement.repository = fork.parent;
  if (isLive(fork.parent) && !state_.exists(repositoryKey(fork.parent))) {
    judgement.result = refused(ApplyResult::Status::kRefused, "it is only being made: try again");
    return judgement;
  }
  judgement.result =
      isLive(fork.parent) ? forkVerdict(state_, fork)
                          : refused(ApplyResult::Status::kNotFound, "the repository was deleted");
  if (judgement.result.status != ApplyResult::Status::kDone) return judgement;
  judgement.repository = fork.repository;
  Repository& repository = repositories_[fork.repository];
  repository.lastIndex = repository.forking = index;
  repository.exists = true;
  flights_[index].repository = fork.repository;
  take(fork.name, fork.repository, index);
  judgement.accepted = true;
  return judgement;
}

Speculation::Judgement Speculation::judgeDelete(const replicator::Proposal& proposal,
                                                uint64_t index) {
  const RepositoryDeleteRecord remove = decodeRepositoryDelete(proposal.payload);
  Judgement judgement;
  judgement.repository = remove.repository;
  // By its name; one that is discarded has none any more.
  const bool named = holderOf(remove.name) == remove.repository;
  const bool discarded = repositoryExists(remove.repository) && isDiscarded(remove.repository);
  if (!discarded && (!named || remove.discardedAtIndex != 0)) {
    judgement.result = refused(ApplyResult::Status::kNotFound,
                               "there is no repository with the name '" + remove.name + "'");
    return judgement;
  }
  Repository& repository = repositories_[remove.repository];
  repository.lastIndex = index;
  repository.exists = false;
  flights_[index].repository = remove.repository;
  if (named) take(remove.name, std::nullopt, index);
  judgement.accepted = true;
  return judgement;
}

Speculation::Judgement Speculation::judgeSet(const replicator::Proposal& proposal,
                                             uint64_t index) {
  const RepositorySetRecord set = decodeRepositorySet(proposal.payload);
  Judgement judgement;
  judgement.repository = set.repository;
  if (!isLive(set.repository)) {
    judgement.result = refused(ApplyResult::Status::kNotFound, "the repository was deleted");
    return judgement;
  }
  for (const Setting& change : set.changes) {
    KJ_REQUIRE(change.key != kHeadSetting || change.values.empty() ||
                   isValidRefName(change.values.front()),
               "malformed record: head");
  }
  Repository& repository = repositories_[set.repository];
  repository.lastIndex = repository.setting = index;
  flights_[index].repository = set.repository;
  judgement.accepted = true;
  return judgement;
}

Speculation::Judgement Speculation::judgeNaming(const replicator::Proposal& proposal,
                                                uint64_t index) {
  const RepositoryNamingRecord naming = decodeRepositoryNaming(proposal.payload);
  const RepositoryId& id = naming.repository;
  Judgement judgement;
  judgement.repository = id;
  const bool restores = proposal.kind == kRepositoryRestore;
  const bool names = proposal.kind != kRepositoryDiscard;
  if (restores ? !repositoryExists(id) || !isDiscarded(id) : holderOf(naming.name) != id) {
    judgement.result = refused(ApplyResult::Status::kNotFound,
                               restores ? "the repository is not there to be restored"
                                        : "there is no repository with the name '" + naming.name + "'");
    return judgement;
  }
  if (names) {
    if (auto problem = repositoryNameProblem(naming.to)) {
      judgement.result = refused(ApplyResult::Status::kRefused, *problem);
      return judgement;
    }
    if (const auto holder = holderOf(naming.to)) {
      judgement.repository = *holder;
      judgement.result = refused(ApplyResult::Status::kExists,
                                 "a repository with the name '" + naming.to + "' exists");
      return judgement;
    }
  }
  Repository& repository = repositories_[id];
  repository.lastIndex = index;
  if (proposal.kind != kRepositoryRename) repository.discarded = !names;
  repository.setting = index;  // what is pushed by the name that it had is judged again
  flights_[index].repository = id;
  if (!restores) take(naming.name, std::nullopt, index);
  if (names) take(naming.to, id, index);
  judgement.accepted = true;
  return judgement;
}

Speculation::Judgement Speculation::judgeSettle(const replicator::Proposal& proposal,
                                                uint64_t index) {
  const SettleRecord settle = decodeSettle(proposal.payload);
  Judgement judgement;
  judgement.repository = settle.repository;
  auto known = repositories_.find(settle.repository);
  if (!repositoryExists(settle.repository)) {
    judgement.result = refused(ApplyResult::Status::kNotFound, "the repository is gone");
    return judgement;
  }
  if (known != repositories_.end() && known->second.settling != 0) {
    judgement.result =
        refused(ApplyResult::Status::kRefused, "its objects are being settled already");
    return judgement;
  }
  if (known != repositories_.end() && known->second.pruning > settle.computedAt) {
    judgement.result = refused(ApplyResult::Status::kRefused, "its objects are being pruned");
    return judgement;
  }
  judgement.result = settleVerdict(state_, settle);
  if (judgement.result.status != ApplyResult::Status::kDone) return judgement;
  Repository& repository = repositories_[settle.repository];
  repository.lastIndex = repository.changing = index;
  repository.settling = index;
  flights_[index].repository = settle.repository;
  judgement.accepted = true;
  return judgement;
}

// It goes by packs alone, which only prunes and other repacks drop; a settle or a push adds some.
Speculation::Judgement Speculation::judgeRepack(const replicator::Proposal& proposal,
                                                uint64_t index) {
  const RepackRecord repack = decodeRepack(proposal.payload);
  requireNamed(proposal, repack.pack);
  Judgement judgement;
  judgement.repository = repack.repository;
  if (!repositoryExists(repack.repository)) {
    judgement.result = refused(ApplyResult::Status::kNotFound, "the repository is gone");
    return judgement;
  }
  auto known = repositories_.find(repack.repository);
  if (known != repositories_.end() &&
      (known->second.repacking != 0 || known->second.pruning > repack.computedAt)) {
    judgement.result = refused(ApplyResult::Status::kVoid, "its packs are being dropped");
    return judgement;
  }
  judgement.result = repackVerdict(state_, repack);
  if (judgement.result.status != ApplyResult::Status::kDone) return judgement;
  Repository& repository = repositories_[repack.repository];
  repository.lastIndex = repository.changing = repository.repacking = index;
  flights_[index].repository = repack.repository;
  judgement.accepted = true;
  return judgement;
}

Speculation::Judgement Speculation::judgePrune(const replicator::Proposal& proposal,
                                               uint64_t index) {
  const PruneRecord prune = decodePrune(proposal.payload);
  Judgement judgement;
  judgement.repository = prune.repository;
  const replicator::PruneGuard guard =
      guardOf(prune.repository, findRepository(state_, prune.repository));
  judgement.result = pruneVerdict(repositoryExists(prune.repository) ? &guard : nullptr, prune);
  if (judgement.result.status != ApplyResult::Status::kDone) return judgement;
  Repository& repository = repositories_[prune.repository];
  repository.lastIndex = repository.pruning = index;
  flights_[index].repository = prune.repository;
  judgement.accepted = true;
  return judgement;
}

replicator::PruneGuard Speculation::guardOf(const RepositoryId& id,
                                            const std::optional<RepositoryRow>& row) const {
  replicator::PruneGuard guard;
  if (row.has_value()) guard = row->pruneGuard();
  auto known = repositories_.find(id);
  if (known != repositories_.end()) {
    guard.lastPrune = std::max(guard.lastPrune, replicator::RecordIndex(known->second.pruning));
    guard.lastChange = std::max(guard.lastChange, replicator::RecordIndex(known->second.changing));
  }
  return guard;
}

uint64_t Speculation::lastSettingsOf(const RepositoryId& id,
                                     const std::optional<RepositoryRow>& row) const {
  uint64_t last = row.has_value() ? row->lastSettings : 0;
  auto known = repositories_.find(id);
  return known == repositories_.end() ? last : std::max(last, known->second.setting);
}

bool Speculation::repositoryExists(const RepositoryId& id) const {
  auto known = repositories_.find(id);
  if (known != repositories_.end() && known->second.exists.has_value()) {
    return *known->second.exists;
  }
  return state_.exists(repositoryKey(id));
}

bool Speculation::isDiscarded(const RepositoryId& id) const {
  auto known = repositories_.find(id);
  if (known != repositories_.end() && known->second.discarded.has_value()) {
    return *known->second.discarded;
  }
  const auto row = findRepository(state_, id);
  return row.has_value() && row->info.discardedAtIndex != 0;
}

std::optional<RepositoryId> Speculation::holderOf(const std::string& name) const {
  auto known = names_.find(name);
  return known != names_.end() ? known->second.id : findRepositoryId(state_, name);
}

void Speculation::take(const std::string& name, std::optional<RepositoryId> holder,
                       uint64_t index) {
  names_[name] = Name{index, holder};
  flights_[index].names.push_back(name);
}

uint64_t Speculation::restsOn(const RepositoryId& id, uint64_t applied) const {
  auto known = repositories_.find(id);
  return known == repositories_.end() ? applied : std::max(applied, known->second.lastIndex);
}

void Speculation::applied(uint64_t index) {
  while (!flights_.empty() && flights_.begin()->first <= index) {
    auto& [at, flight] = *flights_.begin();
    auto repository = repositories_.find(flight.repository);
    if (repository != repositories_.end()) {
      auto& refs = repository->second.refs;
      for (const auto& name : flight.refs) {
        auto ref = refs.find(name);
        if (ref != refs.end() && ref->second.index == at) refs.erase(ref);
      }
      if (repository->second.settling == at) repository->second.settling = 0;
      if (repository->second.repacking == at) repository->second.repacking = 0;
      if (repository->second.forking == at) repository->second.forking = 0;
      if (repository->second.lastIndex == at) repositories_.erase(repository);
    }
    for (const auto& taken : flight.names) {
      auto name = names_.find(taken);
      if (name != names_.end() && name->second.index == at) names_.erase(name);
    }
    flights_.erase(flights_.begin());
  }
}

void Speculation::clear() {
  repositories_.clear();
  names_.clear();
  flights_.clear();
}

}  // namespace packmoor::gitlayer
