#include "gitlayer/git_node.h"
#include "gitlayer/txn_id.h"

#include "git_state_machine.h"
#include "maintenance.h"
#include "pruner.h"
#include "record_codec.h"
#include "verify_members.h"

#include "kernelio/check.h"
#include "kernelio/co.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

constexpr size_t kDescriptionBytesMax = 4096;
constexpr int64_t kReadyTimeoutMs = 10'000;

class GitNodeImpl final : public GitNode {
 public:
  GitNodeImpl(kernelio::Env& env, replicator::ExtentStore& extents, GitOptions options)
      : env_(env),
        extents_(extents),
        options_(options),
        packs_(env, extents),
        maintenance_(*this, extents) {}

  kj::Own<replicator::StateMachine> makeStateMachine(
      const replicator::VolumeRecord& volume) override {
    return kj::heap<GitStateMachine>(env_, extents_, packs_, options_, volume.id,
                                     [this]() { maintenance_.wake(); });
  }
  void attach(replicator::Replicator& replicator) override { replicator_ = replicator; }
  kj::Promise<void> run() override { return maintenance_.run(); }
  MaintenanceStatus maintenance() override { return maintenance_.status(); }

  kj::Promise<kj::Maybe<kj::Own<RepositoryView>>> view(std::string name, bool fresh) override {
    return viewOf(std::move(name), fresh);
  }
  kj::Promise<PushOutcome> push(RepositoryId repository, PushTransaction transaction) override {
    return pushTo(repository, std::move(transaction));
  }
  kj::Maybe<replicator::Volume&> volumeOf(RepositoryId repository) override;
  std::string repositoryName(replicator::Volume& volume, RepositoryId repository) override;
  replicator::Replicator& replicator() override {
    return KJ_REQUIRE_NONNULL(replicator_, "the git layer has no replicator yet");
  }
  kernelio::Env& env() override { return env_; }
  const GitOptions& options() override { return options_; }

  kj::Promise<Changed> createRepository(std::string name, std::string volume, std::string head,
                                        std::string description) override {
    return create(std::move(name), std::move(volume), std::move(head), std::move(description));
  }
  kj::Promise<Changed> deleteRepository(std::string name) override {
    return remove(std::move(name));
  }
  kj::Promise<Changed> setRepository(std::string name, Settings changes) override {
    return set(std::move(name), std::move(changes));
  }
  kj::Promise<std::vector<RepositoryInfo>> listRepositories(std::string after,
                                                            size_t limit) override;
  uint64_t repositoryCount() override;
  kj::Promise<Pruned> pruneRepository(PruneRequest request) override {
    return prune(std::move(request));
  }
  uint64_t repositoryCountOf(replicator::Volume& volume) override {
    return machineOf(volume).repositoryCount();
  }
  kj::Promise<std::vector<Digest>> verifyVolume(std::string volume) override {
    return verifyMembers(env_, replicator(), std::move(volume));
  }

 private:
  static GitStateMachine& machineOf(replicator::Volume& volume) {
    return kj::downcast<GitStateMachine>(volume.stateMachine());
  }
  // The volume whose state has a repository of that name.
  kj::Maybe<replicator::Volume&> volumeWith(std::string_view name);
  kj::Maybe<replicator::Volume&> emptiestVolume();

  Co<kj::Maybe<kj::Own<RepositoryView>>> viewOf(std::string name, bool fresh);
  Co<PushOutcome> pushTo(RepositoryId repository, PushTransaction transaction);
  Co<Changed> create(std::string name, std::string volume, std::string head,
                     std::string description);
  Co<Changed> remove(std::string name);
  Co<Changed> set(std::string name, Settings changes);
  Co<Pruned> prune(PruneRequest request);

  kernelio::Env& env_;
  replicator::ExtentStore& extents_;
  GitOptions options_;
  PackStore packs_;
  Maintenance maintenance_;
  kj::Maybe<replicator::Replicator&> replicator_;
  // One at a time, which bounds its memory. Shared: who asked may be dropped after this.
  std::shared_ptr<bool> pruning_ = std::make_shared<bool>(false);
};

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

GitNode::Changed problem(RepositoryProblem problem, std::string message) {
  GitNode::Changed changed;
  changed.problem = problem;
  changed.message = std::move(message);
  return changed;
}

