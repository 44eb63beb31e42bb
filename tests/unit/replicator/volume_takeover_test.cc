// Goal: the members of a volume replace a primary that is gone, silent, cut off or stuck, soon and by
// themselves; they leave one alone that works; and no client of a living node sees more than a
// pause. Method: scripted faults on whole nodes under load, in virtual time.
#include "sim_load.h"

#include "replicator/outcome.h"

namespace packmoor::replicator {
namespace {

std::vector<size_t> clientsOf(std::vector<size_t> nodes) {
  std::vector<size_t> clients;
  for (int i = 0; i < 2; ++i) clients.insert(clients.end(), nodes.begin(), nodes.end());
  return clients;
}

// Journals that keep what a member misses while it is away.
ReplicatorOptions keeping() {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 64u << 20;
  return options;
}

// No push failed, nothing is lost, the states are equal. `stale`: swaps from a value that was not
// the present one, as the first of a client whose key has one already.
void expectUnharmed(SimCluster& cluster, SimLoad& load, uint64_t stale = 0) {
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  EXPECT_LE(load.lost, stale);
  cluster.settle();
  cluster.verify();
}

TEST(VolumeTakeoverTest, AKilledPrimaryIsReplacedAtOnce) {
  for (uint64_t seed = 100; seed < 110; ++seed) {
    SimCluster cluster(seed, 3, keeping());
    cluster.begin(2);
    SimLoad load(cluster, clientsOf({1, 2}), 1);
    cluster.loop().runFor(500 * kj::MILLISECONDS);
    const uint64_t before = load.done;
    cluster.node(0).losePower();
    const int64_t sinceMs = cluster.nowMs();
    cluster.until([&]() { return cluster.primary() != nullptr; }, 200, "a new primary");
    EXPECT_LT(cluster.nowMs() - sinceMs, 150);
    cluster.loop().runFor(500 * kj::MILLISECONDS);
    EXPECT_GT(load.done, before + 100);
    EXPECT_LT(load.longestMs, 250);
    cluster.startAll();
    expectUnharmed(cluster, load);
  }
}

TEST(VolumeTakeoverTest, EveryPrimaryInTurnIsKilledAndComesBack) {
  SimCluster cluster(120, 5, keeping());
  cluster.begin(3);
  for (int i = 0; i < 12; ++i) {
    const size_t led = cluster.indexOf(cluster.awaitPrimary());
    std::vector<size_t> others;
    for (size_t n = 0; n < cluster.size(); ++n) {
      if (n != led) others.push_back(n);
    }
    SimLoad load(cluster, others, 1);
    cluster.loop().runFor(200 * kj::MILLISECONDS);
    if (i % 2 == 0) {
      cluster.node(led).losePower();
    } else {
      cluster.node(led).stop();
    }
    cluster.loop().runFor(400 * kj::MILLISECONDS);
    ASSERT_NE(cluster.primary(), nullptr);
    EXPECT_LT(load.longestMs, 250);
    cluster.startAll();
    expectUnharmed(cluster, load, others.size());
  }
}

TEST(VolumeTakeoverTest, ASilentPrimaryIsReplacedAndStepsDownWhenItIsHeardAgain) {
  SimCluster cluster(130, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, clientsOf({1, 2}), 1);
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  // As a process that was stopped: connections stay, nothing comes.
  cluster.network().isolate("a", cluster.nodeIds());
  cluster.coordinator().cutOff("a");
  cluster.loop().runFor(600 * kj::MILLISECONDS);
  ASSERT_NE(cluster.primary(), nullptr);
  EXPECT_NE(cluster.primary(), &cluster.node(0));
  EXPECT_EQ(cluster.node(0).volume().status().role, VolumeRole::kPrimary);  // it cannot know
  EXPECT_LT(load.longestMs, 600);
  cluster.network().heal();
  cluster.coordinator().heal();
  cluster.until([&]() {
    return cluster.node(0).volume().status().role == VolumeRole::kStandby;
  }, 3000, "the old primary follows");
  const Epoch epoch = cluster.primary()->volume().status().epoch;
  cluster.loop().runFor(2 * kj::SECONDS);
  EXPECT_EQ(cluster.primary()->volume().status().epoch, epoch);   // it does not fight for the lead
  expectUnharmed(cluster, load);
}

// Rule 9: the others hear from the primary, so the one that does not may not disturb them.
TEST(VolumeTakeoverTest, AStandbyThatIsCutOffFromItsPeersStopsNobody) {
  SimCluster cluster(140, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, clientsOf({0, 1}), 1);
  const Epoch epoch = cluster.node(0).volume().status().epoch;
  const uint64_t swaps = cluster.coordinator().swaps;
  cluster.network().isolate("c", cluster.nodeIds());
  cluster.loop().runFor(5 * kj::SECONDS);
  const std::string problem = cluster.node(2).volume().status().problem;
  EXPECT_NE(problem.find("does not hear from the primary a"), std::string::npos) << problem;
  cluster.network().heal();
  cluster.loop().runFor(2 * kj::SECONDS);
  EXPECT_EQ(cluster.node(2).volume().status().problem, "");
  // Only the link to the primary, and then only one direction of it.
  cluster.network().cut("a", "c");
  cluster.network().cut("c", "a");
  cluster.loop().runFor(3 * kj::SECONDS);
  cluster.network().heal();
  cluster.network().cut("a", "c");
  cluster.loop().runFor(3 * kj::SECONDS);
  cluster.network().heal();
  EXPECT_EQ(cluster.primary(), &cluster.node(0));
  EXPECT_EQ(cluster.node(0).volume().status().epoch, epoch);
  EXPECT_EQ(cluster.coordinator().swaps, swaps);
  EXPECT_LT(load.longestMs, 100);
  expectUnharmed(cluster, load);
}

TEST(VolumeTakeoverTest, APrimaryThatHearsNobodyIsReplaced) {
  for (const bool toPrimary : {true, false}) {
    SimCluster cluster(150 + toPrimary, 3, keeping());
    cluster.begin(2);
    SimLoad load(cluster, clientsOf({1, 2}), 1);
    cluster.loop().runFor(300 * kj::MILLISECONDS);
    for (const char* other : {"b", "c"}) {
      if (toPrimary) {
        cluster.network().cut(other, "a");   // what it sends arrives; it hears nothing
      } else {
        cluster.network().cut("a", other);
      }
    }
    cluster.loop().runFor(2 * kj::SECONDS);
    ASSERT_NE(cluster.primary(), nullptr);
    EXPECT_NE(cluster.primary(), &cluster.node(0));
    EXPECT_LT(load.longestMs, 2000);
    cluster.network().heal();
    expectUnharmed(cluster, load);
  }
}

// Rule 16.
TEST(VolumeTakeoverTest, AnIsolatedPrimaryAnswersWithAnErrorAfterABound) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 2000;
  options.readTimeoutMs = 1000;
  SimCluster cluster(160, 3, options);
  cluster.begin(2);
  cluster.put(0, "k", "old");
  cluster.network().isolate("a", cluster.nodeIds());
  cluster.coordinator().cutOff("a");
  auto write = outcomeOf(cluster.propose(0, "put k stale").promise());
  auto read = cluster.loop().wait(outcomeOf(cluster.read(0, "k").promise()));
  ASSERT_FALSE(read.ok());
  auto written = cluster.loop().wait(kj::mv(write));
  ASSERT_FALSE(written.ok());
  const std::string why = KJ_ASSERT_NONNULL(written.exception).getDescription().cStr();
  EXPECT_NE(why.find("fewer members than the write quorum"), std::string::npos) << why;
  EXPECT_EQ(cluster.get(1, "k"), "old");
  cluster.put(1, "k", "new");
  cluster.network().heal();
  cluster.coordinator().heal();
  cluster.settle();
  EXPECT_EQ(cluster.get(0, "k"), "new");
  cluster.verify();
}

TEST(VolumeTakeoverTest, APrimaryWhoseJournalHangsGivesWay) {
  SimCluster cluster(170, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, clientsOf({1, 2}), 1);
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  cluster.node(0).slowDisk(20 * kj::SECONDS);
  cluster.loop().runFor(2 * kj::SECONDS);
  ASSERT_NE(cluster.primary(), nullptr);
  EXPECT_NE(cluster.primary(), &cluster.node(0));
  EXPECT_LT(load.longestMs, 1700);
  cluster.node(0).slowDisk(0 * kj::SECONDS);
  cluster.node(0).losePower();   // what hangs in the disk does not come back
  cluster.startAll();
  expectUnharmed(cluster, load);
}

// Where nobody can take over, the one whose write has ended goes on.
TEST(VolumeTakeoverTest, APrimaryThatGaveWayGoesOnWhenNobodyWantsTheLead) {
  SimCluster cluster(171, 3);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  const Epoch epoch = cluster.node(0).volume().status().epoch;
  cluster.coordinator().cutOff("b");
  cluster.coordinator().cutOff("c");
  cluster.node(0).slowDisk(2 * kj::SECONDS);
  auto write = outcomeOf(cluster.propose(1, "put k 2").promise());
  cluster.loop().runFor(1500 * kj::MILLISECONDS);
  cluster.node(0).slowDisk(0 * kj::SECONDS);
  auto written = cluster.loop().wait(kj::mv(write));
  EXPECT_TRUE(written.ok());
  EXPECT_EQ(cluster.primary(), &cluster.node(0));
  EXPECT_EQ(cluster.node(0).volume().status().epoch, epoch);
  EXPECT_EQ(cluster.get(2, "k"), "2");
  cluster.coordinator().heal();
  cluster.settle();
  cluster.verify();
}

// Rule 10: an epoch that was taken and cannot become active stops nobody, wherever that is known.
TEST(VolumeTakeoverTest, AnEpochTakenByANodeWithoutPeersStopsNobody) {
  SimCluster cluster(180, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, clientsOf({0, 1}), 1);
  cluster.network().isolate("c", cluster.nodeIds());
  // By order of an operator: nobody is asked for consent.
  auto attempt = outcomeOf(cluster.node(2).volume().takeOver());
  cluster.loop().runFor(5 * kj::SECONDS);
  EXPECT_EQ(cluster.coordinator().volumes["main"].phase, VolumePhase::kRecovering);
  EXPECT_EQ(cluster.coordinator().volumes["main"].current.primary.node, "c");
  EXPECT_EQ(cluster.primary(), &cluster.node(0));
  EXPECT_EQ(cluster.node(0).volume().status().epoch, Epoch(1));
  EXPECT_LT(load.longestMs, 100);
  // The primary dies while that epoch stands: the others go on in a higher one.
  load.join();
  SimLoad later(cluster, clientsOf({1}), 1);
  cluster.node(0).losePower();
  cluster.network().heal();
  cluster.until([&]() { return cluster.primary() != nullptr; }, 1000, "a new primary");
  cluster.startAll();
  auto outcome = cluster.loop().wait(kj::mv(attempt));   // it may win, or be superseded
  (void)outcome;
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  EXPECT_GT(later.done, 50u);
  expectUnharmed(cluster, later, 2);
}

// Invariant 7: whichever attempt lands, and whoever asks, one transaction has one result.
TEST(VolumeTakeoverTest, ATransactionThatIsRepeatedThroughAFailoverIsAppliedOnce) {
  for (int64_t afterUs = 0; afterUs < 6000; afterUs += 200) {
    SimCluster cluster(static_cast<uint64_t>(3000 + afterUs), 3, keeping());
    cluster.begin(2);
    cluster.put(0, "k", "0");
    const TxnId txn = cluster.newTxn();
    auto first = outcomeOf(cluster.propose(1, txn, "swap k 0 1").promise());
    cluster.loop().runFor(afterUs * kj::MICROSECONDS);
    cluster.node(0).losePower();
    // The client lost its connection to b and asks at c, with the same id.
    auto second = outcomeOf(cluster.propose(2, txn, "swap k 0 1").promise());
    auto one = cluster.loop().wait(kj::mv(first));
    auto two = cluster.loop().wait(kj::mv(second));
    ASSERT_TRUE(one.ok() && two.ok()) << afterUs;
    EXPECT_EQ(one.value->index, two.value->index);
    EXPECT_EQ(textOf(one.value->result), "ok k 1");
    EXPECT_EQ(textOf(two.value->result), "ok k 1");
    cluster.startAll();
    // Long after, too.
    auto three = cluster.loop().wait(cluster.propose(0, txn, "swap k 0 1").promise());
    EXPECT_EQ(three.index, one.value->index);
    cluster.settle();
    cluster.verify();
  }
}

// Proposes without a transaction id until `stop`: an attempt that may have been written is final.
Co<void> proposeWithoutId(SimCluster& cluster, size_t node, const bool& stop, uint64_t& done) {
  while (!stop) {
    auto outcome = co_await outcomeOf(
        cluster.node(node).volume().propose(kvProposal(TxnId(), "put n" + std::to_string(node) + " x")));
    KJ_IF_MAYBE(exception, outcome.exception) {
      ADD_FAILURE() << "node " << node << ": " << exception->getDescription().cStr();
      co_return;
    }
    ++done;
  }
}

// A switchover lets the primary commit and answer first what it has ordered.
TEST(VolumeTakeoverTest, ASwitchoverLeavesNoProposalInDoubt) {
  SimCluster cluster(200, 3, keeping());
  cluster.begin(2);
  bool stop = false;
  uint64_t done = 0;
  kj::Vector<kj::Promise<void>> clients;
  for (size_t i = 0; i < 12; ++i) {
    clients.add(proposeWithoutId(cluster, i % 3, stop, done).promise().eagerlyEvaluate(nullptr));
  }
  for (size_t i = 1; i <= 20; ++i) {
    cluster.loop().runFor(static_cast<int64_t>(20'000 + cluster.random().below(20'000)) *
                          kj::MICROSECONDS);
    cluster.loop().wait(cluster.node(0).volume().switchOver(cluster.node(i % 3).id()));
    EXPECT_EQ(cluster.primary(), &cluster.node(i % 3));
  }
  stop = true;
  cluster.loop().wait(kj::joinPromises(clients.releaseAsArray()));
  EXPECT_GT(done, 1000u);
  cluster.settle();
  cluster.verify();
}

