// GitStateMachine: a volume's repositories, refs and objects as its log makes them.
//
// Why: the journal is the only truth; this is what it means. Everything here can be dropped and
// built again from the last flushed position and the records after it.
//
// apply() works on the loop for small groups of records and on a worker for large ones; what is
// read besides goes through snapshots. Reading single rows on the loop is meant to hit memory.
//
// Durability: the state store's (state_store.h). What a record drops (packs, folders) is let go
// only after the flush that makes the drop durable, since records are applied again from there.
// Owner: the volume; GitNode reaches it through Volume::stateMachine(). Loop: the node's.
#pragma once

#include "digest_keeper.h"
#include "gitlayer/git_node.h"
#include "pack_links.h"
#include "pack_store.h"
#include "reach_notes.h"
#include "record_applier.h"
#include "ref_book.h"
#include "speculation.h"
#include "state_store.h"

#include <kernelio/co.h>
#include <replicator/state_machine.h>

#include <map>
#include <set>

namespace packmoor::gitlayer {

class GitStateMachine final : public replicator::StateMachine {
 public:
  // `maintenanceWanted` is called when a repository has come to have many hot objects or packs.
  GitStateMachine(kernelio::Env& env, replicator::ExtentStore& extents, PackStore& packs,
                  const GitOptions& options, replicator::VolumeId volume,
                  kj::Function<void()> maintenanceWanted);
  ~GitStateMachine() noexcept(false);

  kj::Promise<replicator::LogPosition> open() override;
  kj::Promise<std::vector<kj::Array<const kj::byte>>> apply(
      std::vector<replicator::RecordRef> records) override;
  replicator::LogPosition applied() override { return applied_; }
  std::string problem() override { return problem_; }
  replicator::Verdict validate(const replicator::Proposal& proposal,
                               replicator::RecordIndex index) override;
  void endSpeculation() override;
  kj::Maybe<replicator::TxnResult> findResult(const replicator::TxnId& txn) override;
  kj::Promise<replicator::LogPosition> flush() override;
  uint64_t unflushedBytes() override;
  kj::Promise<void> removeState() override { return env_.disk.removeTree(folder_); }
  void journalCheckpoint(replicator::LogPosition position) override { checkpoint_ = position; }
  kj::Promise<replicator::CheckpointContent> makeCheckpoint(std::string folder) override;
  kj::Promise<void> stageCheckpoint(std::string folder,
                                    replicator::LogPosition position) override;
  kj::Promise<void> switchToStaged(replicator::LogPosition position) override;
  std::string damage() override { return damage_->text(); }
  kj::Promise<void> rememberDamage() override;
  void abandon(std::string reason) override;
  kj::Promise<std::vector<replicator::StoredFile>> storedFiles() override;
  kj::Promise<void> verifyStored(std::string name, replicator::Pace& pace) override;
  std::string holds() override;
  kj::Promise<void> discard() override;
  kj::Promise<kj::Array<kj::byte>> query(std::string name,
                                         kj::Array<const kj::byte> question) override;

  // Throws a sentence where the state is damaged, and not here yet from another member.
  void requireOpened() const;
  // For GitNode; after open(). The newest applied state.
  std::optional<RepositoryId> findByName(std::string_view name);
  bool holds(const RepositoryId& id);
  // The newest state of a repository; nullptr when there is none with the name.
  kj::Maybe<kj::Own<RepositoryView>> view(std::string_view name);
  // The same in a state that snapshot() gave: records are applied on workers meanwhile.
  kj::Maybe<kj::Own<RepositoryView>> view(std::string_view name,
                                          std::shared_ptr<const StateReader> state);
  uint64_t repositoryCount() const { return repositoryCount_; }
  std::shared_ptr<const StateReader> snapshot();
  // Repositories with more hot objects than the options allow for long.
  std::vector<RepositoryId> settleCandidates() const {
    return {settleCandidates_.begin(), settleCandidates_.end()};
  }
  // Repositories with so many packs that some may be worth merging.
  std::vector<RepositoryId> repackCandidates() const {
    return {repackCandidates_.begin(), repackCandidates_.end()};
  }
  // Repositories that were discarded at this time or before, by the clocks of those who ordered it.
  std::vector<RepositoryId> discardedUntil(int64_t timeMs) const;
  // The packs of a repository in a state, for reading.
  std::vector<std::shared_ptr<PackFile>> openPacks(const std::vector<PackRow>& rows);
  PackLinks& links() { return links_; }
  // The pack of a settle record that this node is about to propose holds these objects: spares
  // looking for them again when the record comes back.
  void builtAhead(const replicator::ExtentId& pack, std::vector<ObjectId> objects) {
    ahead_ = Ahead{pack, std::move(objects)};
  }

