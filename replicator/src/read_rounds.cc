#include "read_rounds.h"

#include "planted_fault.h"
#include "quorum.h"
#include "wake_signal.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

ReadRounds::ReadRounds(RoundHost& host, size_t members, size_t ownSlot, size_t writeQuorum,
                       int64_t timeoutMs)
    : host_(host),
      writeQuorum_(planted(PlantedFault::kConfirmWMinus1) && writeQuorum > 1 ? writeQuorum - 1
                                                                             : writeQuorum),
      timeoutMs_(timeoutMs), echoed_(members, 0) {
  echoed_[ownSlot] = UINT64_MAX;  // it has not stepped down, or there would be no rounds
}

kj::Promise<RecordIndex> ReadRounds::confirm() {
  if (ended_) return KJ_EXCEPTION(DISCONNECTED, "this node does not lead the volume any more");
  if (writeQuorum_ == 1) return host_.announceable();
  if (planted(PlantedFault::kConfirmOldAcks) && confirmed_ > 0) return host_.announceable();
  auto paf = kj::newPromiseAndFulfiller<RecordIndex>();
  readers_.push_back(Reader{round_ + 1, host_.announceable(), monotonicMs(host_.timer()),
                            kj::mv(paf.fulfiller)});
  if (confirmed_ == round_) begin(false);  // else the next round begins when this one is done
  return kj::mv(paf.promise);
}

kj::Promise<RecordIndex> ReadRounds::confirm(size_t slot) {
  if (!ended_ && writeQuorum_ == 2 && echoed_[slot] != UINT64_MAX) return host_.announceable();
  return confirm();
}

void ReadRounds::begin(bool askAll) {
  ++round_;
  sentMs_ = monotonicMs(host_.timer());
  std::vector<size_t> slots = host_.slotsByPromptness();
  if (!askAll && slots.size() > writeQuorum_ - 1) slots.resize(writeQuorum_ - 1);
  for (size_t slot : slots) host_.askToConfirm(slot, round_);
}

void ReadRounds::echoed(size_t slot, uint64_t round) {
  if (ended_) return;
  KJ_REQUIRE(round <= round_, "a member confirmed a round that was never asked", round);
  echoed_[slot] = std::max(echoed_[slot], round);
  const uint64_t confirmed = countedByQuorum(echoed_, writeQuorum_);
  if (confirmed <= confirmed_) return;
  confirmed_ = confirmed;
  serve();
}

void ReadRounds::serve() {
  while (!readers_.empty() && readers_.front().round <= confirmed_) {
    readers_.front().fulfiller->fulfill(kj::cp(readers_.front().committed));
    readers_.pop_front();
  }
  if (!readers_.empty() && confirmed_ == round_) begin(false);
}

void ReadRounds::end() {
  ended_ = true;
  for (Reader& reader : readers_) {
    reader.fulfiller->reject(
        KJ_EXCEPTION(DISCONNECTED, "the lead of the volume moved to another node"));
  }
  readers_.clear();
}

void ReadRounds::tick() {
  if (ended_) return;
  const int64_t now = monotonicMs(host_.timer());
  while (!readers_.empty() && now - readers_.front().sinceMs >= timeoutMs_) {
    readers_.front().fulfiller->reject(KJ_EXCEPTION(
        OVERLOADED, "fewer members than the write quorum confirm that this node leads the volume"));
    readers_.pop_front();
  }
  if (!readers_.empty() && now - sentMs_ >= kAskAllAfterMs) begin(true);
}

}  // namespace packmoor::replicator
