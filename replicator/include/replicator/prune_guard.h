// PruneGuard: the two checks of rule 21, which keep prunes and ref transactions of one repository
// from destroying each other's work.
//
// Why: a prune drops what nothing reached in the state that it was computed from, and a ref
// transaction may refer to anything that was there in the state that its objects were verified
// against. Both states are older than the place in the log where the record is applied. So each
// record carries the index of its state, and the order in the log decides: a prune behind a change
// that it does not know of is void; a transaction behind a prune that it does not know of is to be
// verified again.
//
// A value, kept in the state machine's state by repository and changed by applying records only, so
// that every member decides alike. Absent in a state written before there were prunes: zeros.
#pragma once

#include "replicator/types.h"

namespace packmoor::replicator {

struct PruneGuard {
  // Index of the record of the last prune that was applied, not of what it was computed at: a view in
  // between still shows what the prune drops.
  RecordIndex lastPrune;
  // Index of the last applied record that a prune must know of: one that changed refs or brought
  // objects, or moved objects to where a prune does not look for them.
  RecordIndex lastChange;

  // Of a ref transaction that was verified against the state of this index. 0: of an index that
  // is not known, before any prune.
  bool mustVerifyAgain(RecordIndex verifiedAt) const;
  // Of a prune that was computed from the state of this index.
  bool isVoid(RecordIndex computedAt) const;
};

}  // namespace packmoor::replicator
