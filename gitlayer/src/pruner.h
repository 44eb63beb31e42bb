// Pruner: computes what nothing reaches in a repository, and orders a record that drops it everywhere.
//
// It works on any member: from a confirmed view, on the workers, through the primary. A push that comes
// meanwhile makes the record void (rule 21); then it goes on from a newer view, which takes milliseconds,
// until it is quicker than the pushes, kPruneAttemptsMax times at most.
// Cancelling leaves nothing behind, but a record that was proposed may still be applied.
// Loop: the node's.
#pragma once

#include "git_state_machine.h"

#include <replicator/volume.h>

namespace packmoor::gitlayer {

constexpr uint32_t kPruneAttemptsMax = 20;

Co<GitNode::Pruned> pruneRepository(kernelio::Env& env, replicator::Volume& volume,
                                    GitStateMachine& machine, GitNode::PruneRequest request);

}  // namespace packmoor::gitlayer
