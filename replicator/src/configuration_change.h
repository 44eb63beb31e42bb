// What a volume's configuration becomes by a change, and why some changes are refused.
//
// Why: the takeover makes any configuration active that it is given (rules 5 and 8); that the
// configuration makes sense is decided here, by pure functions. Epoch, primary and nonce of what
// they return are those of the argument; the takeover sets them.
#pragma once

#include "replicator/coordinator.h"
#include "replicator/membership.h"

#include <optional>

namespace packmoor::replicator {

// Refuses, by an exception whose description is a sentence, what is not possible. `nodes`: as
// registered. `pair`: the volume is one.
VolumeConfiguration changedBy(const ConfigurationChange& change, const VolumeConfiguration& last,
                              bool pair, const std::vector<NodeRegistration>& nodes);

// `joiner`, an async standby, is counted from now on; both members of a pair acknowledge again.
VolumeConfiguration counting(const MemberIdentity& joiner, const VolumeConfiguration& last,
                             bool pair);

// Rule 19: one of a pair goes on alone; its partner may come back as an async standby that is
// counted when it has caught up.
VolumeConfiguration aloneWith(const MemberIdentity& survivor, const VolumeConfiguration& last);

// The other member of a pair of which both are counted; none otherwise.
std::optional<MemberIdentity> partnerOf(const MemberIdentity& self,
                                        const VolumeConfiguration& configuration);

// As a member of either sort, with whichever journal.
bool namesNode(const VolumeConfiguration& configuration, const NodeId& node);
bool isAsync(const VolumeConfiguration& configuration, const MemberIdentity& who);

}  // namespace packmoor::replicator
