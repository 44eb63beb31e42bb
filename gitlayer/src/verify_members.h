// Asking every member of a volume what it finds at one index.
#pragma once

#include "gitlayer/git_node.h"

namespace packmoor::gitlayer {

// How long a member may take.
constexpr kj::Duration kDigestTimeout = 30 * kj::MINUTES;

// As GitNode::verifyVolume.
kj::Promise<std::vector<GitNode::Digest>> verifyMembers(kernelio::Env& env,
                                                        replicator::Replicator& replicator,
                                                        std::string volume);

}  // namespace packmoor::gitlayer
