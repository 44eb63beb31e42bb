#include "planted_faults.h"

namespace packmoor::replicator {

PlantedFault plantedFault = PlantedFault::kNone;

const std::vector<PlantedFaultInfo>& plantedFaults() {
  using F = PlantedFault;
  static const std::vector<PlantedFaultInfo> kFaults = {
      {"resume-role", F::kResumeRole, 20, "a restarted primary goes on in its epoch"},
      {"deposed-counts", F::kDeposedCounts, 40, "a primary that promised more goes on counting"},
      {"report-before-durable", F::kReportBeforeDurable, 60, "fence reports leave at once"},
      {"fence-n-minus-w", F::kFenceNMinusW, 100, "one member too few is fenced"},
      {"adopt-by-index", F::kAdoptByIndex, 300, "the longest log is adopted"},
      {"start-before-adopted", F::kStartBeforeAdopted, 60, "EpochStart on any log"},
      {"start-one-short", F::kStartOneShort, 20, "active with EpochStart on W-1 members"},
      {"drop-inactive-early", F::kDropInactiveEarly, 10, "commits before the epoch is active"},
      {"no-prev-check", F::kNoPrevCheck, 100, "what a record follows is not compared"},
      {"truncate-on-duplicate", F::kTruncateOnDuplicate, 20, "a late duplicate shortens a log"},
      {"ack-unverified", F::kAckUnverified, 300, "acknowledges all that is durable"},
      {"acks-of-any-epoch", F::kAcksOfAnyEpoch, 100, "acknowledgements of other epochs count"},
      {"ack-before-durable", F::kAckBeforeDurable, 10, "acknowledges what is only written"},
      {"count-older-epochs", F::kCountOlderEpochs, 100, "records of older epochs commit by counting"},
      {"apply-unverified", F::kApplyUnverified, 200, "applies up to what was announced"},
      {"confirm-w-minus-1", F::kConfirmWMinus1, 200, "reads are confirmed by W-1 members"},
      {"confirm-old-acks", F::kConfirmOldAcks, 200, "an earlier round confirms a read"},
      {"repair-to-committed", F::kRepairToCommitted, 300, "a damaged member is whole too early",
       "rot_of_what_was_acknowledged"},
      {"repair-forgets-promise", F::kRepairForgetsPromise, 100, "rot eats a promise for good",
       "rot_of_a_promise"},
      {"coordinator-restored", F::kNone, 200, "nobody sees that the coordinator has gone back",
       "coordinator_goes_back"},
      {"loss-not-stored", F::kLossNotStored, 100, "an accepted loss is not stored", "accepted_loss"},
      {"unproven-counts", F::kUnprovenCounts, 100, "who was left out by a loss counts as before",
       "accepted_loss"},
      {"lose-truncation", F::kLoseTruncation, 60, "a truncation is not journaled"},
      {"expire-early", F::kNone, 10, "a transaction's result is dropped before its id expires"},
      {"accept-bad-checksum", F::kAcceptBadChecksum, 100, "blocks are not compared with checksums"},
      {"apply-before-sealed", F::kApplyBeforeSealed, 20, "records are taken without their extents"},
      {"prune-not-voided", F::kPruneNotVoided, 20, "a prune counts behind changes of refs"},
      {"transaction-not-voided", F::kTransactionNotVoided, 20, "a push counts behind a prune"},
  };
  return kFaults;
}

const PlantedFaultInfo* findPlantedFault(const std::string& name) {
  for (const PlantedFaultInfo& info : plantedFaults()) {
    if (name == info.name) return &info;
  }
  return nullptr;
}

}  // namespace packmoor::replicator
