#include "planted_faults.h"

namespace packmoor::replicator {

PlantedFault plantedFault = PlantedFault::kNone;

const std::vector<PlantedFaultInfo>& plantedFaults() {
  using F = PlantedFault;
  static const std::vector<PlantedFaultInfo> kFaults = {
      {"resume-role", F::kResumeRole, 100, "a restarted primary goes on in its epoch"},
      {"deposed-counts", F::kDeposedCounts, 100, "a primary that promised more goes on counting"},
      {"report-before-durable", F::kReportBeforeDurable, 100, "fence reports leave at once"},
      {"fence-n-minus-w", F::kFenceNMinusW, 100, "one member too few is fenced"},
      {"adopt-by-index", F::kAdoptByIndex, 100, "the longest log is adopted"},
      {"start-before-adopted", F::kStartBeforeAdopted, 100, "EpochStart on any log"},
      {"start-one-short", F::kStartOneShort, 100, "active with EpochStart on W-1 members"},
      {"drop-inactive-early", F::kDropInactiveEarly, 100, "commits before the epoch is active"},
      {"no-prev-check", F::kNoPrevCheck, 100, "what a record follows is not compared"},
      {"truncate-on-duplicate", F::kTruncateOnDuplicate, 100, "a late duplicate shortens a log"},
      {"ack-unverified", F::kAckUnverified, 100, "acknowledges all that is durable"},
      {"acks-of-any-epoch", F::kAcksOfAnyEpoch, 100, "acknowledgements of other epochs count"},
      {"ack-before-durable", F::kAckBeforeDurable, 100, "acknowledges what is only written"},
      {"count-older-epochs", F::kCountOlderEpochs, 100, "records of older epochs commit by counting"},
      {"apply-unverified", F::kApplyUnverified, 100, "applies up to what was announced"},
      {"confirm-w-minus-1", F::kConfirmWMinus1, 100, "reads are confirmed by W-1 members"},
      {"confirm-old-acks", F::kConfirmOldAcks, 100, "an earlier round confirms a read"},
      {"lose-truncation", F::kLoseTruncation, 100, "a truncation is not journaled"},
      {"expire-early", F::kNone, 100, "a transaction's result is dropped before its id expires"},
      {"accept-bad-checksum", F::kAcceptBadChecksum, 100, "blocks are not compared with checksums"},
      {"apply-before-sealed", F::kApplyBeforeSealed, 100, "records are taken without their extents"},
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