// Where the target is lost after the primary has begun to wait for it, the primary goes on.
TEST(VolumeTakeoverTest, APrimaryThatDrainsForNobodyGoesOn) {
  SimCluster cluster(201, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, clientsOf({0, 2}), 1);
  cluster.loop().runFor(100 * kj::MILLISECONDS);
  ConsentRequest request;
  request.volume = cluster.node(0).volume().id();
  request.candidate = MemberIdentity{"b", cluster.node(1).journalId()};
  request.handOver = true;
  auto reply = cluster.loop().wait(cluster.node(0).replicator().consent("b", request));
  EXPECT_TRUE(reply.consents);
  EXPECT_EQ(reply.last.index, cluster.node(0).volume().status().committed);
  const uint64_t before = load.done;
  cluster.loop().runFor(400 * kj::MILLISECONDS);
  EXPECT_LE(load.done, before + 4);   // held
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  EXPECT_GT(load.done, before + 100);
  EXPECT_EQ(cluster.primary(), &cluster.node(0));
  expectUnharmed(cluster, load);
}

TEST(VolumeTakeoverTest, APrimaryThatStopsHandsTheLeadOver) {
  SimCluster cluster(202, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, clientsOf({1, 2}), 1);
  cluster.loop().runFor(200 * kj::MILLISECONDS);
  cluster.loop().wait(cluster.node(0).replicator().stop());
  ASSERT_NE(cluster.primary(), nullptr);   // at once
  EXPECT_NE(cluster.primary(), &cluster.node(0));
  cluster.node(0).stop();
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  EXPECT_LT(load.longestMs, 100);
  EXPECT_EQ(cluster.primary()->volume().status().epoch, Epoch(2));
  cluster.startAll();
  expectUnharmed(cluster, load);
}

