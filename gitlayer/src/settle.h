// Settling: turning hot objects into a pack that every member builds alike.
//
// Why: small pushes put their objects into the state store, where one write is cheap and many
// objects are dear. From time to time the primary orders "settle the objects applied up to index I":
// every member writes the same pack from the same bytes and compares its root with the
// record's, which proves the members equal for the price of building it.
//
// The pack: objects in the order in which they came, so that versions of one thing lie near each other,
// which git's search for deltas and whoever reads them profit from; each with the zlib stream it was
// pushed with, no deltas. Its index is of version 2. Both follow from the state alone, byte for byte.
#pragma once

#include "pack_index.h"
#include "record_codec.h"
#include "state_store.h"
#include "state_tables.h"

#include <kernelio/co.h>
#include <replicator/extent_store.h>

namespace packmoor::gitlayer {

// What one settle record takes at most (zlib streams together, unless one push is larger).
constexpr uint64_t kSettleBytesMax = 64ull << 20;

struct SettledPack {
  std::vector<ObjectId> objects;  // in order of their names
  kj::Array<const kj::byte> pack, index;
  replicator::Hash128 packRoot, indexRoot;  // as extents
};

// The largest index up to which the repository's hot objects fit the bound; 0: it has none.
uint64_t settleUpto(const StateReader& state, const RepositoryId& repository,
                    uint64_t bytesMax = kSettleBytesMax);
// The names of the hot objects applied up to the index.
std::vector<ObjectId> settledObjects(const StateReader& state, const RepositoryId& repository,
                                     uint64_t upto);
// CPU work and reads of the state: for a worker.
SettledPack buildSettledPack(const StateReader& state, const RepositoryId& repository,
                             uint64_t upto, SettleOrder order = SettleOrder::kTime);

// Writes an extent here and seals it with the root; it then has one pin. `bytes` must stay valid.
Co<void> sealExtent(replicator::ExtentStore& extents, replicator::ExtentId id,
                    kj::ArrayPtr<const kj::byte> bytes, replicator::Hash128 root);
replicator::Hash128 rootOf(kj::ArrayPtr<const kj::byte> bytes);

}  // namespace packmoor::gitlayer
