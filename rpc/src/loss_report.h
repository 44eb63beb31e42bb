// What is lost of a volume, from what those of its members know that can be asked: pure functions.
//
// Why: an operator who goes on without members must know what that costs, and must not be told more than
// is known. A write is listed only where some member's log has its record; where no log has it, the range of
// indexes is given that somebody was told of, and where nobody was told anything, that is said.
//
// Beyond repair: a takeover must fence N-W+1 whole members (DESIGN rule 5), and so many cannot be asked.
// Then each of the others may have been one of W that acknowledged something which is nowhere else.
#pragma once

#include <replicator/coordinator.h>
#include <rpc/control.pb.h>

#include <string>
#include <vector>

namespace packmoor::rpc {

constexpr size_t kLostWritesMax = 1000;     // listed; more are counted

// Whom to ask: every member of every configuration that the record names.
std::vector<replicator::MemberIdentity> membersToAsk(const replicator::VolumeRecord& record);

// Fills in members, state, what an acceptance would keep and ignore, and revision. `answers`: of those
// that answered, with their identity as the record has it. `promote`: a node that is to be counted.
void judge(const replicator::VolumeRecord& record,
           const std::vector<control::VolumeLogAnswer>& answers, const std::string& promote,
           control::VolumeLostWritesReply& reply);

// Adds writes that `holder`'s log has behind the last record in common with what is kept.
void addWrites(const std::vector<control::LostWrite>& records, uint64_t common,
               const std::string& holder, const std::string& why,
               control::VolumeLostWritesReply& reply);

// Adds what is known as ranges of indexes only; last, when all writes are listed.
void addRanges(const std::vector<control::VolumeLogAnswer>& answers,
               control::VolumeLostWritesReply& reply);

// One sentence for the audit log, the coordinator's record and status.
std::string summaryOf(const control::VolumeLostWritesReply& reply);
// One line about one write.
std::string lineOf(const control::LostWrite& write);

}  // namespace packmoor::rpc