// Reads that wait at any member go on, and see what was acknowledged before.
TEST(VolumeTakeoverTest, ReadsGoOnThroughAFailover) {
  for (const bool silent : {false, true}) {
    SimCluster cluster(190 + silent, 3, keeping());
    cluster.begin(2);
    for (int i = 0; i < 20; ++i) cluster.put(1, "k", std::to_string(i));
    if (silent) {
      cluster.network().isolate("a", cluster.nodeIds());
    } else {
      cluster.node(0).losePower();
    }
    kj::Vector<kj::Promise<void>> reads;
    for (size_t i = 0; i < 40; ++i) {
      reads.add(cluster.read(1 + i % 2, "k").promise().then([](std::string value) {
        EXPECT_EQ(value, "19");
      }));
    }
    const int64_t sinceMs = cluster.nowMs();
    cluster.loop().wait(kj::joinPromises(reads.releaseAsArray()));
    EXPECT_LT(cluster.nowMs() - sinceMs, silent ? 700 : 250);
    cluster.network().heal();
    cluster.startAll();
    cluster.settle();
    cluster.verify();
  }
}

// Without the coordinator nobody can take over; when it is back, somebody does.
TEST(VolumeTakeoverTest, ATakeoverWaitsForTheCoordinator) {
  SimCluster cluster(195, 3, keeping());
  cluster.begin(2);
  SimLoad load(cluster, clientsOf({1, 2}), 1);
  cluster.loop().runFor(100 * kj::MILLISECONDS);
  for (const NodeId& id : cluster.nodeIds()) cluster.coordinator().cutOff(id);
  cluster.node(0).losePower();
  cluster.loop().runFor(8 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), nullptr);
  EXPECT_NE(cluster.node(1).volume().status().problem.find("coordinator"), std::string::npos);
  cluster.coordinator().heal();
  cluster.until([&]() { return cluster.primary() != nullptr; }, 3000, "a new primary");
  EXPECT_EQ(cluster.primary()->volume().status().problem, "");
  cluster.startAll();
  expectUnharmed(cluster, load);
}

