// GitNode: the git side of a node. Makes the state machines of its volumes, finds repositories,
// creates and deletes them, takes pushes to the log and keeps the stores settled.
//
// Order of construction: GitNode, Replicator (with makeStateMachine), attach(), run().
// One owner: the node (tools/packmoord). Loop: the node's.
#pragma once

#include "gitlayer/repository.h"

#include <kernelio/env.h>
#include <replicator/replicator.h>

#include <kj/async.h>

namespace packmoor::gitlayer {

struct GitOptions {
  size_t inlinePackBytesMax = 256u << 10;     // larger pushes go to extents
  uint64_t packBytesMax = 16ull << 30;        // per push
  uint32_t commandsMax = 100'000;             // per push
  uint64_t heldObjectBytesMax = 512ull << 20;  // that must lie in memory to be read (pack_parser.h)
  uint64_t expansionMax = 2000;               // deltas of a push make so many times its bytes, or 64 GiB
  uint64_t stateCacheBytes = 64ull << 20;     // block cache of the state store, per volume
  uint64_t refCacheBytes = 128ull << 20;      // encoded lists of refs, per volume; 0: none
  uint64_t settleObjects = 8000;              // hot objects of a repository before settling
  uint64_t settleBytes = 32ull << 20;
  uint32_t packBuildsMax = 2;                 // at once; more wait in a queue
  uint64_t fetchCacheBytes = 0;               // of packs kept for later requests; 0: none
  uint32_t repackPacks = 8;                   // as many small packs are merged at once; 0: never
  uint64_t repackBytesMax = 4ull << 30;       // that one merge takes; larger packs stay as they are
  uint64_t repackBytesPerSecond = 32ull << 20;  // at which a merge reads; 0: as fast as it can
  int64_t discardedKeepMs = 7 * 24 * 3600 * 1000ll;   // deleted repositories, before they are dropped
};

struct PackExtents {
  replicator::ExtentId pack, index;           // both sealed
  uint64_t packBytes = 0;
  uint32_t objectCount = 0;
};

struct NewObject {                            // of a small push, as it will lie in the state
  ObjectId id;
  ObjectType type = ObjectType::kNone;
  uint64_t bytes = 0;
  kj::Array<const kj::byte> deflated;         // a complete zlib stream
};

struct RefUpdate {
  std::string name;
  ObjectId oldId, newId;                      // zero: must be absent; delete
  ObjectId peeled;                            // of newId when it is a tag, else zero
  bool forward = false;                       // newId descends from oldId, or oldId is zero
};

struct PushTransaction {
  replicator::TxnId txn;
  std::vector<RefUpdate> updates;
  std::vector<NewObject> objects;
  std::optional<PackExtents> pack;
  std::vector<replicator::NodeId> sealedOn;
  replicator::RecordIndex verifiedAt;         // the view's index that connectivity rests on
  bool atomic = false;
  std::string principal;                      // who, as the front knows it; empty: anonymous
  std::string client;                         // the address that the push came from, or empty
  std::vector<std::string> pushOptions;
};

struct RefOutcome {
  std::string name;
  std::string problem;                        // empty: done; else git's wording
  std::string detail;                         // more, for the person at the terminal; may be empty
};
struct PushOutcome {
  replicator::RecordIndex index;              // the push's LSN
  std::vector<RefOutcome> refs;               // one per update, in order
  bool verifyAgain = false;                   // objects were pruned (rule 21) or settings changed meanwhile
};

enum class RepositoryProblem : uint8_t {
  kNone, kExists, kNotFound, kBadName, kNoVolume, kBusy, kBadSetting
};

class GitNode {
 public:
  static kj::Own<GitNode> create(kernelio::Env& env, replicator::ExtentStore& extents,
                                 GitOptions options);
  virtual ~GitNode() noexcept(false) {}

  virtual kj::Own<replicator::StateMachine> makeStateMachine(
      const replicator::VolumeRecord& volume) = 0;
  virtual void attach(replicator::Replicator& replicator) = 0;
  virtual kj::Promise<void> run() = 0;        // maintenance; until dropped

  struct MaintenanceLane {
    uint64_t done = 0;                        // since this node started
    uint32_t failures = 0;                    // in a row, of the repository with most of them
    std::string lastError;                    // a sentence; may be of one that succeeded since
    RepositoryId repository;                  // that is worked on; null: none
  };
  struct MaintenanceStatus {
    MaintenanceLane settling, repacking, dropping;   // dropping: what was deleted and kept long enough
  };
  virtual MaintenanceStatus maintenance() { return {}; }

