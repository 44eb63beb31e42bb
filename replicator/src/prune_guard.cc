#include "replicator/prune_guard.h"

#include "planted_fault.h"

namespace packmoor::replicator {

// Rule 21, invariant 10. The state of the prune's own index is one behind it.
bool PruneGuard::mustVerifyAgain(RecordIndex verifiedAt) const {
  return verifiedAt < lastPrune && !planted(PlantedFault::kTransactionNotVoided);
}

bool PruneGuard::isVoid(RecordIndex computedAt) const {
  return lastChange > computedAt && !planted(PlantedFault::kPruneNotVoided);
}

}  // namespace packmoor::replicator
