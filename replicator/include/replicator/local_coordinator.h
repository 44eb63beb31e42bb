// LocalCoordinator: the coordinator of a node that stands alone: one durable file.
//
// The whole store is one small file, replaced atomically and durably at each change
// (kernelio::replaceFile), so a compare-and-swap that resolved true survives power loss. Text
// format, one JSON-like line per volume and node, with a checksum; described in the source.
#pragma once

#include "kernelio/env.h"
#include "replicator/coordinator.h"

namespace packmoor::replicator {

// Opens or creates `path` below the disk's root. A damaged file rejects with a sentence.
kj::Promise<kj::Own<Coordinator>> openLocalCoordinator(kernelio::Env& env, kj::String path);

}  // namespace packmoor::replicator