  // The repository as of a linearizable read (`fresh`), or as this node has it now.
  // nullptr: no such repository. `name` without ".git".
  virtual kj::Promise<kj::Maybe<kj::Own<RepositoryView>>> view(std::string name, bool fresh) = 0;

  // Orders the push; resolves as Volume::propose does. `repository` is the id in the view.
  virtual kj::Promise<PushOutcome> push(RepositoryId repository, PushTransaction transaction) = 0;
  // The volume that holds the repository, for replicated extents. nullptr: not known here.
  virtual kj::Maybe<replicator::Volume&> volumeOf(RepositoryId repository) = 0;
  // Begins an extent here and on every member of the repository's volume.
  virtual kj::Promise<kj::Own<replicator::ReplicatedExtentWriter>> beginExtent(
      RepositoryId repository);
  virtual replicator::Replicator& replicator() = 0;
  virtual kernelio::Env& env() = 0;
  virtual const GitOptions& options() = 0;

  struct Changed {
    RepositoryProblem problem = RepositoryProblem::kNone;
    std::string message;                      // a sentence when there is a problem
    RepositoryInfo info;
    RepositoryStatistics statistics;
    replicator::RecordIndex index;
  };
  // `volume` empty: the one with fewest repositories for its weight among this node's.
  virtual kj::Promise<Changed> createRepository(std::string name, std::string volume,
                                                std::string head, std::string description) = 0;
  // Not `forGood`: it loses its name and is kept for GitOptions::discardedKeepMs, to be restored. For good:
  // also the newest that is kept so, where none has the name.
  virtual kj::Promise<Changed> deleteRepository(std::string name, bool forGood) = 0;
  // The newest that was deleted with the name, and is kept, is named `to`; empty: as it was.
  virtual kj::Promise<Changed> restoreRepository(std::string name, std::string to) = 0;
  virtual kj::Promise<Changed> renameRepository(std::string name, std::string to) = 0;
  // A new repository in the parent's volume with what the parent has: refs (or only what HEAD names), objects,
  // which are shared, settings. From then on the two have nothing to do with each other.
  virtual kj::Promise<Changed> forkRepository(std::string parent, std::string name,
                                              bool defaultBranchOnly) = 0;
  // Sets and unsets settings of a repository in one step, HEAD and description among them.
  virtual kj::Promise<Changed> setRepository(std::string name, Settings changes) = 0;
  // By name, after `after`, at most `limit`.
  virtual kj::Promise<std::vector<RepositoryInfo>> listRepositories(std::string after,
                                                                    size_t limit) = 0;
  // Those that are deleted and kept: by name, the newest first.
  virtual kj::Promise<std::vector<RepositoryInfo>> listDiscarded(size_t limit) = 0;
  virtual uint64_t repositoryCount() = 0;     // those that are discarded included
  // What became of the repository that had the name, as far as this node knows: a sentence without its end.
  virtual std::optional<std::string> formerText(std::string_view name) { return std::nullopt; }
  std::string missingText(std::string_view name);   // that, or that there is none
  // As this node's newest state has it; empty: it does not know the repository.
  virtual std::string repositoryName(replicator::Volume& volume, RepositoryId repository) {
    return {};
  }

  // Drops what nothing reaches: hot objects, and packs in which nothing is reached.
  struct PruneRequest {
    std::string name;
    int64_t graceMs = 0;                      // what came within this time is kept
    bool dryRun = false;                      // only says what would be dropped
  };
  struct Pruned {
    RepositoryProblem problem = RepositoryProblem::kNone;
    std::string message;                      // a sentence when there is a problem
    RepositoryInfo info;
    replicator::RecordIndex index;            // of the record, or of the state when nothing was dropped
    uint64_t objects = 0, objectBytes = 0;    // hot objects that were dropped; as they were stored
    uint64_t packs = 0, packBytes = 0, packedObjects = 0;
    uint64_t kept = 0;                        // objects
    uint32_t attempts = 0;                    // pushes made all but the last void
  };
  virtual kj::Promise<Pruned> pruneRepository(PruneRequest request) = 0;
  virtual uint64_t repositoryCountOf(replicator::Volume& volume) = 0;   // as this node has it

  // What one member found at one index of a volume: roots over its tables and objects.
  struct Digest {
    replicator::NodeId node;
    replicator::RecordIndex index;
    std::string refs, repositories, objects;  // hex roots; equal on equal members
    uint64_t refCount = 0, repositoryCount = 0, objectCount = 0;
    std::string problem;                      // empty, or why there is none
  };
  // Orders a verification record and asks every member for its digest at that index.
  virtual kj::Promise<std::vector<Digest>> verifyVolume(std::string volume) = 0;
};

}  // namespace packmoor::gitlayer
