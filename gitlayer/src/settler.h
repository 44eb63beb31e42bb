// Settler: the primary's maintenance that orders settling, one repository at a time per node.
//
// It builds the pack from a snapshot off the loop, seals it here ahead of the record, and proposes.
// The other members build it when they apply the record. A proposal that fails leaves two sealed
// extents that expire; the repository is tried again later.
// Loop: the node's.
#pragma once

#include "git_state_machine.h"

#include <replicator/volume.h>

namespace packmoor::gitlayer {

// Settles the repository once. False: there was nothing to do, or the proposal was refused.
Co<bool> settleRepository(kernelio::Env& env, replicator::ExtentStore& extents,
                          replicator::Volume& volume, GitStateMachine& machine,
                          RepositoryId repository);

}  // namespace packmoor::gitlayer