// A minority may think what it wants: without W members that consent nothing is taken.
TEST(VolumeTakeoverTest, AMinorityTakesNoEpoch) {
  SimCluster cluster(196, 5, keeping());
  cluster.begin(3);
  cluster.put(0, "k", "1");
  const uint64_t swaps = cluster.coordinator().swaps;
  for (const char* one : {"a", "b", "c"}) {
    for (const char* other : {"d", "e"}) {
      cluster.network().cut(one, other);
      cluster.network().cut(other, one);
    }
  }
  cluster.loop().runFor(4 * kj::SECONDS);
  EXPECT_EQ(cluster.coordinator().swaps, swaps);
  cluster.put(1, "k", "2");
  // The primary dies: three of five are needed, and only two and two are left.
  cluster.node(0).losePower();
  cluster.loop().runFor(4 * kj::SECONDS);
  EXPECT_EQ(cluster.coordinator().swaps, swaps);
  cluster.network().heal();
  cluster.until([&]() { return cluster.primary() != nullptr; }, 1000, "a new primary");
  EXPECT_EQ(cluster.get(4, "k"), "2");
  cluster.startAll();
  cluster.settle();
  cluster.verify();
}

// The disk of a candidate hangs at any point of its attempt.
TEST(VolumeTakeoverTest, ACandidateWhoseJournalHangsIsSuperseded) {
  for (int afterMs = 0; afterMs < 40; afterMs += 3) {
    SimCluster cluster(static_cast<uint64_t>(4000 + afterMs), 5, keeping());
    cluster.coordinator().delayUsMin = cluster.coordinator().delayUsMax = 6000;
    cluster.begin(3);
    SimLoad load(cluster, clientsOf({1, 2, 3, 4}), 1);
    cluster.loop().runFor(100 * kj::MILLISECONDS);
    cluster.node(0).losePower();
    size_t candidate = 0;
    cluster.until([&]() {
      for (size_t n = 1; n < 5; ++n) {
        if (cluster.node(n).volume().status().role == VolumeRole::kTakingOver) candidate = n;
      }
      return candidate != 0;
    }, 1000, "a candidate");
    cluster.loop().runFor(afterMs * kj::MILLISECONDS);
    cluster.node(candidate).slowDisk(30 * kj::SECONDS);
    const uint64_t before = load.done;
    cluster.until([&]() {
      SimNode* primary = cluster.primary();
      return primary != nullptr && primary != &cluster.node(candidate) && load.done > before + 20;
    }, 3000, "another member leads");
    cluster.node(candidate).slowDisk(0 * kj::SECONDS);
    cluster.node(candidate).losePower();
    cluster.startAll();
    load.join();
    cluster.settle();
    cluster.verify();
  }
}

