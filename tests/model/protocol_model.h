// The replication protocol of a Packmoor volume as a finite transition system.
//
// Why: epochs, fences, adoption, commits by count and confirmed reads interact in ways
// that tests rarely reach. This model is small enough to visit every reachable state.
//
// Abstractions (each allows at least the behaviour of the real system):
// - Messages are never stored. An append of epoch e is any prefix of what its primary
//   ever wrote (`elog`), receivable by any member, at any time, any number of times:
//   loss, delay, reordering and duplication come for free. Fence requests likewise.
//   Acknowledgements and fence reports are "ever sent": a live primary may count them at
//   any later time, and they vanish with that primary's memory. They are recorded as soon
//   as the member could send them, which loses nothing, since they only ever enable.
// - A node's journal is the pair (mem, dur). A crash returns to what is durable and ends
//   the node's role. A primary shows records to others before they are durable, so its
//   `sync` is a step of its own. A standby shows nothing before it is durable, so not yet
//   synced equals not yet received, and its writes are durable at once; `lazySync` undoes
//   this reduction. A node that is down is a node that takes no step.
// - "Verified against the sender" is the length on which member and sender agree.
// - The coordinator is linearizable: one atomic step per compare-and-swap.
// - A read is not a step but a predicate over states: "could a read that arrives now at
//   a primary whose committed index is behind be confirmed?" Promises only grow, so the
//   predicate holds exactly when such a round could complete.
// - A loss is accepted (DESIGN rule 19) by an order to fence only the members of one of the
//   scenario's configurations, all of them. Whom the order leaves out may live on: what an
//   epoch before it commits afterwards is lost to the order and no more a property.
//   `committed` is cut, at the compare-and-swap that stores the acceptance, to what the
//   newest log of those kept has; what was cut must never come back.
// - An async standby (Scenario::async) receives what its primary committed, never counts.
// - Records are (epoch, value); value 0 is EpochStart. The hash chain is modelled by
//   comparing prefixes.
//
// Limits: kNodesMax nodes, kEpochsMax epochs, 10 records of 6 bits in a log.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace packmoor::model {

constexpr int kNodesMax = 4;
constexpr int kEpochsMax = 5;
constexpr int kNoNode = 15;

using Log = uint64_t;  // records of 6 bits (epoch << 3 | value), the first one lowest

int logLength(Log log);
Log logPrefix(Log log, int length);
Log logAppend(Log log, int epoch, int value);
int logCommon(Log a, Log b);
int recordAt(Log log, int index);  // index counts from 1
int recordEpoch(Log log, int index);
std::string logText(Log log);

enum Phase : uint8_t { kIdle = 0, kFencing = 1, kStarting = 2, kActive = 3 };
enum Repair : uint8_t { kWhole = 0, kLost = 1, kPromised = 2, kRefilling = 3 };

struct Node {
  Log mem, dur;                      // journal as written, as durable
  uint8_t promiseMem, promiseDur;    // highest epoch promised
  uint8_t role, phase;               // primary of this epoch (0: none), and how far
  uint8_t repair, repairTarget, pad[2];
};

struct State {
  Node node[kNodesMax];
  Log elog[kEpochsMax + 1];                 // all that the primary of an epoch wrote
  Log report[kEpochsMax + 1][kNodesMax];    // kReported | log at the fence
  Log committed;                            // ghost: what was ever acknowledged
  uint8_t ack[kEpochsMax + 1][kNodesMax];   // highest index acknowledged in the epoch
  uint8_t config[kEpochsMax + 1], primary[kEpochsMax + 1], commit[kEpochsMax + 1];
  uint8_t base[kEpochsMax + 1];             // last active epoch when this one was taken
  uint8_t accepts[kEpochsMax + 1];          // a loss's epoch: whom it keeps | kStored | kServed
  uint8_t epoch, lastActive, proposals, rots, rollbacks, goal;
  uint8_t losses, lastLoss, lostFrom, pad[5];
  Log lost;                                 // ghost: what was committed when a loss cut it
};
constexpr uint8_t kStored = 0x10, kServed = 0x20;
static_assert(sizeof(State) % 8 == 0);

struct Config { uint8_t members; uint8_t quorum; };

// What a planted fault changes. All false, with the defaults below, is the protocol.
struct Rules {
  bool chain = false;              // also fence configurations that never became active
  bool serveBeforeActive = false;  // commit once EpochStart has W copies, before the CAS
  bool noFence = false, fenceNMinusW = false, reportBeforePromiseDurable = false;
  bool forgetPromise = false, adoptByIndex = false, startBeforeAdopted = false;
  bool countOlderEpochs = false, ackBeforeDurable = false, ackUnverified = false;
  bool acksOfAnyEpoch = false, resumeRole = false, deposedCounts = false;
  bool truncateOnDuplicate = false, noPrevCheck = false, applyUnverified = false;
  bool confirmFewer = false, confirmOldAcks = false, noConfirm = false;
  bool repairForgetsPromise = false, repairReports = false, repairToCommitted = false;
  bool reuseOfRestoredCoordinator = false, startQuorumShort = false;
  // Of accepted losses.
  bool lossStartsUnstored = false;   // EpochStart before the coordinator has the acceptance
  bool lossFencesQuorum = false;     // once stored, as if the kept had all written at W
  bool lossAdoptsOwn = false;        // the candidate's own log, not the newest of those kept
  bool lossOrderStale = false;       // the order is carried out though an epoch came after it
  bool lossCountsUnproven = false;   // members that were left out count as before
};

struct Scenario {
  std::string name;
  int nodes = 3;
  std::vector<Config> configs;   // configs[0] is active in epoch 1 with primary node 0
  int epochs = 3, values = 2, rots = 0;
  uint8_t frozen = 0;            // nodes that never take a step
  uint8_t async = 0;             // nodes that follow where they are not members
  int losses = 0;                // that may be accepted
  bool lazySync = false;         // standbys, too, make durable in a step of its own
  bool syncAtOnce = false;       // no node does: smaller state spaces, for larger bounds
  Rules rules;
};

// Receives each successor: the state, a broken property or nullptr, and the step in words
// (empty unless `wantText`).
using Sink = std::function<void(const State&, const char* broken, const std::string& step)>;

State initialState(const Scenario&);
void forEachSuccessor(const Scenario&, const State&, bool wantText, const Sink&);
std::string stateText(const Scenario&, const State&);

}  // namespace packmoor::model
