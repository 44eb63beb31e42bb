#include "runs.h"

namespace packmoor::model {
namespace {

constexpr uint8_t kA = 1, kB = 2, kC = 4, kD = 8;
const std::vector<Config> kThree = {{kA | kB | kC, 2}};
const std::vector<Config> kThreeAll = {{kA | kB | kC, 3}};
const std::vector<Config> kThreeOne = {{kA | kB | kC, 1}};
const std::vector<Config> kPair = {{kA | kB, 2}, {kA, 1}, {kB, 1}};
const std::vector<Config> kPairFixed = {{kA | kB, 2}};
const std::vector<Config> kGrow = {{kA, 1}, {kA | kB | kC, 2}};
const std::vector<Config> kReplace = {{kA | kB, 2}, {kB | kC, 2}};
const std::vector<Config> kMove = {{kA | kB, 2}, {kC | kD, 2}};
const std::vector<Config> kFourth = {{kA | kB | kC, 2}, {kA | kB | kC | kD, 3}};
const std::vector<Config> kQuorums = {{kA | kB | kC, 2}, {kA | kB | kC, 3}, {kA | kB | kC, 1}};

const std::vector<Config> kThreeOrOne = {{kA | kB | kC, 2}, {kB, 1}};
const std::vector<Config> kThreeOrTwo = {{kA | kB | kC, 2}, {kA | kB, 2}};
const std::vector<Config> kThreeAny = {{kA | kB | kC, 2}, {kA, 1}, {kB, 1}, {kC, 1}};
const std::vector<Config> kOneOrOther = {{kA, 1}, {kB, 1}};

Scenario make(const char* name, int nodes, std::vector<Config> configs, int epochs, int values) {
  Scenario sc;
  sc.name = name; sc.nodes = nodes; sc.configs = configs; sc.epochs = epochs; sc.values = values;
  return sc;
}

template <typename Change>
Run run(Scenario sc, Expect expect, Change change, bool large = false) {
  change(sc);
  return {sc, expect, large};
}
Run holds(Scenario sc, bool large = false) { return {sc, kHolds, large}; }

void addProtocol(std::vector<Run>& all) {
  auto atOnce = [](Scenario& sc) { sc.syncAtOnce = true; };
  auto rot = [](Scenario& sc) { sc.rots = 1; sc.syncAtOnce = true; };
  auto lazy = [](Scenario& sc) { sc.lazySync = true; };
  auto chain = [](Scenario& sc) { sc.rules.chain = true; };
  auto chainEarly = [](Scenario& sc) { sc.rules.chain = sc.rules.serveBeforeActive = true; };
  all.push_back(holds(make("three-w2", 3, kThree, 3, 1)));
  all.push_back(holds(make("pair", 2, kPair, 4, 1)));
  all.push_back(holds(make("three-w3", 3, kThreeAll, 3, 1)));
  all.push_back(holds(make("three-w1", 3, kThreeOne, 3, 1)));
  all.push_back(run(make("three-w2-rot", 3, kThree, 3, 1), kHolds, rot));
  all.push_back(run(make("replace", 3, kReplace, 3, 1), kHolds, atOnce));
  all.push_back(holds(make("move", 4, kMove, 3, 1)));
  all.push_back(run(make("pair-rot", 2, kPair, 3, 1), kHolds, rot));
  all.push_back(run(make("quorums", 3, kQuorums, 3, 1), kHolds, atOnce));
  all.push_back(run(make("fourth", 4, kFourth, 3, 1), kHolds, atOnce));
  all.push_back(run(make("three-w2-lazy", 3, kThree, 3, 1), kHolds, lazy));
  all.push_back(run(make("pair-lazy", 2, kPair, 3, 1), kHolds, lazy));
  all.push_back(run(make("pair-chain", 2, kPair, 4, 1), kHolds, chain));
  all.push_back(run(make("pair-chain-early", 2, kPair, 4, 1), kHolds, chainEarly));
}

// A loss is accepted by order: of a pair's survivor, of two of three, of all but an async standby.
void addLosses(std::vector<Run>& all) {
  auto one = [](Scenario& sc) { sc.losses = 1; };
  auto two = [](Scenario& sc) { sc.losses = 2; };
  auto oneAtOnce = [](Scenario& sc) { sc.losses = 1; sc.syncAtOnce = true; };
  auto twoAtOnce = [](Scenario& sc) { sc.losses = 2; sc.syncAtOnce = true; };
  auto rot = [](Scenario& sc) { sc.losses = sc.rots = 1; sc.syncAtOnce = true; };
  auto rotOne = [](Scenario& sc) { sc.losses = sc.rots = 2; };
  auto async = [](Scenario& sc) { sc.losses = 2; sc.async = kB; };
  auto asyncC = [](Scenario& sc) { sc.losses = 1; sc.async = kC; sc.syncAtOnce = true; };
  all.push_back(run(make("loss-pair", 2, kPair, 4, 1), kHolds, two));
  all.push_back(run(make("loss-three", 3, kThreeOrOne, 3, 1), kHolds, oneAtOnce));
  all.push_back(run(make("loss-two-of-three", 3, kThreeOrTwo, 3, 1), kHolds, oneAtOnce));
  all.push_back(run(make("loss-async", 2, kOneOrOther, 4, 1), kHolds, async));
  all.push_back(run(make("loss-pair-async", 3, {{kA | kB, 2}, {kC, 1}}, 3, 1), kHolds, asyncC));
  all.push_back(run(make("loss-pair-rot", 2, kPair, 3, 1), kHolds, rot));
  all.push_back(run(make("large-loss-pair", 2, kPair, 4, 2), kHolds, two, true));
  all.push_back(run(make("loss-one-rot", 1, {{kA, 1}}, 3, 2), kHolds, rotOne));
  all.push_back(run(make("loss-three-rot", 3, kThreeOrOne, 3, 1), kHolds, rot));
  all.push_back(run(make("large-loss-three", 3, kThreeAny, 4, 1), kHolds, twoAtOnce, true));
  all.push_back(run(make("large-loss-three-sync", 3, kThreeOrOne, 3, 1), kHolds, one, true));
  all.push_back(run(make("large-loss-two-of-three", 3, kThreeOrTwo, 4, 1), kHolds, twoAtOnce, true));
}

void addLarge(std::vector<Run>& all) {
  auto atOnce = [](Scenario& sc) { sc.syncAtOnce = true; };
  auto rot = [](Scenario& sc) { sc.rots = 1; sc.syncAtOnce = true; };
  all.push_back(run(make("large-three-w2", 3, kThree, 4, 2), kHolds, atOnce, true));
  all.push_back(holds(make("large-three-w2-sync", 3, kThree, 3, 2), true));
  all.push_back(holds(make("large-pair", 2, kPair, 4, 2), true));
  all.push_back(run(make("large-replace", 3, kReplace, 4, 1), kHolds, atOnce, true));
  all.push_back(run(make("large-fourth", 4, kFourth, 3, 2), kHolds, atOnce, true));
  all.push_back(run(make("large-three-w2-rot", 3, kThree, 3, 2), kHolds, rot, true));
}

// A reconfiguration to {A,B,C} W=2 is taken and stalls; B and C are gone for good.
void addProgress(std::vector<Run>& all) {
  auto gone = [](Scenario& sc) { sc.frozen = kB | kC; };
  auto goneChain = [](Scenario& sc) { sc.frozen = kB | kC; sc.rules.chain = true; };
  all.push_back(run(make("stalled-growth", 3, kGrow, 4, 1), kGoalReached, gone));
  all.push_back(run(make("stalled-growth-chain", 3, kGrow, 4, 1), kGoalNever, goneChain));
}

#define FAULT(name, nodes, configs, epochs, values, ...) \
  all.push_back(run(make("fault-" name, nodes, configs, epochs, values), kBroken, \
                    [](Scenario& sc) { Rules& r = sc.rules; __VA_ARGS__; }))

void addFaults(std::vector<Run>& all) {
  FAULT("no-fence", 3, kThree, 3, 1, r.noFence = true);
  FAULT("fence-n-minus-w", 3, kThree, 3, 1, r.fenceNMinusW = true);
  FAULT("report-before-durable", 3, kThree, 3, 1, r.reportBeforePromiseDurable = true);
  FAULT("forget-promise", 3, kThree, 3, 1, r.forgetPromise = true);
  FAULT("adopt-by-index", 3, kThree, 4, 2, r.adoptByIndex = true; sc.syncAtOnce = true);
  FAULT("start-before-adopted", 3, kThree, 3, 1, r.startBeforeAdopted = true);
  FAULT("count-older-epochs", 3, kThree, 4, 1, r.countOlderEpochs = true; sc.syncAtOnce = true);
  FAULT("start-one-short", 3, kThree, 3, 1, r.startQuorumShort = true);
  FAULT("drop-inactive-early", 2, kPair, 4, 1, r.serveBeforeActive = true);
  FAULT("ack-before-durable", 3, kThree, 3, 1, r.ackBeforeDurable = true);
  FAULT("ack-unverified", 3, kThree, 4, 2, r.ackUnverified = true; sc.syncAtOnce = true);
  FAULT("acks-of-any-epoch", 2, kPairFixed, 3, 1, r.acksOfAnyEpoch = true);
  FAULT("resume-role", 3, kThree, 2, 2, r.resumeRole = true);
  FAULT("deposed-counts", 3, kThree, 3, 1, r.deposedCounts = true);
  FAULT("truncate-on-duplicate", 3, kThree, 3, 2, r.truncateOnDuplicate = true);
  FAULT("no-prev-check", 3, kThree, 4, 2, r.noPrevCheck = true; sc.syncAtOnce = true);
  FAULT("apply-unverified", 3, kThree, 4, 2, r.applyUnverified = true; sc.syncAtOnce = true);
  FAULT("confirm-w-minus-1", 3, kThree, 3, 1, r.confirmFewer = true);
  FAULT("confirm-old-acks", 3, kThree, 3, 1, r.confirmOldAcks = true);
  FAULT("no-confirm", 3, kThree, 3, 1, r.noConfirm = true);
  FAULT("repair-forgets-promise", 3, kThree, 3, 1, r.repairForgetsPromise = true; sc.rots = 1; sc.syncAtOnce = true);
  FAULT("repair-reports", 3, kThree, 3, 1, r.repairReports = true; sc.rots = 1; sc.syncAtOnce = true);
  FAULT("repair-to-committed", 3, kThree, 3, 1, r.repairToCommitted = true; sc.rots = 1; sc.syncAtOnce = true);
  FAULT("loss-starts-unstored", 3, kThreeOrOne, 3, 1, r.lossStartsUnstored = true; sc.losses = 1; sc.syncAtOnce = true);
  FAULT("loss-fences-quorum", 3, kThreeOrTwo, 4, 1, r.lossFencesQuorum = true; sc.losses = 1; sc.syncAtOnce = true);
  FAULT("loss-adopts-own", 3, kThreeOrTwo, 3, 1, r.lossAdoptsOwn = true; sc.losses = 1; sc.syncAtOnce = true);
  FAULT("loss-order-stale", 3, kThreeOrOne, 3, 1, r.lossOrderStale = true; sc.losses = 1; sc.syncAtOnce = true);
  FAULT("loss-counts-unproven", 2, kPair, 4, 2, r.lossCountsUnproven = true; sc.losses = 2; sc.syncAtOnce = true);
  FAULT("coordinator-restored", 2, kPair, 3, 1, r.reuseOfRestoredCoordinator = true);
}

}  // namespace

std::vector<Run> allRuns() {
  std::vector<Run> all;
  addProtocol(all);
  addLosses(all);
  addProgress(all);
  addFaults(all);
  addLarge(all);
  return all;
}

}  // namespace packmoor::model