// An attempt ends at any point of it: another member supersedes it.
TEST(VolumeTakeoverTest, ACandidateThatDiesOrIsCutOffIsSuperseded) {
  for (int afterMs = 1; afterMs < 120; afterMs += 7) {
    for (const bool dies : {true, false}) {
      SimCluster cluster(static_cast<uint64_t>(2000 + afterMs * 2 + dies), 5, keeping());
      cluster.coordinator().delayUsMin = cluster.coordinator().delayUsMax = 12'000;
      cluster.begin(3);
      SimLoad load(cluster, clientsOf({3, 4}), 1);   // nodes that are not among the first to try
      cluster.loop().runFor(100 * kj::MILLISECONDS);
      cluster.node(0).stop();
      size_t candidate = 0;
      cluster.until([&]() {
        for (size_t n = 1; n < 5; ++n) {
          if (cluster.node(n).volume().status().role == VolumeRole::kTakingOver) candidate = n;
        }
        return candidate != 0;
      }, 1000, "a candidate");
      cluster.loop().runFor(afterMs * kj::MILLISECONDS);
      if (dies) {
        cluster.node(candidate).losePower();
      } else {
        cluster.network().isolate(cluster.node(candidate).id(), cluster.nodeIds());
      }
      cluster.until([&]() {
        SimNode* primary = cluster.primary();
        return primary != nullptr && primary != &cluster.node(candidate);
      }, 1500, "another member leads");
      const uint64_t before = load.done;
      cluster.loop().runFor(200 * kj::MILLISECONDS);
      EXPECT_GT(load.done, before);
      cluster.network().heal();
      cluster.startAll();
      load.join();
      // Clients of a node that died are not those of a living one.
      EXPECT_TRUE(load.failed == 0 || candidate >= 3) << load.lastFailure;
      cluster.settle();
      cluster.verify();
    }
  }
}

}  // namespace
}  // namespace packmoor::replicator
