// ReadRounds: proves to readers that this primary has not been replaced.
//
// Why: a primary that was cut off may hold an old state. Before a committed index is given to a
// reader, W members must say, in answer to a question asked after the reader came, that they have
// promised no higher epoch (DESIGN section 6, Reads). Rounds are numbered; an echo of a round
// serves every reader that came before that round was sent, so one round serves all that wait.
// With W = 1 the primary's own word is enough and no message is sent.
//
// The questions go to as few members as can answer first; when they take long, to all.
//
// Loop: the node's. The host outlives this.
#pragma once

#include "replicator/peer.h"
#include "tasks.h"

#include <kj/timer.h>

#include <deque>
#include <vector>

namespace packmoor::replicator {

class RoundHost {
 public:
  virtual kj::Timer& timer() = 0;
  virtual RecordIndex announceable() = 0;  // the committed index of this primary
  // Asks the member in `slot`; calls echoed() when it follows.
  virtual void askToConfirm(size_t slot, uint64_t round) = 0;
  // Counted slots other than the own, the likeliest to answer soon first.
  virtual std::vector<size_t> slotsByPromptness() = 0;

 protected:
  ~RoundHost() = default;
};

class ReadRounds final {
 public:
  static constexpr int64_t kAskAllAfterMs = 40;

  ReadRounds(RoundHost& host, size_t members, size_t ownSlot, size_t writeQuorum,
             int64_t timeoutMs);
  KJ_DISALLOW_COPY(ReadRounds);

  // Resolves to the index that was committed at the call, once a round begun after the call
  // succeeded.
  kj::Promise<RecordIndex> confirm();
  // The same when the member in `slot` has said, after the read began, that it follows: it has
  // echoed already, and where two members are enough, nothing is asked.
  kj::Promise<RecordIndex> confirm(size_t slot);
  void echoed(size_t slot, uint64_t round);
  void end();   // the role is lost
  void tick();  // repeats what takes long, refuses what takes too long

  uint64_t rounds() const { return round_; }

 private:
  struct Reader {
    uint64_t round;  // served by echoes of this round or a later one
    RecordIndex committed;
    int64_t sinceMs;
    kj::Own<kj::PromiseFulfiller<RecordIndex>> fulfiller;
  };

  void begin(bool askAll);
  void serve();

  RoundHost& host_;
  const size_t writeQuorum_;
  const int64_t timeoutMs_;
  bool ended_ = false;
  uint64_t round_ = 0;               // the newest that was sent
  uint64_t confirmed_ = 0;           // the newest that W members echoed
  int64_t sentMs_ = 0;
  std::vector<uint64_t> echoed_;     // by slot
  std::deque<Reader> readers_;       // by round
};

}  // namespace packmoor::replicator