PushOutcome outcomeOf(const ApplyResult& result, const PushTransaction& transaction,
                      replicator::RecordIndex index) {
  PushOutcome outcome;
  outcome.index = index;
  outcome.verifyAgain = result.status == ApplyResult::Status::kVerifyAgain;
  for (size_t i = 0; i < transaction.updates.size(); ++i) {
    RefOutcome ref;
    ref.name = transaction.updates[i].name;
    if (i < result.refProblems.size()) {
      ref.problem = result.refProblems[i];
      if (i < result.refDetails.size()) ref.detail = result.refDetails[i];
    } else if (result.status != ApplyResult::Status::kDone) {
      ref.problem = result.message;
    }
    outcome.refs.push_back(std::move(ref));
  }
  return outcome;
}

kj::Maybe<replicator::Volume&> GitNodeImpl::volumeOf(RepositoryId repository) {
  for (auto* volume : replicator().volumes()) {
    if (machineOf(*volume).holds(repository)) return *volume;
  }
  return nullptr;
}

std::string GitNodeImpl::repositoryName(replicator::Volume& volume, RepositoryId repository) {
  auto row = findRepository(*machineOf(volume).snapshot(), repository);
  return row.has_value() ? row->info.name : std::string();
}

kj::Maybe<replicator::Volume&> GitNodeImpl::volumeWith(std::string_view name) {
  for (auto* volume : replicator().volumes()) {
    if (machineOf(*volume).findByName(name).has_value()) return *volume;
  }
  return nullptr;
}

kj::Maybe<replicator::Volume&> GitNodeImpl::emptiestVolume() {
  replicator::Volume* best = nullptr;
  double fewest = 0;  // for its weight
  for (auto* volume : replicator().volumes()) {
    const uint32_t weight = volume->status().traits.weight;
    if (weight == 0) continue;  // it gets those that name it
    const double count = static_cast<double>(machineOf(*volume).repositoryCount()) / weight;
    if (best == nullptr || count < fewest) {
      best = volume;
      fewest = count;
    }
  }
  if (best == nullptr) return nullptr;
  return *best;
}

Co<kj::Maybe<kj::Own<RepositoryView>>> GitNodeImpl::viewOf(std::string name, bool fresh) {
  if (fresh) {
    // Where the repository is known already, only that volume need be caught up. Where it is not,
    // any of them may have just got it.
    auto known = volumeWith(name);
    KJ_IF_MAYBE(volume, known) {
      co_await volume->readBarrier();
    } else {
      co_await replicator().whenReady(kReadyTimeoutMs);
      auto barriers = kj::Vector<kj::Promise<void>>();
      for (auto* volume : replicator().volumes()) {
        // What this node has of a volume that it was removed from is not asked for.
        if (volume->status().role == replicator::VolumeRole::kNone) continue;
        barriers.add(volume->readBarrier().ignoreResult());
      }
      co_await kj::joinPromises(barriers.releaseAsArray());
    }
  }
  auto holder = volumeWith(name);
  KJ_IF_MAYBE(volume, holder) {
    // Stale is what was asked for; what is no part of the volume's history is not. A barrier sees to that.
    KJ_REQUIRE(fresh || volume->status().diverged.empty(),
               "This node's copy of the repository is diverged; use another node.", name);
    co_return machineOf(*volume).view(name);
  }
  for (auto* volume : replicator().volumes()) machineOf(*volume).requireOpened();
  co_return nullptr;
}

Co<PushOutcome> GitNodeImpl::pushTo(RepositoryId repository, PushTransaction transaction) {
  auto holder = volumeOf(repository);
  if (holder == nullptr) {
    for (auto* volume : replicator().volumes()) machineOf(*volume).requireOpened();
  }
  auto& volume = KJ_REQUIRE_NONNULL(holder, "The repository is gone from this node.", repository);
  if (transaction.txn.isNull()) {
    transaction.txn = makeTxnId(env_.random, transaction.verifiedAt);
  }
  replicator::Proposal proposal;
  proposal.txn = transaction.txn;
  proposal.kind = kRefTransaction;
  if (transaction.pack.has_value()) {
    proposal.extents = {transaction.pack->pack, transaction.pack->index};
  }
  proposal.sealedOn = transaction.sealedOn;
  proposal.payload = encodeRefTransaction(repository, transaction, env_.clock.nowMs());
  KJ_REQUIRE(proposal.payload.size() <= replicator::kRecordPayloadBytesMax,
             "The push is too large for one record: push fewer refs at once.",
             proposal.payload.size(), replicator::kRecordPayloadBytesMax);
  transaction.objects.clear();
  auto proposed = volume.propose(kj::mv(proposal));
  auto answer = co_await kj::mv(proposed);
  co_return outcomeOf(decodeResult(answer.result), transaction, answer.index);
}

