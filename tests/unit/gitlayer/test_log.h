// TestLog: the smallest thing that drives a state machine as a volume does: one member, a log in
// memory, every proposal validated, ordered and applied.
//
// It can also hold applying back, so that several proposals are in flight, and start a second
// state machine from the log.
#pragma once

#include "gitlayer/git_node.h"

#include <replicator/state_machine.h>

#include <map>
#include <set>

namespace packmoor::gitlayer::test {

// Extents that exist by name only; remembers what is linked.
class LinkedExtents final : public replicator::ExtentStore {
 public:
  kj::Promise<kj::Own<replicator::ExtentWriter>> begin(replicator::ExtentId) override;
  bool isSealed(replicator::ExtentId) override { return false; }
  kj::Maybe<replicator::ExtentInfo> info(replicator::ExtentId) override { return nullptr; }
  kj::Promise<void> whenSealed(replicator::ExtentId) override { return kj::NEVER_DONE; }
  kj::Promise<kernelio::IoBuffer> readBlock(replicator::ExtentId, uint64_t) override;
  kj::Promise<void> repairBlock(replicator::ExtentId, uint64_t, kernelio::IoBuffer) override {
    return kj::READY_NOW;
  }
  kj::Array<replicator::Hash128> blockChecksums(replicator::ExtentId) override { return nullptr; }
  void pin(replicator::ExtentId) override {}
  void unpin(replicator::ExtentId) override {}
  void link(replicator::ExtentId id) override { linked.insert(id); }
  void unlink(replicator::ExtentId id) override { linked.erase(id); }
  void startExpiry() override {}
  kj::String path(replicator::ExtentId id) override { return kj::str("extents/", id, ".data"); }
  replicator::ExtentStatistics statistics() override { return {}; }
  kj::Array<replicator::ExtentInfo> list() override { return nullptr; }
  kj::ArrayPtr<const kj::String> damage() override { return nullptr; }

  std::set<replicator::ExtentId> linked;
};

class TestLog {
 public:
  explicit TestLog(replicator::StateMachine& machine) : machine_(machine) {}

  // Opens the machine and applies what the log has beyond its position.
  void open(kj::WaitScope& scope);
  // Validates; when accepted, appends. Nothing is applied.
  replicator::Verdict order(const replicator::Proposal& proposal);
  // Applies everything that was ordered; returns the results by index.
  std::map<uint64_t, kj::Array<const kj::byte>> applyAll(kj::WaitScope& scope);
  // order() and applyAll(): the result of the proposal, or of the verdict.
  replicator::TxnResult submit(const replicator::Proposal& proposal, kj::WaitScope& scope);
  // Appends a record that nobody validated.
  void append(replicator::RecordKind kind, kj::ArrayPtr<const kj::byte> payload);

  uint64_t last() const { return records.size(); }
  std::vector<replicator::RecordRef> records;

 private:
  replicator::StateMachine& machine_;
};

// Proposals of each kind.
replicator::TxnId txnId(uint64_t number);
RepositoryId repositoryId(uint64_t number);
ObjectId oid(uint64_t number);
replicator::Proposal createProposal(uint64_t txn, uint64_t repository, const std::string& name);
replicator::Proposal deleteProposal(uint64_t txn, uint64_t repository, const std::string& name);
replicator::Proposal setProposal(uint64_t txn, uint64_t repository, Settings changes);
replicator::Proposal pushProposal(uint64_t repository, PushTransaction transaction);
// One ref update; 0 stands for the zero id.
RefUpdate update(const std::string& name, uint64_t oldId, uint64_t newId, bool forward = true);
PushTransaction transaction(uint64_t txn, std::vector<RefUpdate> updates, bool atomic = false);
// A blob as a push would bring it.
NewObject blob(const std::string& content);

}  // namespace packmoor::gitlayer::test
