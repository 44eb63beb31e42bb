// The receiving side: what a client is answered that pushes.
#pragma once

#include "gitlayer/git_front.h"

namespace packmoor::gitlayer {

struct ReceiveCounters {
  uint64_t pushes = 0;         // that changed at least one ref
  uint64_t pushesRefused = 0;  // that changed none
};

// A session of service receive-pack. `view` is what a push is verified against unless that
// turns out too old; an advertisement takes a fresh one. `node` and `counters` outlive it.
kj::Own<GitSession> makeReceivePackSession(GitNode& node, GitRequest request,
                                           kj::Own<RepositoryView> view,
                                           ReceiveCounters& counters);

}  // namespace packmoor::gitlayer
