// Goal: what cannot be repaired is accepted by an operator's order only; then the volume goes on with the
// newest of the logs that are kept, and a member that was left out never counts, leads or overwrites
// anything until it is discarded (rules 5, 6, 18 and 19). Method: whole nodes in virtual time.
#include "sim_load.h"

#include "kernelio/check.h"
#include "replicator/outcome.h"

#include <gmock/gmock.h>

namespace packmoor::replicator {
namespace {

using testing::HasSubstr;

const VolumeRecord& record(SimCluster& cluster) { return cluster.coordinator().volumes.at("main"); }

// Empty: it was accepted.
std::string accept(SimCluster& cluster, size_t node, LossOrder order) {
  auto accepted = cluster.node(node).front(cluster.node(node).volume().acceptLoss(kj::mv(order)));
  auto failure = cluster.loop().wait(outcomeOf(kj::mv(accepted)));
  KJ_IF_MAYBE(exception, failure) { return exception->getDescription().cStr(); }
  cluster.giveUp(record(cluster).losses.back().adopted.index);
  return "";
}

void start(SimCluster& cluster, size_t node) {
  cluster.loop().wait(cluster.node(node).start().promise());
  cluster.until([&]() { return cluster.node(node).hasVolume(); }, 5000, "the volume is open");
}

// A pair of which b went on alone and then is gone; a has what was before.
void loseSurvivor(SimCluster& cluster) {
  cluster.begin(2, 0, VolumeTraits{true, 100});
  cluster.put(0, "k", "both");
  cluster.settle();
  cluster.node(0).losePower();
  cluster.until([&]() {
    return cluster.primary() == &cluster.node(1) && record(cluster).current.writeQuorum == 1;
  }, 10'000, "b goes on alone");
  cluster.put(1, "k", "survivor");
  cluster.put(1, "only", "here");
  cluster.node(1).losePower();
  start(cluster, 0);
}

std::string diverged(SimCluster& cluster, size_t node) {
  return cluster.node(node).volume().status().diverged;
}

TEST(VolumeLossTest, TheOldPartnerLeadsOnlyByOrderAndTheSurvivorThatReturnsIsDiverged) {
  SimCluster cluster(700, 2);
  loseSurvivor(cluster);
  cluster.loop().runFor(30 * kj::SECONDS);
  ASSERT_EQ(cluster.primary(), nullptr);
  const std::string consent = cluster.node(0).volume().status().noConsent;
  EXPECT_THAT(consent, HasSubstr("missing: b"));
  EXPECT_THAT(consent, HasSubstr("accept-loss main"));

  ASSERT_EQ(accept(cluster, 0, cluster.lossOrder({0})), "");
  EXPECT_EQ(cluster.primary(), &cluster.node(0));
  EXPECT_EQ(cluster.get(0, "k"), "both");
  EXPECT_EQ(cluster.get(0, "only"), "-");
  cluster.put(0, "k", "after");
  cluster.loop().runFor(200 * kj::MILLISECONDS);
  EXPECT_EQ(cluster.node(0).volume().status().noConsent, "");
  const VolumeRecord accepted = record(cluster);
  ASSERT_EQ(accepted.losses.size(), 1u);
  const AcceptedLoss& loss = accepted.losses.front();
  EXPECT_EQ(loss.by, "user id 0");
  EXPECT_EQ(loss.what, "what they held");
  ASSERT_EQ(loss.ignored.size(), 1u);
  EXPECT_EQ(loss.ignored.front().node, "b");
  EXPECT_EQ(accepted.current.epoch, loss.epoch);

  start(cluster, 1);
  cluster.until([&]() { return !diverged(cluster, 1).empty(); }, 5000, "b finds out");
  EXPECT_THAT(diverged(cluster, 1), HasSubstr("discard-diverged main"));
  const LogPosition held = cluster.node(1).volume().logKnowledge().last;
  cluster.loop().runFor(20 * kj::SECONDS);
  cluster.put(0, "more", "1");
  // Nothing of it was cut, it does not count, and it answers no read with what it has.
  EXPECT_EQ(cluster.node(1).volume().logKnowledge().last, held);
  EXPECT_FALSE(cluster.node(1).volume().logKnowledge().whole);
  EXPECT_EQ(record(cluster).current.members.size(), 1u);
  EXPECT_THROW(cluster.get(1, "k"), kj::Exception);
  // Nor does it lead when it is the only one that is there.
  cluster.node(0).losePower();
  cluster.loop().runFor(20 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), nullptr);
  EXPECT_THAT(accept(cluster, 1, cluster.lossOrder({1})), HasSubstr("accepted loss"));
  EXPECT_EQ(record(cluster).losses.size(), 1u);
}

TEST(VolumeLossTest, ADivergedMemberThatIsDiscardedFollowsAndIsCountedAgain) {
  SimCluster cluster(701, 2);
  loseSurvivor(cluster);
  ASSERT_EQ(accept(cluster, 0, cluster.lossOrder({0})), "");
  cluster.put(0, "k", "after");
  start(cluster, 1);
  cluster.until([&]() { return !diverged(cluster, 1).empty(); }, 5000, "b finds out");
  // What it alone holds can be read until then.
  auto extra = cluster.loop().wait(
      cluster.node(1).volume().readLog(record(cluster).losses.front().adopted.index.next()));
  EXPECT_GE(extra.size(), 3u);   // EpochStart and two writes
  cluster.loop().wait(cluster.node(1).volume().discardDiverged());
  const uint64_t lives = cluster.node(1).lives();
  cluster.until([&]() {
    return record(cluster).phase == VolumePhase::kActive &&
           record(cluster).current.members.size() == 2 && record(cluster).current.writeQuorum == 2;
  }, 20'000, "both acknowledge again");
  EXPECT_EQ(cluster.node(1).lives(), lives);   // in the same life of the node
  EXPECT_EQ(diverged(cluster, 1), "");
  EXPECT_EQ(cluster.get(1, "k"), "after");
  EXPECT_EQ(cluster.get(1, "only"), "-");
  cluster.settle();
  cluster.verify();
  // It has been proven, and may lead.
  cluster.node(0).losePower();
  cluster.until([&]() { return cluster.primary() == &cluster.node(1); }, 20'000, "b leads");
  EXPECT_EQ(cluster.get(1, "k"), "after");
}

TEST(VolumeLossTest, ADiscardThatIsCutOffByACrashLeavesTheMemberDivergedOrEmpty) {
  for (uint64_t seed = 710; seed < 716; ++seed) {
    SimCluster cluster(seed, 2);
    loseSurvivor(cluster);
    ASSERT_EQ(accept(cluster, 0, cluster.lossOrder({0})), "");
    cluster.put(0, "k", "after");
    start(cluster, 1);
    cluster.until([&]() { return !diverged(cluster, 1).empty(); }, 5000, "b finds out");
    auto discarded = outcomeOf(cluster.node(1).front(cluster.node(1).volume().discardDiverged()));
    // From before the entry is durable until the volume is open anew.
    cluster.loop().runFor(static_cast<int64_t>(seed % 6) * (seed % 6) * 40 * kj::MICROSECONDS);
    cluster.node(1).losePower();
    auto ended = cluster.loop().wait(kj::mv(discarded));
    (void)ended;
    start(cluster, 1);
    cluster.loop().runFor(5 * kj::SECONDS);
    if (!diverged(cluster, 1).empty()) continue;
    cluster.settle();
    cluster.verify();
    EXPECT_EQ(cluster.get(1, "k"), "after");
  }
}

TEST(VolumeLossTest, OneOfThreeGoesOnAndTheOthersThatReturnDoNotCount) {
  SimCluster cluster(720, 3);
  cluster.begin(2);
  cluster.put(0, "k", "all");
  cluster.settle();
  cluster.network().isolate("c", cluster.nodeIds());
  cluster.put(0, "k", "two");
  cluster.node(0).losePower();
  cluster.node(1).losePower();
  cluster.network().heal();
  cluster.loop().runFor(5 * kj::SECONDS);
  EXPECT_THAT(cluster.node(2).volume().status().noConsent, HasSubstr("missing: a, b"));
  ASSERT_EQ(accept(cluster, 2, cluster.lossOrder({2})), "");
  EXPECT_EQ(cluster.get(2, "k"), "all");
  EXPECT_EQ(record(cluster).current.writeQuorum, 1u);
  cluster.put(2, "k", "after");
  cluster.startAll();
  cluster.loop().runFor(20 * kj::SECONDS);
  // Together they would be a fence quorum of the configuration that they knew.
  EXPECT_EQ(cluster.primary(), &cluster.node(2));
  EXPECT_NE(diverged(cluster, 0), "");
  EXPECT_NE(diverged(cluster, 1), "");
  cluster.node(2).losePower();
  cluster.loop().runFor(20 * kj::SECONDS);
  EXPECT_EQ(cluster.primary(), nullptr);
}

TEST(VolumeLossTest, AMemberThatWasLeftOutAndHoldsNothingElseComesBackByItself) {
  SimCluster cluster(725, 3);
  cluster.begin(2);
  cluster.put(0, "k", "all");
  cluster.settle();
  cluster.node(1).losePower();
  cluster.node(2).losePower();
  cluster.loop().runFor(1 * kj::SECONDS);
  cluster.node(0).losePower();
  start(cluster, 0);
  ASSERT_EQ(accept(cluster, 0, cluster.lossOrder({0})), "");
  cluster.put(0, "k", "after");
  cluster.startAll();
  cluster.until([&]() {
    return record(cluster).phase == VolumePhase::kActive &&
           record(cluster).current.members.size() == 3;
  }, 20'000, "all are counted again");
  EXPECT_EQ(cluster.get(1, "k"), "after");
  cluster.settle();
  cluster.verify();
}

// What its front has checked a push against is not the volume's history (rules 19 and 21). It waits to be
// proposed again, and hears of the new primary before it can hear of the loss.
TEST(VolumeLossTest, APushThatAMemberLeftOutHasCheckedIsNotTakenByTheNewPrimary) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 20'000;
  SimCluster cluster(728, 3, options);
  cluster.begin(2);
  cluster.put(0, "k", "all");
  cluster.settle();
  cluster.network().isolate("c", cluster.nodeIds());
  cluster.loop().wait(cluster.propose(0, "push p main o1 new 2").promise());
  const RecordIndex checkedAt = cluster.node(0).kv().state().applied.index;
  cluster.node(1).losePower();
  cluster.coordinator().cutOff("a");
  auto pushed = outcomeOf(cluster.propose(0, "push p other o1 known " +
                                                 std::to_string(checkedAt.value)).promise());
  cluster.loop().runFor(1 * kj::SECONDS);
  ASSERT_EQ(accept(cluster, 2, cluster.lossOrder({2})), "");
  cluster.network().heal();
  cluster.loop().runFor(3 * kj::SECONDS);
  EXPECT_EQ(cluster.node(2).kv().state().repositories.count("p"), 0u);
  cluster.coordinator().heal();
  auto outcome = cluster.loop().wait(kj::mv(pushed));
  EXPECT_FALSE(outcome.ok());
  EXPECT_EQ(cluster.node(2).kv().state().repositories.count("p"), 0u);
  cluster.until([&]() { return !diverged(cluster, 0).empty(); }, 5000, "a finds out");
}

// A front that was not left out, or has followed since, proposes as before.
TEST(VolumeLossTest, AMemberLeftOutThatHasFollowedSinceProposesAgain) {
  SimCluster cluster(729, 3);
  cluster.begin(2);
  cluster.put(0, "k", "all");
  cluster.settle();
  cluster.node(1).losePower();
  cluster.node(2).losePower();
  cluster.loop().runFor(1 * kj::SECONDS);
  cluster.node(0).losePower();
  start(cluster, 0);
  ASSERT_EQ(accept(cluster, 0, cluster.lossOrder({0})), "");
  start(cluster, 1);
  cluster.until([&]() { return cluster.node(1).volume().logKnowledge().whole; }, 5000, "b follows");
  cluster.put(1, "k", "from-b");
  EXPECT_EQ(cluster.get(0, "k"), "from-b");
}

// The acceptance is stored before EpochStart is written: one that ends before leaves nothing behind that
// another takeover could take for the newest log (rule 6).
TEST(VolumeLossTest, AnAcceptanceThatIsCutOffAnywhereLosesNothingWhenAllReturn) {
  for (uint64_t steps = 0; steps < 3; ++steps) {
    SimCluster cluster(730 + steps, 3);
    cluster.begin(2);
    cluster.put(0, "k", "all");
    cluster.settle();
    cluster.network().isolate("c", cluster.nodeIds());
    cluster.put(0, "k", "two");
    cluster.node(0).losePower();
    cluster.node(1).losePower();
    cluster.network().heal();
    cluster.loop().runFor(1 * kj::SECONDS);
    uint64_t left = steps;   // of the epoch, the acceptance and the activation
    cluster.coordinator().onStored = [&](const VolumeRecord&) {
      if (left-- != 0) return;
      cluster.tasks().add(kj::evalLater([&cluster]() { cluster.node(2).losePower(); }));
    };
    auto order = cluster.lossOrder({2});
    auto accepted = cluster.node(2).front(cluster.node(2).volume().acceptLoss(kj::mv(order)));
    auto outcome = cluster.loop().wait(outcomeOf(kj::mv(accepted)));
    (void)outcome;
    cluster.until([&]() { return !cluster.node(2).up(); }, 1000, "the power is off");
    cluster.coordinator().onStored = nullptr;
    const bool stored = !record(cluster).losses.empty();
    EXPECT_EQ(stored, steps > 0);
    if (stored) cluster.giveUp(record(cluster).losses.back().adopted.index);
    cluster.startAll();
    SimNode& primary = cluster.awaitPrimary();
    EXPECT_EQ(cluster.get(cluster.indexOf(primary), "k"), stored ? "all" : "two");
    if (stored) continue;
    cluster.settle();
    cluster.verify();
  }
}

TEST(VolumeLossTest, AnOrderForAVolumeThatHasChangedSinceIsRefused) {
  SimCluster cluster(740, 3);
  cluster.begin(2);
  cluster.put(0, "k", "all");
  cluster.settle();
  const LossOrder old = cluster.lossOrder({2});
  EXPECT_THAT(accept(cluster, 2, old), HasSubstr("has a primary"));
  cluster.node(0).losePower();
  cluster.awaitPrimary();
  cluster.put(1, "k", "later");
  cluster.node(1).losePower();
  cluster.loop().runFor(3 * kj::SECONDS);
  EXPECT_THAT(accept(cluster, 2, old), HasSubstr("has changed since"));
  EXPECT_TRUE(record(cluster).losses.empty());
  cluster.startAll();
  cluster.awaitPrimary();
  EXPECT_EQ(cluster.get(2, "k"), "later");
  cluster.settle();
  cluster.verify();
}

TEST(VolumeLossTest, NothingIsAcceptedWhenOneThatIsKeptDoesNotAnswer) {
  SimCluster cluster(745, 5);
  cluster.begin(3);
  cluster.put(0, "k", "all");
  cluster.settle();
  for (size_t lost : {0, 1, 2}) cluster.node(lost).losePower();
  cluster.loop().runFor(3 * kj::SECONDS);
  auto order = cluster.lossOrder({3, 4});
  cluster.node(4).losePower();
  EXPECT_THAT(accept(cluster, 3, order), HasSubstr("did not answer"));
  EXPECT_TRUE(record(cluster).losses.empty());
  cluster.startAll();
  cluster.awaitPrimary();
  EXPECT_EQ(cluster.get(3, "k"), "all");
  cluster.settle();
  cluster.verify();
}

// An async standby takes over when no counted member is left.
TEST(VolumeLossTest, AnAsyncStandbyGoesOnWithoutTheCountedMembers) {
  SimCluster cluster(750, 3);
  cluster.begin(2, 2);
  cluster.loop().wait(cluster.node(0).volume().changeConfiguration(
      {ConfigurationChange::Kind::kAddAsync, "c", 0}));
  cluster.put(0, "k", "v");
  cluster.settle();
  cluster.node(0).losePower();
  cluster.node(1).losePower();
  cluster.loop().runFor(10 * kj::SECONDS);
  ASSERT_EQ(cluster.primary(), nullptr);
  EXPECT_THAT(cluster.node(2).volume().status().noConsent, HasSubstr("missing: a, b"));
  ASSERT_EQ(accept(cluster, 2, cluster.lossOrder({2})), "");
  EXPECT_EQ(cluster.get(2, "k"), "v");
  cluster.put(2, "k", "after");
  EXPECT_EQ(record(cluster).current.members.size(), 1u);
  EXPECT_EQ(record(cluster).current.joining.size(), 2u);
}

}  // namespace
}  // namespace packmoor::replicator
