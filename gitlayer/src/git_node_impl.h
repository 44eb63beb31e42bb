// GitNodeImpl: what a node does with its volumes' repositories. Views, pushes and lists are in git_node.cc;
// what makes, names, sets and deletes repositories is in git_node_changes.cc.
#pragma once

#include "gitlayer/git_node.h"

#include "git_state_machine.h"
#include "maintenance.h"
#include "pack_store.h"
#include "verify_members.h"

#include <kernelio/co.h>

namespace packmoor::gitlayer {

constexpr int64_t kVolumesReadyTimeoutMs = 10'000;

// In sentences.
inline std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

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
  std::optional<std::string> formerText(std::string_view name) override;
  replicator::Replicator& replicator() override {
    return KJ_REQUIRE_NONNULL(replicator_, "the git layer has no replicator yet");
  }
  kernelio::Env& env() override { return env_; }
  const GitOptions& options() override { return options_; }

  kj::Promise<Changed> createRepository(std::string name, std::string volume, std::string head,
                                        std::string description) override {
    return create(std::move(name), std::move(volume), std::move(head), std::move(description));
  }
  kj::Promise<Changed> deleteRepository(std::string name, bool forGood) override {
    return remove(std::move(name), forGood);
  }
  kj::Promise<Changed> renameRepository(std::string name, std::string to) override {
    return rename(std::move(name), std::move(to));
  }
  kj::Promise<Changed> restoreRepository(std::string name, std::string to) override {
    return restore(std::move(name), std::move(to));
  }
  kj::Promise<Changed> forkRepository(std::string parent, std::string name,
                                      bool defaultBranchOnly) override {
    return fork(std::move(parent), std::move(name), defaultBranchOnly);
  }
  kj::Promise<Changed> setRepository(std::string name, Settings changes) override {
    return set(std::move(name), std::move(changes));
  }
  kj::Promise<std::vector<RepositoryInfo>> listRepositories(std::string after,
                                                            size_t limit) override;
  kj::Promise<std::vector<RepositoryInfo>> listDiscarded(size_t limit) override;
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
  Co<Changed> remove(std::string name, bool forGood);
  Co<Changed> set(std::string name, Settings changes);
  Co<Changed> rename(std::string name, std::string to);
  Co<Changed> restore(std::string name, std::string to);
  Co<Changed> fork(std::string parent, std::string name, bool defaultBranchOnly);
  Co<Changed> order(replicator::Volume& volume, RepositoryInfo repository,
                    replicator::Proposal proposal);
  // The repository that a change names, behind a read that is confirmed.
  struct Target {
    replicator::Volume* volume = nullptr;   // nullptr: there is none
    RepositoryInfo info;
    replicator::TxnId txn;                  // for the change
  };
  Co<Target> find(std::string name);
  // The newest of those that are discarded and had the name.
  Co<Target> findDiscarded(std::string name);
  Changed notFound(std::string_view name);
  replicator::Proposal naming(replicator::RecordKind kind, const Target& target, std::string to);
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

}  // namespace packmoor::gitlayer
