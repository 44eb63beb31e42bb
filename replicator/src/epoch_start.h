// EpochStart: the first record of an epoch (rule 7), which tells every member and every later
// reader of the log which configuration the epoch has.
#pragma once

#include "replicator/coordinator.h"

namespace packmoor::replicator {

kj::Array<const kj::byte> encodeEpochStart(const VolumeConfiguration& configuration);

}  // namespace packmoor::replicator