Co<GitNode::Changed> GitNodeImpl::create(std::string name, std::string volumeName,
                                         std::string head, std::string description) {
  if (auto wrong = repositoryNameProblem(name)) {
    co_return problem(RepositoryProblem::kBadName, *wrong);
  }
  if (head.empty()) head = RepositoryInfo().head;
  if (!isValidRefName(head)) {
    co_return problem(RepositoryProblem::kBadName,
                      "HEAD must name a ref such as refs/heads/main, not " + quoted(head));
  }
  if (description.size() > kDescriptionBytesMax) {
    co_return problem(RepositoryProblem::kBadName, "the description is longer than 4096 bytes");
  }
  co_await replicator().whenReady(kReadyTimeoutMs);
  auto target = volumeName.empty() ? emptiestVolume()
                                   : replicator().findVolume(volumeName);
  auto existing = volumeWith(name);
  KJ_IF_MAYBE(volume, target) {
    if (existing != nullptr) {
      co_return problem(RepositoryProblem::kExists,
                        "a repository with the name " + quoted(name) + " exists");
    }
    RepositoryCreateRecord record;
    record.txn = makeTxnId(env_.random, machineOf(*volume).applied().index);
    env_.random.fill(kj::arrayPtr(record.repository.bytes.data(), record.repository.bytes.size()));
    record.name = name;
    record.description = description;
    record.head = head;
    record.timeMs = env_.clock.nowMs();
    replicator::Proposal proposal;
    proposal.txn = record.txn;
    proposal.kind = kRepositoryCreate;
    proposal.payload = encodeRepositoryCreate(record);
    auto proposed = volume->propose(kj::mv(proposal));
    auto answer = co_await kj::mv(proposed);
    const ApplyResult result = decodeResult(answer.result);
    if (result.status != ApplyResult::Status::kDone) {
      co_return problem(result.status == ApplyResult::Status::kExists
                            ? RepositoryProblem::kExists
                            : RepositoryProblem::kBadName,
                        result.message);
    }
    co_await volume->whenApplied(answer.index);  // so that this node shows it at once
    Changed changed;
    changed.index = answer.index;
    changed.info.id = record.repository;
    changed.info.name = record.name;
    changed.info.description = record.description;
    changed.info.head = record.head;
    changed.info.createdAtIndex = answer.index.value;
    changed.info.createdAtMs = record.timeMs;
    co_return kj::mv(changed);
  }
  co_return problem(RepositoryProblem::kNoVolume,
                    volumeName.empty() ? "this node has no volume"
                                       : "there is no volume " + quoted(volumeName));
}

Co<GitNode::Changed> GitNodeImpl::remove(std::string name) {
  auto found = co_await viewOf(name, true);
  auto holder = volumeWith(name);
  KJ_IF_MAYBE(view, found) {
    KJ_IF_MAYBE(volume, holder) {
      Changed changed;
      changed.info = (*view)->info();
      RepositoryDeleteRecord record;
      record.txn = makeTxnId(env_.random, (*view)->index());
      record.repository = changed.info.id;
      record.name = name;
      record.timeMs = env_.clock.nowMs();
      found = nullptr;  // the snapshot is not needed while waiting
      replicator::Proposal proposal;
      proposal.txn = record.txn;
      proposal.kind = kRepositoryDelete;
      proposal.payload = encodeRepositoryDelete(record);
      auto proposed = volume->propose(kj::mv(proposal));
      auto answer = co_await kj::mv(proposed);
      const ApplyResult result = decodeResult(answer.result);
      if (result.status == ApplyResult::Status::kDone) {
        changed.index = answer.index;
        co_return kj::mv(changed);
      }
    }
  }
  co_return problem(RepositoryProblem::kNotFound,
                    "there is no repository with the name " + quoted(name));
}

