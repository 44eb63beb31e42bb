// Faults that are planted into the replicator to show that the simulator's checkers find them.
//
// Why: a checker that never failed proves nothing. Each of these leaves out one thing that a rule of
// DESIGN section 6 or an invariant asks for; tests/sim runs the simulator with each of them until
// it is found. The names in words are in tests/sim/planted_faults.cc.
//
// Only the copy of the replicator that is built for the simulator (packmoor_replicator_planted)
// defines PACKMOOR_PLANTED_FAULTS. Everywhere else planted() is the constant false, and no fault can be
// switched on.
#pragma once

#include <cstdint>

namespace packmoor::replicator {

enum class PlantedFault : uint8_t {
  kNone,
  kResumeRole,            // rule 2: a restarted primary goes on in the epoch that it had
  kDeposedCounts,         // rule 3: a primary that promised a higher epoch goes on counting
  kReportBeforeDurable,   // rule 4: the fence report leaves at once
  kFenceNMinusW,          // rule 5: one member too few is fenced
  kAdoptByIndex,          // rule 6: the longest log is adopted, whatever its last epoch
  kStartBeforeAdopted,    // rule 7: EpochStart is appended to whatever log is here
  kStartOneShort,         // rule 8: active when W-1 members have EpochStart
  kDropInactiveEarly,     // rule 8: commits before the epoch is known to be active
  kNoPrevCheck,           // rule 13: what a record follows is not compared
  kTruncateOnDuplicate,   // rule 13: a late duplicate shortens the log
  kAckUnverified,         // rule 14: all that is durable is acknowledged
  kAcksOfAnyEpoch,        // rule 14: acknowledgements are not bound to an epoch
  kAckBeforeDurable,      // rule 14: acknowledged when written, not when durable
  kCountOlderEpochs,      // rule 15: records of older epochs commit by counting
  kApplyUnverified,       // rule 15: applied up to what was announced
  kConfirmWMinus1,        // reads: one echo too few
  kConfirmOldAcks,        // reads: an echo of an earlier round serves
  kRepairToCommitted,     // rule 17: a damaged member is whole with what is known to be committed
  kRepairForgetsPromise,  // rule 17: it goes on with the promise that rot has left
  kLoseTruncation,        // a truncation is not written to the journal
  kAcceptBadChecksum,     // a block of an extent is not compared with its checksum
  kApplyBeforeSealed,     // invariant 5: records are taken before their extents are sealed
  kPruneNotVoided,        // rule 21: a prune counts although refs changed since it was computed
  kTransactionNotVoided,  // rule 21: a transaction counts although a prune came after its check
  kLossNotStored,         // rule 19: EpochStart of an accepted loss before the coordinator has it
  kUnprovenCounts,        // rule 19: a member that an accepted loss ignored counts as before
};

#ifdef PACKMOOR_PLANTED_FAULTS
extern PlantedFault plantedFault;  // of this process; set before anything runs
inline bool planted(PlantedFault fault) { return fault == plantedFault; }
#else
constexpr bool planted(PlantedFault) { return false; }
#endif

}  // namespace packmoor::replicator
