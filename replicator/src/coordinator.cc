#include "replicator/coordinator.h"

#include <algorithm>

namespace packmoor::replicator {

bool VolumeConfiguration::hasMember(const NodeId& node) const {
  return std::any_of(members.begin(), members.end(),
                     [&](const MemberIdentity& member) { return member.node == node; });
}

}  // namespace packmoor::replicator
