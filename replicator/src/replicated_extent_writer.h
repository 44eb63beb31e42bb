// Writing an extent on every member of a volume at once.
//
// Why: a large push must be on W members before its record is proposed (rule 22), so its blocks go
// to all of them while they come in. Each member, this node included, has a lane: a queue of blocks
// that are written in order. A lane that fails or stands still is given up; its member fetches
// the extent later, when a record names it.
//
// Bounds: kLaneBytesMax queued for a lane; a lane without progress for kLaneStallMs while it is
// full is given up.
//
// Lifetime: lanes belong to `background` and end by themselves, also after the writer is gone: then
// they go on to seal when a seal was asked for, and abandon the extent when not.
#pragma once

#include "extent_exchange.h"
#include "replicator/replicator.h"

namespace packmoor::replicator {

constexpr size_t kLaneBytesMax = 8u << 20;
constexpr int64_t kLaneStallMs = 5000;

struct ExtentWriterParts {
  kernelio::Env& env;
  ExtentStore& extents;
  ExtentExchange& exchange;
  Peers& peers;
  Tasks& background;
};

kj::Promise<kj::Own<ReplicatedExtentWriter>> beginReplicatedExtent(
    ExtentWriterParts parts, std::vector<NodeId> members, size_t writeQuorum);

}  // namespace packmoor::replicator
