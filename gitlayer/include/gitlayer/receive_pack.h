// The receiving side: what a client is answered that pushes.
#pragma once

#include "gitlayer/git_front.h"

namespace packmoor::gitlayer {

struct ReceiveCounters {
  uint64_t pushes = 0, pushesRefused = 0;
};

// A session of service receive-pack. `view` is the state that is advertised, and that a push is
// verified against unless that turns out too old. `node` and `counters` outlive it.
kj::Own<GitSession> makeReceivePackSession(GitNode& node, GitRequest request,
                                           kj::Own<RepositoryView> view,
                                           ReceiveCounters& counters);

}  // namespace packmoor::gitlayer
