// StateMachineTest: one state machine over a log in memory and the simulator's store, which forgets at a
// crash what was not flushed.
#pragma once

#include "git_state_machine.h"
#include "record_codec.h"
#include "test_log.h"

#include <kernelio/sim_env.h>

#include <gtest/gtest.h>

namespace packmoor::gitlayer::test {

inline replicator::VolumeId volumeId() { return repositoryId(99); }

class StateMachineTest : public testing::Test {
 public:
  ~StateMachineTest() noexcept {}

 protected:
  kernelio::VirtualLoop loop;
  kernelio::SimStorage storage{7};
  kj::Own<kernelio::SimEnv> env = kj::heap<kernelio::SimEnv>(loop, storage, 1);
  LinkedExtents extents;
  GitOptions options;
  int settleWanted = 0;
  kj::Own<PackStore> packs;
  kj::Own<GitStateMachine> machine;
  kj::Own<TestLog> log;

  void SetUp() override { start({}); }

  void start(std::vector<replicator::RecordRef> records) {
    packs = kj::heap<PackStore>(env->env(), extents);
    machine = kj::heap<GitStateMachine>(env->env(), extents, *packs, options, volumeId(), [this]() { ++settleWanted; });
    log = kj::heap<TestLog>(*machine);
    log->records = std::move(records);
    log->open(loop.waitScope());
  }
  // Power is lost: only what was flushed stays. The journal has the records.
  void crash() {
    auto records = log->records;
    log = nullptr;
    machine = nullptr;
    packs = nullptr;
    env = nullptr;
    storage.cutPower();
    storage.crash();
    env = kj::heap<kernelio::SimEnv>(loop, storage, 2);
    extents.linked.clear();
    start(std::move(records));
  }

  ApplyResult submit(const replicator::Proposal& proposal) {
    return decodeResult(log->submit(proposal, loop.waitScope()).result);
  }
  ApplyResult push(PushTransaction transaction) {
    return submit(pushProposal(1, std::move(transaction)));
  }
  kj::Own<RepositoryView> view(const std::string& name = "project") {
    auto found = machine->view(name);
    return kj::mv(KJ_ASSERT_NONNULL(found));
  }
  uint64_t ref(const std::string& name) {
    auto found = view()->ref(name);
    for (uint64_t number = 1; found.has_value() && number < 100; ++number) {
      if (found->id == oid(number)) return number;
    }
    return 0;
  }
  std::string dump() {
    std::string all;
    machine->snapshot()->scan("", "", [&](std::string_view key, std::string_view value) {
      all.append(key).append("=").append(value).append("\n");
      return true;
    });
    return all;
  }
};

}  // namespace packmoor::gitlayer::test
