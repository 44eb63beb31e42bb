// Goal: an extent reaches W members before its record is proposed, every member journals the
// record only when it has the extent, and what is not proposed is dropped everywhere (rule 22,
// invariant 5). Method: whole nodes; members that are down, cut off or replaced while an extent
// streams.
#include "sim_load.h"

#include "replicator/outcome.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace packmoor::replicator {
namespace {

using kernelio::IoBuffer;

IoBuffer blockOf(size_t bytes, uint64_t seed) {
  IoBuffer data = IoBuffer::allocate(bytes);
  for (size_t i = 0; i < bytes; ++i) data.begin()[i] = static_cast<kj::byte>(seed + i * 31 + i / 7);
  return data;
}

constexpr uint64_t kBlocks = 5;
constexpr uint64_t kBytes = (kBlocks - 1) * kBlockBytes + 1234;

Co<kj::Own<ReplicatedExtentWriter>> stream(SimCluster& cluster, size_t node) {
  auto writer = co_await cluster.node(node).replicator().beginExtent(cluster.node(node).volume());
  for (uint64_t block = 0; block < kBlocks; ++block) {
    IoBuffer data = blockOf(blockBytesAt(kBytes, block), block);
    co_await writer->writeBlock(block, data);
  }
  co_return kj::mv(writer);
}

Co<ReplicatedExtentWriter::Sealed> streamAndSeal(SimCluster& cluster, size_t node) {
  auto writer = co_await stream(cluster, node);
  auto sealed = co_await writer->seal(kBytes);
  co_return sealed;
}

Proposal withExtent(SimCluster& cluster, const ReplicatedExtentWriter::Sealed& sealed,
                    TxnId txn, const std::string& operation) {
  Proposal proposal = kvProposal(txn, operation);
  proposal.extents.push_back(sealed.info.id);
  proposal.sealedOn = sealed.sealedOn;
  return proposal;
}

ProposeOutcome put(SimCluster& cluster, size_t node, const ReplicatedExtentWriter::Sealed& sealed,
                   const std::string& value) {
  const TxnId txn = cluster.newTxn();
  auto outcome = cluster.loop().wait(cluster.node(node).volume().propose(
      withExtent(cluster, sealed, txn, "put pack " + value)));
  cluster.remember(txn, outcome.index, "put pack " + value);
  return outcome;
}

void expectWhole(SimCluster& cluster, size_t node, ExtentId id) {
  ExtentStore& extents = cluster.node(node).extents();
  ASSERT_TRUE(extents.isSealed(id)) << "node " << node;
  for (uint64_t block = 0; block < kBlocks; ++block) {
    IoBuffer data = cluster.loop().wait(extents.readBlock(id, block));
    IoBuffer wanted = blockOf(blockBytesAt(kBytes, block), block);
    EXPECT_TRUE(std::equal(data.bytes().begin(), data.bytes().end(), wanted.bytes().begin(),
                           wanted.bytes().end()));
  }
}

class VolumeExtentTest : public testing::Test {
 protected:
  void settleAndCheck(SimCluster& cluster, ExtentId id) {
    cluster.settle();
    cluster.verify();
    for (size_t i = 0; i < cluster.size(); ++i) expectWhole(cluster, i, id);
  }
};

TEST_F(VolumeExtentTest, StreamsToEveryMember) {
  SimCluster cluster(101, 3);
  cluster.begin(2);
  for (size_t front : {0, 1}) {
    auto sealed = cluster.loop().wait(streamAndSeal(cluster, front).promise());
    EXPECT_GE(sealed.sealedOn.size(), 2u);
    EXPECT_EQ(sealed.info.bytes, kBytes);
    put(cluster, front, sealed, std::to_string(front));
    settleAndCheck(cluster, sealed.info.id);
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(cluster.node(i).extents().statistics().quarantined, 0u);
}

TEST_F(VolumeExtentTest, ABadBlockIsRepairedFromAnotherMember) {
  SimCluster cluster(107, 3);
  cluster.begin(2);
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  put(cluster, 0, sealed, "1");
  cluster.settle();
  const ExtentId id = sealed.info.id;
  auto rot = [&](size_t node, uint64_t block) {
    cluster.node(node).storage().rot(cluster.node(node).extents().path(id), block * kBlockBytes, 1);
  };
  // One of the others has lost one of the two blocks as well.
  rot(2, 1);
  rot(2, 4);
  rot(0, 4);
  expectWhole(cluster, 2, id);
  const ExtentStatistics statistics = cluster.node(2).extents().statistics();
  EXPECT_EQ(statistics.blocksBad, 2u);
  EXPECT_EQ(statistics.blocksRepaired, 2u);
  // In place: it is not asked for again, also after a restart.
  cluster.restart(2);
  expectWhole(cluster, 2, id);
  EXPECT_EQ(cluster.node(2).extents().statistics().blocksBad, 0u);
  // Bad everywhere is said, and asks nobody in circles.
  for (size_t node = 0; node < 3; ++node) rot(node, 0);
  auto read = cluster.loop().wait(outcomeOf(cluster.node(1).extents().readBlock(id, 0)));
  ASSERT_FALSE(read.ok());
  const std::string why = KJ_ASSERT_NONNULL(read.exception).getDescription().cStr();
  EXPECT_NE(why.find("cannot be repaired"), std::string::npos) << why;
}

TEST_F(VolumeExtentTest, AnExtentWhoseSidecarIsDamagedIsFetchedAgain) {
  SimCluster cluster(108, 3);
  cluster.begin(2);
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  const RecordIndex index = put(cluster, 0, sealed, "1").index;
  // Until the state that a start finds names it.
  for (int i = 0; cluster.node(2).volume().status().checkpoint < index; ++i) {
    cluster.put(0, "k" + std::to_string(i), std::string(1000, 'v'));
  }
  cluster.settle();
  const ExtentId id = sealed.info.id;
  const std::string data = cluster.node(2).extents().path(id).cStr();
  const std::string sidecar = data.substr(0, data.size() - std::string("data").size()) + "sum";
  cluster.node(2).stop();
  cluster.node(2).storage().rot(sidecar.c_str(), 3, 1);
  // While nobody has it, it is missed and asked for again.
  cluster.node(0).stop();
  cluster.node(1).stop();
  cluster.loop().wait(cluster.node(2).start().promise());
  cluster.until([&]() { return cluster.node(2).hasVolume(); }, 20'000, "the volume is open");
  EXPECT_EQ(cluster.node(2).extents().damage().size(), 1u);
  cluster.loop().runFor(3000 * kj::MILLISECONDS);
  EXPECT_FALSE(cluster.node(2).extents().isSealed(id));
  EXPECT_EQ(cluster.node(2).extents().statistics().missing, 1u);
  cluster.startAll();
  cluster.until([&]() { return cluster.node(2).extents().isSealed(id); }, 20'000,
                "the extent is fetched");
  EXPECT_EQ(cluster.node(2).extents().statistics().missing, 0u);
  expectWhole(cluster, 2, id);
  cluster.restart(2);
  EXPECT_EQ(cluster.node(2).extents().damage().size(), 0u);
  expectWhole(cluster, 2, id);
}

// What is found damaged at a start, and that nothing needs any more, does not stay on the disk for ever.
TEST_F(VolumeExtentTest, ADamagedExtentThatNothingNeedsIsRemoved) {
  SimCluster cluster(113, 3);
  cluster.extentOptions.expiryMs = 100;
  cluster.begin(2);
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  const ExtentId id = sealed.info.id;
  put(cluster, 0, sealed, "1");
  cluster.put(0, "drop-extents", "all");
  cluster.settle();
  SimNode& node = cluster.node(2);
  const RecordIndex dropped = node.volume().status().last;
  cluster.until([&]() { return node.volume().status().checkpoint >= dropped; }, 60'000, "the state is durable");
  ASSERT_TRUE(node.extents().isSealed(id)) << "the log still names it";
  const std::string data = node.extents().path(id).cStr();
  const std::string sidecar = data.substr(0, data.size() - std::string("data").size()) + "sum";
  node.stop();
  node.storage().rot(sidecar.c_str(), 3, 1);
  cluster.loop().wait(node.start().promise());
  EXPECT_EQ(node.extents().damage().size(), 1u);
  cluster.until([&]() {
    return node.storage().content(data.c_str()) == nullptr && node.storage().content(sidecar.c_str()) == nullptr;
  }, 60'000, "its files are removed");
  cluster.restart(2);
  EXPECT_EQ(cluster.node(2).extents().damage().size(), 0u);
  cluster.settle();
  cluster.verify();
}

// The log of a member names an extent that it has lost, and that nobody has any more.
TEST_F(VolumeExtentTest, WhatIsLostHereAndWasDroppedElsewhereIsPassedByACheckpoint) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 50u << 10;
  SimCluster cluster(109, 3, options);
  cluster.extentOptions.expiryMs = 100;
  cluster.begin(2);
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  const ExtentId id = sealed.info.id;
  const RecordIndex index = put(cluster, 0, sealed, "1").index;
  cluster.until([&]() { return cluster.node(2).volume().status().durable >= index; }, 1000,
                "c has the record");
  ASSERT_LT(cluster.node(2).volume().status().checkpoint, index);
  const std::string data = cluster.node(2).extents().path(id).cStr();
  const std::string sidecar = data.substr(0, data.size() - std::string("data").size()) + "sum";
  cluster.node(2).stop();
  cluster.node(2).storage().rot(sidecar.c_str(), 3, 1);
  cluster.put(0, "drop-extents", "all");
  for (int i = 0; cluster.node(0).extents().isSealed(id) || cluster.node(1).extents().isSealed(id); ++i) {
    cluster.put(0, "k" + std::to_string(i % 10), std::string(1000, 'v'));
    cluster.loop().runFor(50 * kj::MILLISECONDS);
    ASSERT_LT(i, 20'000) << "the extent is not dropped";
  }
  cluster.loop().wait(cluster.node(2).start().promise());
  cluster.until([&]() { return cluster.node(2).hasVolume(); }, 20'000, "the volume is open");
  const std::string problem = cluster.node(2).volume().status().problem;
  EXPECT_NE(problem.find("an extent that record"), std::string::npos) << problem;
  cluster.until([&]() {
    const VolumeStatus status = cluster.node(2).volume().status();
    return status.transfer.installed == 1 && !status.repairing;
  }, 60'000, "c is whole");
  cluster.settle();
  cluster.verify();
  cluster.restart(2);
  EXPECT_FALSE(cluster.node(2).volume().status().repairing);
  cluster.settle();
}

TEST_F(VolumeExtentTest, OneNodeAloneNeedsNobody) {
  SimCluster cluster(102, 1);
  cluster.begin(1);
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  put(cluster, 0, sealed, "x");
  cluster.restart(0);
  cluster.awaitPrimary();
  settleAndCheck(cluster, sealed.info.id);
}

TEST_F(VolumeExtentTest, AMemberThatWasDownFetchesTheExtentBeforeTheRecord) {
  SimCluster cluster(103, 3);
  cluster.begin(2);
  cluster.node(2).stop();
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  EXPECT_EQ(sealed.sealedOn.size(), 2u);
  put(cluster, 0, sealed, "x");
  for (int i = 0; i < 20; ++i) cluster.put(0, "k", std::to_string(i));
  cluster.startAll();
  settleAndCheck(cluster, sealed.info.id);
}

TEST_F(VolumeExtentTest, ThePrimaryFetchesWhatItMissed) {
  SimCluster cluster(104, 3);
  cluster.begin(2);
  cluster.network().cut("b", "a");  // the front at b cannot stream to the primary
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 1).promise());
  EXPECT_EQ(std::count(sealed.sealedOn.begin(), sealed.sealedOn.end(), "a"), 0);
  cluster.network().heal();
  put(cluster, 1, sealed, "x");
  settleAndCheck(cluster, sealed.info.id);
}

TEST_F(VolumeExtentTest, WhatIsNotSealedIsDroppedEverywhere) {
  SimCluster cluster(105, 3);
  cluster.begin(2);
  {
    auto writer = cluster.loop().wait(stream(cluster, 0).promise());
    cluster.until([&]() { return cluster.node(2).extents().statistics().quarantined == 1; }, 1000,
                  "the extent streams to c");
  }
  cluster.loop().runFor(1 * kj::SECONDS);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(cluster.node(i).extents().statistics().quarantined, 0u) << i;
    EXPECT_EQ(cluster.node(i).extents().statistics().sealed, 0u) << i;
  }
}

// The first block opens a file. The front, or the node, may go away while that is under way.
TEST_F(VolumeExtentTest, AnExtentMayBeAbandonedWhileItIsBegun) {
  SimCluster cluster(111, 3);
  cluster.begin(2);
  cluster.network().links.delayUsMin = cluster.network().links.delayUsMax = 50;
  auto peers = cluster.network().makePeers("a");
  for (int i = 0; i < 40; ++i) {
    const ExtentId id = cluster.newTxn();
    IoBuffer block = blockOf(1000, 1);
    auto written = outcomeOf(peers->peer("b").writeExtentBlock(id, 0, block, hashBytes(block.bytes())));
    cluster.loop().runFor(i * 10 * kj::MICROSECONDS);
    auto abandoned = peers->peer("b").abandonExtent(id);
    if (i % 4 == 3) {
      cluster.loop().runFor(60 * kj::MICROSECONDS);
      cluster.node(1).losePower();
    }
    cluster.loop().runFor(100 * kj::MILLISECONDS);
    if (cluster.node(1).idle()) cluster.restart(1);
    EXPECT_EQ(cluster.node(1).extents().statistics().quarantined, 0u);
  }
  cluster.settle();
}

// A lane that failed sends no more: what it has sent must not lie there until the front goes.
TEST_F(VolumeExtentTest, WhatAFailedLaneHasSentIsDropped) {
  SimCluster cluster(113, 3);
  cluster.begin(2);
  auto writer = cluster.loop().wait(stream(cluster, 0).promise());
  cluster.until([&]() { return cluster.node(2).extents().statistics().quarantined == 1; }, 1000,
                "the extent streams to c");
  cluster.network().cut("a", "c");
  IoBuffer last = blockOf(1234, 9);
  cluster.loop().wait(writer->writeBlock(kBlocks - 1, last));
  auto sealed = cluster.loop().wait(writer->seal(kBytes));
  EXPECT_EQ(sealed.sealedOn.size(), 2u);
  cluster.loop().runFor(300 * kj::MILLISECONDS);
  cluster.network().heal();
  cluster.until([&]() { return cluster.node(2).extents().statistics().quarantined == 0; }, 2000,
                "c drops what it has");
  put(cluster, 0, sealed, "x");
  cluster.settle();
  EXPECT_TRUE(cluster.node(2).extents().isSealed(sealed.info.id));
}

// A client's line may be slow, and the deltas of a large pack take minutes.
TEST_F(VolumeExtentTest, AFrontThatLivesMayTakeItsTime) {
  SimCluster cluster(108, 3);
  cluster.begin(2);
  auto writer = cluster.loop().wait(stream(cluster, 1).promise());
  cluster.loop().runFor(20 * kj::MINUTES);
  auto sealed = cluster.loop().wait(writer->seal(kBytes));
  cluster.loop().runFor(1 * kj::SECONDS);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(cluster.node(i).extents().isSealed(sealed.info.id)) << i;
  }
  put(cluster, 1, sealed, "x");
  settleAndCheck(cluster, sealed.info.id);
}

TEST_F(VolumeExtentTest, WhatAFrontLeavesThatDiesIsDropped) {
  SimCluster cluster(109, 3);
  cluster.begin(2);
  auto writer = cluster.loop().wait(stream(cluster, 2).promise());
  cluster.until([&]() { return cluster.node(0).extents().statistics().quarantined == 1 &&
                               cluster.node(1).extents().statistics().quarantined == 1; }, 1000,
                "the extent streams to all");
  writer = nullptr;
  cluster.node(2).stop();
  cluster.loop().runFor(2 * kj::MINUTES);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(cluster.node(i).extents().statistics().quarantined, 0u);
}

TEST_F(VolumeExtentTest, WithoutWMembersTheSealIsRefused) {
  SimCluster cluster(106, 3);
  cluster.begin(2);
  cluster.node(1).stop();
  cluster.node(2).stop();
  auto outcome = cluster.loop().wait(outcomeOf(streamAndSeal(cluster, 0).promise()));
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(KJ_ASSERT_NONNULL(outcome.exception).getType(), kj::Exception::Type::OVERLOADED);
}

TEST_F(VolumeExtentTest, AMemberThatStopsTakingBlocksIsLeftBehind) {
  SimCluster cluster(107, 3);
  cluster.begin(2);
  cluster.network().isolate("c", cluster.nodeIds());
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  put(cluster, 0, sealed, "x");
  cluster.network().heal();
  settleAndCheck(cluster, sealed.info.id);
}

TEST_F(VolumeExtentTest, AnUnfinishedStreamDoesNotHoldUpTheMember) {
  SimCluster cluster(112, 3);
  cluster.begin(2);
  cluster.network().cut("c", "b");
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 2).promise());
  cluster.network().heal();
  // One block has reached b. Then the front is gone.
  IoBuffer block = blockOf(kBlockBytes, 0);
  auto peers = cluster.network().makePeers("c");
  cluster.loop().wait(peers->peer("b").writeExtentBlock(sealed.info.id, 0, block,
                                                        hashBytes(block.bytes())));
  put(cluster, 2, sealed, "x");
  cluster.node(2).stop();
  cluster.until([&]() {
    const VolumeStatus status = cluster.node(1).volume().status();
    return status.applied >= cluster.acknowledged().back().index;
  }, 5000, "b has the record and its extent");
  cluster.startAll();
  settleAndCheck(cluster, sealed.info.id);
}

TEST_F(VolumeExtentTest, TooFewHoldersAreRefusedBeforeAnythingIsWritten) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = 500;
  SimCluster cluster(108, 3, options);
  cluster.begin(2);
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  sealed.info.id = cluster.newTxn();  // an extent that nobody holds, whatever is claimed
  sealed.sealedOn = {"a"};
  const RecordIndex before = cluster.node(0).volume().status().last;
  auto outcome = cluster.loop().wait(outcomeOf(cluster.node(0).volume().propose(
      withExtent(cluster, sealed, cluster.newTxn(), "put pack x"))));
  EXPECT_FALSE(outcome.ok());
  EXPECT_EQ(cluster.node(0).volume().status().last, before);
}

