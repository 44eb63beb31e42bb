// FakeGitNode: a GitNode in memory, for tests of the protocol's two sides.
//
// It holds repositories as maps. A view is a copy of the state when it was taken. push() checks
// and applies transactions as the state machine does: compare-and-swap per ref, atomic or not,
// objects kept. Extents are kept in memory; a pushed pack is read by its index and every object
// in it becomes part of the repository, so that a wrong index shows.
#pragma once

#include "gitlayer/git_node.h"

#include <support/git_process.h>

#include <functional>
#include <map>

namespace packmoor::gitlayer::test {

struct FakeObject {
  ObjectType type = ObjectType::kNone;
  std::string data;
};

struct FakePack {
  std::shared_ptr<const std::string> pack, index;
  uint32_t objectCount = 0;
};

struct FakeState {
  uint64_t index = 1;
  RepositoryInfo info;
  std::map<std::string, Ref, std::less<>> refs;
  std::map<ObjectId, FakeObject> objects;   // hot and packed
  std::vector<FakePack> packs;
};

class FakeGitNode final : public GitNode {
 public:
  explicit FakeGitNode(kernelio::Env& env);

  // ---- For tests ----------------------------------------------------------------------------
  FakeState& addRepository(const std::string& name);
  FakeState& state(const std::string& name);   // of a repository that is there
  ObjectId addObject(const std::string& repository, ObjectType type, std::string data);
  void setRef(const std::string& repository, const std::string& name, const ObjectId& id,
              const ObjectId& peeled = {});
  // Takes over every object and ref of a git repository, and what its HEAD names.
  void import(const std::string& repository, packmoor::test::TestGit& git);

  GitOptions options_;
  std::vector<PushTransaction> pushed;         // without what moved into the state
  uint64_t viewsTaken = 0, freshViews = 0, extentsBegun = 0, extentsAbandoned = 0;
  // Called before a push is applied; may change the state, or answer itself.
  std::function<std::optional<PushOutcome>(PushTransaction&)> beforePush;
  // The next push waits for this before all else.
  kj::Maybe<kj::Promise<void>> holdPush;
  // The next fresh view likewise.
  kj::Maybe<kj::Promise<void>> holdView;
  // Called when a view is taken; may change the state.
  std::function<void(bool fresh)> beforeView;
  // When set, extents are files in this folder until they are sealed, else they are in memory.
  std::string extentFolder;
  // When set, writing this block of any extent fails.
  std::optional<uint64_t> failBlock;
  std::map<replicator::ExtentId, std::shared_ptr<std::string>> extents;  // sealed

  // ---- GitNode ------------------------------------------------------------------------------
  kj::Own<replicator::StateMachine> makeStateMachine(const replicator::VolumeRecord&) override;
  void attach(replicator::Replicator&) override {}
  kj::Promise<void> run() override { return kj::NEVER_DONE; }
  kj::Promise<kj::Maybe<kj::Own<RepositoryView>>> view(std::string name, bool fresh) override;
  kj::Promise<PushOutcome> push(RepositoryId repository, PushTransaction transaction) override;
  kj::Maybe<replicator::Volume&> volumeOf(RepositoryId) override { return nullptr; }
  kj::Promise<kj::Own<replicator::ReplicatedExtentWriter>> beginExtent(RepositoryId) override;
  replicator::Replicator& replicator() override;
  kernelio::Env& env() override { return env_; }
  const GitOptions& options() override { return options_; }
  kj::Promise<Changed> createRepository(std::string name, std::string volume, std::string head,
                                        std::string description) override;
  kj::Promise<Changed> deleteRepository(std::string name, bool forGood) override;
  kj::Promise<Changed> restoreRepository(std::string name, std::string to) override;
  kj::Promise<Changed> forkRepository(std::string, std::string, bool) override {
    KJ_UNIMPLEMENTED("fake");
  }
  kj::Promise<Changed> renameRepository(std::string name, std::string to) override;
  kj::Promise<std::vector<RepositoryInfo>> listDiscarded(size_t limit) override;
  kj::Promise<Changed> setRepository(std::string name, Settings changes) override;
  kj::Promise<std::vector<RepositoryInfo>> listRepositories(std::string after,
                                                            size_t limit) override;
  kj::Promise<Pruned> pruneRepository(PruneRequest request) override;
  uint64_t repositoryCountOf(replicator::Volume&) override { return repositoryCount(); }
  uint64_t repositoryCount() override { return repositories_.size(); }
  kj::Promise<std::vector<Digest>> verifyVolume(std::string volume) override;

 private:
  void applyObjects(FakeState& state, PushTransaction& transaction);

  kernelio::Env& env_;
  std::map<std::string, FakeState> repositories_;
};

// Every object of a pack, read by its version 2 index; ref-delta bases may lie in `known`.
// Throws when a name, an offset or a checksum in the index is wrong.
std::map<ObjectId, FakeObject> readPack(const std::string& pack, const std::string& index,
                                        const std::map<ObjectId, FakeObject>& known = {});

}  // namespace packmoor::gitlayer::test
