// The end of a repository that was deleted and has been kept for long enough. Loop: the node's.
#pragma once

#include "git_state_machine.h"

#include <replicator/volume.h>

namespace packmoor::gitlayer {

// Orders the deletion for good of a repository that is discarded. False: it was not, or was restored
// meanwhile. When that is to be is decided by who calls, at the primary; `volume` and `machine` outlive it.
Co<bool> dropDiscarded(kernelio::Env& env, replicator::Volume& volume, GitStateMachine& machine,
                       RepositoryId repository);

}  // namespace packmoor::gitlayer
