// ConfigurationChange: what an operator may ask to be changed about the members of a volume.
//
// Why: every change of members or of the write quorum is a takeover of a new epoch whose configuration
// is the target (DESIGN rule 9). A change names one step; what the configuration becomes, and whether
// that is possible, the primary decides (configuration_change.h).
#pragma once

#include "replicator/types.h"

namespace packmoor::replicator {

struct ConfigurationChange {
  enum class Kind : uint8_t {
    kAddMember,   // follows as an async standby first, and is counted when it has caught up
    kAddAsync,
    kRemove,      // a member of either sort
    kSetQuorum,
    kPromote,     // an async standby: is counted when it has caught up
  };
  Kind kind{};
  NodeId node;               // of all but kSetQuorum
  uint32_t writeQuorum = 0;  // of kSetQuorum
};

}  // namespace packmoor::replicator