TEST_F(VolumeExtentTest, ATakeoverFetchesExtentsWithTheRecordsThatNameThem) {
  SimCluster cluster(109, 3);
  cluster.begin(2);
  cluster.network().isolate("c", cluster.nodeIds());
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  put(cluster, 0, sealed, "x");
  cluster.node(0).stop();
  cluster.network().heal();
  cluster.loop().wait(cluster.node(2).volume().takeOver());
  EXPECT_EQ(cluster.get(2, "pack"), "x");
  cluster.startAll();
  settleAndCheck(cluster, sealed.info.id);
}

// The newest log names an extent that nobody has any more: the candidate that lacks the record cannot come
// to hold that log, and gives way to a member that has it.
TEST_F(VolumeExtentTest, ATakeoverThatNeedsWhatWasDroppedGivesWay) {
  SimCluster cluster(112, 3);
  cluster.extentOptions.expiryMs = 100;
  cluster.begin(2);
  cluster.node(2).stop();
  auto sealed = cluster.loop().wait(streamAndSeal(cluster, 0).promise());
  put(cluster, 0, sealed, "x");
  cluster.put(0, "drop-extents", "all");
  cluster.settle();
  // What a log names is pinned until a life in which it was applied before.
  const RecordIndex dropped = cluster.node(0).volume().status().last;
  for (size_t i : {0, 1}) {
    cluster.until([&]() { return cluster.node(i).volume().status().checkpoint >= dropped; }, 60'000,
                  "the state is durable");
    cluster.restart(i);
  }
  cluster.until([&]() {
    return !cluster.node(0).extents().isSealed(sealed.info.id) &&
           !cluster.node(1).extents().isSealed(sealed.info.id);
  }, 60'000, "the extent is dropped");
  cluster.awaitPrimary();
  cluster.network().isolate("c", cluster.nodeIds());
  cluster.loop().wait(cluster.node(2).start().promise());
  cluster.until([&]() { return cluster.node(2).hasVolume(); }, 20'000, "c has its volume");
  auto taking = replicator::outcomeOf(cluster.node(2).volume().takeOver());
  cluster.network().heal();
  auto taken = cluster.loop().wait(kj::mv(taking));
  KJ_IF_MAYBE(refusal, taken) {
    EXPECT_NE(std::string(refusal->getDescription().cStr()).find("dropped"), std::string::npos)
        << refusal->getDescription().cStr();
  } else {
    ADD_FAILURE() << "c leads without what the log names";
  }
  cluster.awaitPrimary();
  EXPECT_EQ(cluster.get(1, "pack"), "x");
  cluster.put(1, "after", "1");
  cluster.startAll();
  cluster.settle();
  cluster.verify();
}

TEST_F(VolumeExtentTest, RecordsAndExtentsSurviveRestartsAndSwitchovers) {
  SimCluster cluster(110, 3);
  cluster.begin(2);
  std::vector<ExtentId> ids;
  for (int i = 0; i < 12; ++i) {
    const size_t front = static_cast<size_t>(i) % 3;
    auto sealed = cluster.loop().wait(streamAndSeal(cluster, front).promise());
    put(cluster, front, sealed, std::to_string(i));
    ids.push_back(sealed.info.id);
    const size_t victim = cluster.random().below(3);
    if (i % 2 == 0) {
      cluster.node(victim).losePower();
      cluster.startAll();
      cluster.awaitPrimary();
    } else {
      cluster.loop().wait(cluster.node(0).volume().switchOver(cluster.node(victim).id()));
    }
  }
  cluster.settle();
  cluster.verify();
  for (const ExtentId& id : ids) {
    for (size_t i = 0; i < 3; ++i) expectWhole(cluster, i, id);
  }
}

}  // namespace
}  // namespace packmoor::replicator
