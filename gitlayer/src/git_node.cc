#include "git_node_impl.h"

#include "gitlayer/txn_id.h"
#include "pruner.h"
#include "record_codec.h"

#include <kj/debug.h>

#include <algorithm>
#include <tuple>

namespace packmoor::gitlayer {

namespace {

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

}  // namespace

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
      co_await replicator().whenReady(kVolumesReadyTimeoutMs);
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
  pruned.message = missingText(request.name);
  co_return kj::mv(pruned);
}

// Repositories of one state, by name.
static std::vector<RepositoryInfo> listState(const StateReader& state, const std::string& after,
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

kj::Promise<std::vector<RepositoryInfo>> GitNodeImpl::listDiscarded(size_t limit) {
  struct Discarded {
    std::shared_ptr<const StateReader> state;
    std::vector<RepositoryId> ids;
  };
  std::vector<Discarded> volumes;
  for (auto* volume : replicator().volumes()) {
    GitStateMachine& machine = machineOf(*volume);
    volumes.push_back({machine.snapshot(), machine.discardedUntil(INT64_MAX)});
  }
  return env_.workers.run([volumes = std::move(volumes), limit]() {
    std::vector<RepositoryInfo> all;
    for (const auto& volume : volumes) {
      for (const auto& id : volume.ids) {
        auto row = findRepository(*volume.state, id);
        if (row.has_value() && row->info.discardedAtIndex != 0) all.push_back(std::move(row->info));
      }
    }
    // Of one volume the log tells which is the newest, of several only the fronts' clocks.
    std::sort(all.begin(), all.end(), [](const RepositoryInfo& a, const RepositoryInfo& b) {
      return std::tie(a.name, b.discardedAtMs, b.discardedAtIndex) <
             std::tie(b.name, a.discardedAtMs, a.discardedAtIndex);
    });
    if (all.size() > limit) all.resize(limit);
    return all;
  });
}

std::optional<std::string> GitNodeImpl::formerText(std::string_view name) {
  for (auto* volume : replicator().volumes()) {
    const auto row = findFormer(*machineOf(*volume).snapshot(), name);
    if (!row.has_value()) continue;
    const std::string text = "there is no repository with the name " + quoted(name) + " any more: it ";
    if (row->info.discardedAtIndex == 0) return text + "is called " + quoted(row->info.name) + " now";
    return text + "was deleted, and can be brought back for a while with `packmoorctl repo undelete " +
           row->info.name + "`";
  }
  return std::nullopt;
}

uint64_t GitNodeImpl::repositoryCount() {
  uint64_t count = 0;
  for (auto* volume : replicator().volumes()) count += machineOf(*volume).repositoryCount();
  return count;
}

kj::Own<GitNode> GitNode::create(kernelio::Env& env, replicator::ExtentStore& extents,
                                 GitOptions options) {
  return kj::heap<GitNodeImpl>(env, extents, options);
}

}  // namespace packmoor::gitlayer