 private:
  using Records = kj::ArrayPtr<const replicator::RecordRef>;
  struct Written {
    std::vector<kj::Array<const kj::byte>> results;
    ApplyEffects effects;
  };

  // A state's folder by its name: of the record that its checkpoint was of (0: the first state), and
  // which one of that.
  struct Generation {
    uint64_t index = 0, number = 0;
    auto operator<=>(const Generation&) const = default;
  };
  static std::optional<Generation> generationOf(std::string_view name);

  kj::Maybe<kj::Own<RepositoryView>> viewOf(std::string_view name,
                                            std::shared_ptr<const StateReader> state,
                                            std::shared_ptr<RefBooks> books);

  // git_state_folders.cc: which state there is on the disk, and checkpoints of it.
  Co<replicator::LogPosition> openStore();
  Co<Generation> chooseFolder();
  Co<void> recallDamage();
  Co<std::shared_ptr<StateStore>> openFolder(std::string folder,
                                             std::shared_ptr<StateDamage> damage);
  Co<std::vector<PackLink>> useStore(std::shared_ptr<StateStore> store);
  Co<replicator::CheckpointContent> writeCheckpoint(std::string folder);
  Co<void> stage(std::string folder, replicator::LogPosition position);
  Co<void> switchTo(replicator::LogPosition position);
  Co<void> discardAll();
  std::string stateFolder(const Generation& generation) const;
  std::string damageNote() const { return folder_ + "/damage"; }
  StateStore& openedStore();     // or requireOpened() throws
  Co<std::vector<kj::Array<const kj::byte>>> applyAll(std::vector<replicator::RecordRef> records);
  // Applies records that are consecutive and of which only the last may be a verification.
  Co<std::vector<kj::Array<const kj::byte>>> applyRun(std::vector<replicator::RecordRef> run,
                                                      std::vector<ObjectId> settled);
  // One batch. On any thread.
  static Written write(StateStore& store, Records records, const std::vector<ObjectId>& settled);
  // Makes sure that the pack of a settle record is sealed here and is the one that the record says.
  struct Settling {
    std::vector<ObjectId> objects;
    std::vector<replicator::ExtentId> pinned;
  };
  Co<Settling> prepareSettle(replicator::RecordRef record);
  // The disk is full: says so, and waits before the next attempt. Anything else is thrown on.
  Co<void> waitForRoom(kj::Exception failure);
  void useExtents(const PackRow& pack);
  void noteWork(const RepositoryId& id, const RepositoryStatistics& statistics);
  Co<void> follow(ApplyEffects effects);
  void letGo(const ApplyEffects& dropped);
  Co<replicator::LogPosition> flushStore();

  kernelio::Env& env_;
  replicator::ExtentStore& extents_;
  PackStore& packs_;
  const GitOptions& options_;
  replicator::VolumeId volume_;
  std::string folder_;                       // of the volume, below the disk's root
  Generation generation_, staged_;           // of the state that is in use; of the one that is to be
  replicator::LogPosition checkpoint_;       // by the journal, at start
  std::shared_ptr<StateStore> store_;        // set by open(); workers share it; null: damaged
  std::shared_ptr<StateDamage> damage_ = std::make_shared<StateDamage>();
  kj::Maybe<Speculation> speculation_;       // likewise
  std::shared_ptr<ReachNotes> reachNotes_;   // of that state
  std::shared_ptr<RefBooks> refBooks_;       // of that state
  replicator::LogPosition applied_;
  std::string problem_;
  uint64_t repositoryCount_ = 0;
  ApplyEffects dropped_;                     // packs and repositories to let go after a flush
  // How many repositories of the newest state name a pack: a fork shares those of its parent.
  std::map<replicator::ExtentId, uint32_t> packUsers_;
  PackLinks links_;
  DigestKeeper digests_;
  std::set<RepositoryId> settleCandidates_, repackCandidates_;
  std::map<RepositoryId, int64_t> discarded_;   // since when
  struct Ahead {
    replicator::ExtentId pack;
    std::vector<ObjectId> objects;
  };
  std::optional<Ahead> ahead_;
  kj::Function<void()> maintenanceWanted_;
};

}  // namespace packmoor::gitlayer
