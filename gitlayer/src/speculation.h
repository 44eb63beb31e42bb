// Speculation: what accepted but not yet applied proposals will have changed (primary only).
//
// Why: many proposals of one repository may be in flight. A later one must be judged as if the
// earlier ones were applied, or a compare-and-swap that cannot succeed would be ordered, and a
// correct one refused. The same rules decide here and at apply (ref_rules.h), so what is
// accepted here has the same outcome there.
//
// One loop. Bounded by the proposals in flight, which the replicator bounds.
#pragma once

#include "record_applier.h"

#include <replicator/state_machine.h>

#include <map>
#include <optional>

namespace packmoor::gitlayer {

class Speculation {
 public:
  explicit Speculation(const StateReader& state) : state_(state) {}

  // As StateMachine::validate. `applied`: index of the newest applied record.
  replicator::Verdict validate(const replicator::Proposal& proposal, uint64_t index,
                               uint64_t applied);
  // Records up to the index are applied: they are in the state now.
  void applied(uint64_t index);
  void clear();
  size_t inFlight() const { return flights_.size(); }

 private:
  struct Repository {
    uint64_t lastIndex = 0;   // newest proposal that touches it
    uint64_t settling = 0;    // index of a settle in flight
    uint64_t repacking = 0;   // index of a repack in flight
    uint64_t forking = 0;     // index of the fork in flight that makes it
    uint64_t changing = 0;    // newest transaction, settle or repack in flight
    uint64_t pruning = 0;     // newest prune in flight
    uint64_t setting = 0;     // newest change of settings in flight
    std::optional<bool> exists;  // created or deleted in flight
    std::optional<bool> discarded;  // discarded or restored in flight
    struct Ref {
      uint64_t index = 0;
      std::optional<ObjectId> id;
    };
    std::map<std::string, Ref, std::less<>> refs;
  };
  struct Name {
    uint64_t index = 0;
    std::optional<RepositoryId> id;
  };
  struct Flight {             // what an accepted proposal touches
    RepositoryId repository;
    std::vector<std::string> refs, names;
  };
  class RefsInFlight;
  struct Judgement {
    ApplyResult result;
    bool accepted = false;
    RepositoryId repository;
  };

  Judgement judge(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgeRefs(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgeCreate(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgeDelete(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgeSet(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgeFork(const replicator::Proposal& proposal, uint64_t index);
  // Why a repository of that id and name cannot be made; nullopt: it can.
  std::optional<Judgement> makingProblem(const RepositoryId& id, const std::string& name) const;
  Judgement judgeNaming(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgeSettle(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgeRepack(const replicator::Proposal& proposal, uint64_t index);
  Judgement judgePrune(const replicator::Proposal& proposal, uint64_t index);
  // Rule 21, behind everything in flight. `row`: the repository's where it is applied.
  replicator::PruneGuard guardOf(const RepositoryId& id,
                                 const std::optional<RepositoryRow>& row) const;
  uint64_t lastSettingsOf(const RepositoryId& id, const std::optional<RepositoryRow>& row) const;
  bool repositoryExists(const RepositoryId& id) const;
  bool isDiscarded(const RepositoryId& id) const;
  bool isLive(const RepositoryId& id) const { return repositoryExists(id) && !isDiscarded(id); }
  std::optional<RepositoryId> holderOf(const std::string& name) const;
  void take(const std::string& name, std::optional<RepositoryId> holder, uint64_t index);
  uint64_t restsOn(const RepositoryId& id, uint64_t applied) const;

  const StateReader& state_;
  std::map<RepositoryId, Repository> repositories_;
  std::map<std::string, Name, std::less<>> names_;
  std::map<uint64_t, Flight> flights_;
};

}  // namespace packmoor::gitlayer
