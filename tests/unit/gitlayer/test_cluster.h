// TestCluster: git nodes with real state machines and extents, and the simplest log between them.
//
// Every member has an Env, an extent store and a GitNode of its own, and one volume, "main". A
// proposal on any member is validated by the first member's state machine, becomes a record, and is
// applied on every member in turn; nothing fails in between. What the replicator would do beyond
// that (quorum, epochs, streams) is not here.
#pragma once

#include "git_state_machine.h"

#include <kernelio/real_env.h>
#include <kernelio/sim_env.h>
#include <replicator/replicator.h>
#include <support/temp_dir.h>

#include <map>

namespace packmoor::gitlayer::test {

// Where the members run: one loop, an Env for each.
class Ground {
 public:
  virtual ~Ground() noexcept(false) {}
  virtual kj::WaitScope& scope() = 0;
  virtual size_t add() = 0;                     // a new member's Env
  virtual kernelio::Env& env(size_t member) = 0;
  virtual void setCapacity(size_t, uint64_t) {}  // of a simulated disk
  virtual void crash(size_t member) = 0;        // everything that uses the Env is gone already
};
kj::Own<Ground> realGround();                   // files, RocksDB, worker threads
kj::Own<Ground> simGround(uint64_t seed = 1);   // a simulated disk, the map store

class TestCluster {
 public:
  TestCluster(kj::Own<Ground> ground, size_t members, GitOptions options = {});
  ~TestCluster() noexcept(false);

  kj::WaitScope& scope() { return ground->scope(); }
  GitNode& node(size_t member = 0);
  GitStateMachine& machine(size_t member = 0);
  replicator::ExtentStore& extents(size_t member = 0);
  replicator::Replicator& replicator(size_t member = 0);
  replicator::Volume& volume(size_t member = 0);

  // Stops a member as a power cut would, starts it again, applies what its state lacks.
  void restart(size_t member);
  void start(size_t member);
  void stop(size_t member);

  RepositoryInfo create(const std::string& name);
  PushOutcome push(const RepositoryInfo& repository, PushTransaction transaction,
                   size_t member = 0);
  kj::Own<RepositoryView> view(const std::string& name, size_t member = 0);
  // Seals the same bytes on every member.
  replicator::ExtentId seal(kj::ArrayPtr<const kj::byte> content);
  // All rows of a member's state, for comparing.
  std::string dump(size_t member);

  kj::Promise<replicator::ProposeOutcome> propose(replicator::Proposal proposal);

  kj::Own<Ground> ground;
  GitOptions options;
  std::vector<replicator::RecordRef> log;
  // Called with each record before it is applied on the members after the first.
  std::function<void(const replicator::Record&)> beforeOthers;

 private:
  class FakeVolume;
  class FakePeer;
  class FakeExtent;
  class FakeReplicator;
  struct Member {
    kj::Own<replicator::ExtentStore> extents;
    kj::Own<GitNode> node;
    kj::Own<FakeReplicator> replicator;
    kj::Own<FakeVolume> volume;
  };
  replicator::ExtentId newExtent();
  Co<replicator::ProposeOutcome> order(replicator::Proposal proposal);

  std::vector<kj::Own<Member>> members_;
  kj::Promise<void> last_ = kj::READY_NOW;  // proposals are ordered one by one
  uint64_t nextExtent_ = 1;
};

}  // namespace packmoor::gitlayer::test