Co<GitNode::Changed> GitNodeImpl::set(std::string name, Settings changes) {
  if (changes.empty() || changes.size() > kSettingsMax) {
    co_return problem(RepositoryProblem::kBadSetting,
                      changes.empty() ? "no setting is given" : "too many settings at once");
  }
  for (Setting& change : changes) {
    if (auto wrong = normalizeSetting(change)) {
      co_return problem(RepositoryProblem::kBadSetting, *wrong);
    }
  }
  auto finding = viewOf(name, true);
  auto found = co_await kj::mv(finding);
  auto holder = volumeWith(name);
  KJ_IF_MAYBE(view, found) {
    KJ_IF_MAYBE(volume, holder) {
      RepositorySetRecord record;
      record.txn = makeTxnId(env_.random, (*view)->index());
      record.repository = (*view)->info().id;
      record.name = name;
      record.changes = std::move(changes);
      record.timeMs = env_.clock.nowMs();
      found = nullptr;  // the snapshot is not needed while waiting
      replicator::Proposal proposal;
      proposal.txn = record.txn;
      proposal.kind = kRepositorySet;
      proposal.payload = encodeRepositorySet(record);
      auto proposed = volume->propose(kj::mv(proposal));
      auto answer = co_await kj::mv(proposed);
      const ApplyResult result = decodeResult(answer.result);
      if (result.status == ApplyResult::Status::kRefused) {
        co_return problem(RepositoryProblem::kBadSetting, result.message);
      }
      if (result.status == ApplyResult::Status::kDone) {
        co_await volume->whenApplied(answer.index);  // so that this node shows it at once
        Changed changed;
        changed.index = answer.index;
        auto row = findRepository(*machineOf(*volume).snapshot(), record.repository);
        if (row.has_value()) changed.info = std::move(row->info);
        co_return kj::mv(changed);
      }
    }
  }
  co_return problem(RepositoryProblem::kNotFound,
                    "there is no repository with the name " + quoted(name));
}

Co<GitNode::Pruned> GitNodeImpl::prune(PruneRequest request) {
  Pruned pruned;
  auto pruning = pruning_;
  if (*pruning) {
    pruned.problem = RepositoryProblem::kBusy;
    pruned.message = "this node is pruning a repository already";
    co_return kj::mv(pruned);
  }
  *pruning = true;
  KJ_DEFER(*pruning = false);
  // A repository that was just created elsewhere is known behind a barrier.
  auto finding = viewOf(request.name, true);
  auto view = co_await kj::mv(finding);
  view = nullptr;
  auto holder = volumeWith(request.name);
  KJ_IF_MAYBE(volume, holder) {
    auto work = gitlayer::pruneRepository(env_, *volume, machineOf(*volume), std::move(request));
    pruned = co_await kj::mv(work);
    co_return kj::mv(pruned);
  }
  pruned.problem = RepositoryProblem::kNotFound;
  pruned.message = "there is no repository with the name " + quoted(request.name);
  co_return kj::mv(pruned);
}

// Repositories of one state, by name.
std::vector<RepositoryInfo> listState(const StateReader& state, const std::string& after,
                                      size_t limit) {
  std::vector<RepositoryInfo> infos;
  const std::string from =
      after.empty() ? std::string() : repositoryNameKey(after) + std::string(1, '\0');
  std::vector<RepositoryId> ids;
  state.scan(kRepositoryNamePrefix, from, [&](std::string_view, std::string_view id) {
    if (ids.size() == limit) return false;
    ids.push_back(uuidOf(id));
    return true;
  });
  for (const auto& id : ids) {
    auto row = findRepository(state, id);
    if (row.has_value()) infos.push_back(std::move(row->info));
  }
  return infos;
}

kj::Promise<std::vector<RepositoryInfo>> GitNodeImpl::listRepositories(std::string after,
                                                                       size_t limit) {
  std::vector<std::shared_ptr<const StateReader>> states;
  for (auto* volume : replicator().volumes()) states.push_back(machineOf(*volume).snapshot());
  return env_.workers.run([states = std::move(states), after = std::move(after), limit]() {
    std::vector<RepositoryInfo> all;
    for (const auto& state : states) {
      auto some = listState(*state, after, limit);
      std::move(some.begin(), some.end(), std::back_inserter(all));
    }
    std::sort(all.begin(), all.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    if (all.size() > limit) all.resize(limit);
    return all;
  });
}

uint64_t GitNodeImpl::repositoryCount() {
  uint64_t count = 0;
  for (auto* volume : replicator().volumes()) count += machineOf(*volume).repositoryCount();
  return count;
}

}  // namespace

kj::Own<GitNode> GitNode::create(kernelio::Env& env, replicator::ExtentStore& extents,
                                 GitOptions options) {
  return kj::heap<GitNodeImpl>(env, extents, options);
}

}  // namespace packmoor::gitlayer
