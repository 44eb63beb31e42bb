// The sending side: what a client is answered that clones or fetches.
#pragma once

#include "gitlayer/git_front.h"

namespace packmoor::gitlayer {

// A session of service upload-pack over one state of one repository. `node` outlives it.
kj::Own<GitSession> makeUploadPackSession(GitNode& node, GitRequest request,
                                          kj::Own<RepositoryView> view);

}  // namespace packmoor::gitlayer
