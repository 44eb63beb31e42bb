// Goal: a member that needs records which no log holds any more gets a checkpoint and follows again,
// whatever is killed, cut or damaged on the way, and the switch to it is all or nothing. Method:
// whole nodes under virtual time with small journals; member "c" is stopped, the log is recycled
// below it, and it comes back.
#include "sim_load.h"
#include "state_transfer.h"

#include "replicator/outcome.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

constexpr uint64_t kFillerBytes = 3'000'000;   // of each checkpoint: a dozen blocks

ReplicatorOptions smallLogs() {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 100u << 10;
  return options;
}

// So slow that there is time to look at it: 3 MB in 3 seconds.
ReplicatorOptions slow() {
  ReplicatorOptions options = smallLogs();
  options.transferBytesPerSecond = 1'000'000;
  return options;
}

Co<ReplicatedExtentWriter::Sealed> sealedExtent(SimCluster& cluster, size_t node) {
  SimNode& at = cluster.node(node);
  auto writer = co_await at.replicator().beginExtent(at.volume());
  auto data = kernelio::IoBuffer::allocate(1000);
  std::fill(data.begin(), data.begin() + data.size(), kj::byte(7));
  co_await writer->writeBlock(0, kj::mv(data));
  auto sealed = co_await writer->seal(1000);
  co_return sealed;
}

class StateTransferTest : public testing::Test {
 protected:
  // Three nodes; "c" is down and the log of the others begins above what it has.
  void beginWithOneBehind(SimCluster& cluster) {
    cluster.kvOptions.checkpointBytes = kFillerBytes;
    cluster.begin(2);
    for (int i = 0; i < 5; ++i) cluster.put(0, "early", std::to_string(i));
    cluster.settle();
    cluster.node(2).stop();
    recycle(cluster, cluster.node(2).disk.durable.applied.index);
  }

  // Until the primary's log begins above `index`.
  void recycle(SimCluster& cluster, RecordIndex index) {
    SimLoad load(cluster, {0, 0, 1, 1}, 1);
    cluster.until([&]() {
      auto primary = cluster.primary();
      return primary != nullptr && primary->volume().status().base.value > index.value + 100;
    }, 120'000, "the log is recycled");
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  }

  void startC(SimCluster& cluster) { cluster.restart(2); }

  void settleAndVerify(SimCluster& cluster) {
    cluster.settle(120'000);
    cluster.verify();
    for (size_t n = 0; n < 3; ++n) EXPECT_EQ(cluster.get(n, "early"), "4");
  }

  void awaitPhase(SimCluster& cluster, const char* phase) {
    cluster.until([&]() {
      return cluster.node(2).hasVolume() &&
             cluster.node(2).volume().status().transfer.phase == phase;
    }, 60'000, phase);
  }

  // All is there on every node, and c needed one checkpoint for it.
  void settleInstalledOnce(SimCluster& cluster) {
    settleAndVerify(cluster);
    EXPECT_EQ(installedAtC(cluster), 1u);
  }

  uint64_t installedAtC(SimCluster& cluster) {
    return cluster.node(2).volume().status().transfer.installed;
  }
};

TEST_F(StateTransferTest, AMemberBelowTheLogOfThePrimaryConverges) {
  SimCluster cluster(501, 3, smallLogs());
  beginWithOneBehind(cluster);
  startC(cluster);
  settleInstalledOnce(cluster);
  cluster.until([&]() { return cluster.node(2).volume().status().problem.empty(); }, 5000,
                "nothing is wrong there any more");
  // It counts again: with one of the others down, a write quorum is there.
  cluster.node(1).stop();
  cluster.awaitPrimary();
  cluster.put(0, "late", "1");
  EXPECT_EQ(cluster.get(2, "late"), "1");
}

// A pruned pack is let go by those who have applied the prune. A member that has not even the pack's own
// record yet finds nobody who would give it.
TEST_F(StateTransferTest, AMemberThatNeedsWhatWasDroppedConverges) {
  SimCluster cluster(519, 3);
  cluster.extentOptions.expiryMs = 1000;
  cluster.begin(2);
  cluster.put(0, "early", "4");
  cluster.settle();
  cluster.node(2).stop();
  auto sealed = cluster.loop().wait(sealedExtent(cluster, 0).promise());
  Proposal proposal = kvProposal(cluster.newTxn(), "put pack 1");
  proposal.extents.push_back(sealed.info.id);
  proposal.sealedOn = sealed.sealedOn;
  cluster.loop().wait(cluster.node(0).volume().propose(kj::mv(proposal)));
  cluster.put(0, "k", "1");
  cluster.settle();
  for (size_t n = 0; n < 2; ++n) {
    cluster.loop().wait(cluster.node(n).volume().checkpointNow());
    cluster.node(n).stop();
    cluster.node(n).disk.durable.extents.clear();  // its state names it no more
  }
  for (size_t n = 0; n < 2; ++n) cluster.node(n).boot();
  cluster.awaitPrimary();
  cluster.until([&]() {
    return !cluster.node(0).extents().isSealed(sealed.info.id) &&
           !cluster.node(1).extents().isSealed(sealed.info.id);
  }, 10'000, "the extent is removed");
  EXPECT_EQ(cluster.awaitPrimary().volume().status().base.value, 0u) << "the log has all records";
  startC(cluster);
  settleAndVerify(cluster);
  EXPECT_EQ(installedAtC(cluster), 1u);
  cluster.put(0, "late", "1");
  settleAndVerify(cluster);
}

TEST_F(StateTransferTest, ThePrimaryServesMeanwhile) {
  SimCluster cluster(502, 3, slow());
  beginWithOneBehind(cluster);
  SimLoad load(cluster, {0, 0, 1}, 5);
  startC(cluster);
  awaitPhase(cluster, "fetching");
  const uint64_t before = load.done;
  cluster.loop().runFor(500 * kj::MILLISECONDS);
  EXPECT_EQ(cluster.node(2).volume().status().transfer.phase, "fetching");
  EXPECT_GT(load.done, before + 50);
  // The primary says what the member does; the member says how far it is.
  SimNode& primary = cluster.awaitPrimary();
  bool told = false;
  for (const MemberStatus& member : primary.volume().status().members) {
    told = told || (member.node == "c" && member.problem.find("checkpoint") != std::string::npos);
  }
  EXPECT_TRUE(told);
  const TransferStatus transfer = cluster.node(2).volume().status().transfer;
  EXPECT_EQ(transfer.source, primary.id());
  EXPECT_GT(transfer.fileBytesDone, 0u);
  EXPECT_LT(transfer.fileBytesDone, transfer.fileBytes);
  load.join();
  EXPECT_EQ(load.failed, 0u) << load.lastFailure;
  settleInstalledOnce(cluster);
}

TEST_F(StateTransferTest, ANewMemberWithoutDataGetsItsStateTheSameWay) {
  SimCluster cluster(503, 3, smallLogs());
  cluster.kvOptions.checkpointBytes = kFillerBytes;
  cluster.startAll();
  cluster.node(2).stop();   // it is registered, and has never heard of the volume
  cluster.loop().wait(cluster.node(0).replicator().createVolume("main", cluster.nodeIds(), 2));
  cluster.awaitPrimary();
  for (int i = 0; i < 5; ++i) cluster.put(0, "early", std::to_string(i));
  recycle(cluster, RecordIndex(10));
  startC(cluster);
  settleInstalledOnce(cluster);
}

// The receiver is killed, or loses power, again and again; what it has fetched is not fetched again.
TEST_F(StateTransferTest, ARestartOfTheReceiverKeepsWhatItHas) {
  SimCluster cluster(504, 3, slow());
  beginWithOneBehind(cluster);
  startC(cluster);
  uint64_t fetched = 0;
  for (int kills = 0; kills < 6; ++kills) {
    awaitPhase(cluster, "fetching");
    cluster.loop().runFor(120 * kj::MILLISECONDS);
    const TransferStatus status = cluster.node(2).volume().status().transfer;
    EXPECT_GE(status.fileBytesDone, fetched) << "restart " << kills;
    fetched = status.fileBytesDone;
    startC(cluster);
  }
  EXPECT_GT(fetched, kFillerBytes / 4);
  settleInstalledOnce(cluster);
}

// Its checkpoints go with the source; the receiver begins a new one and keeps the blocks that are equal.
TEST_F(StateTransferTest, ARestartOfTheSourceCostsOnlyWhatHasChanged) {
  SimCluster cluster(505, 3, slow());
  beginWithOneBehind(cluster);
  startC(cluster);
  for (int kills = 0; kills < 4; ++kills) {
    awaitPhase(cluster, "fetching");
    cluster.loop().runFor(200 * kj::MILLISECONDS);
    const uint64_t before = cluster.node(2).volume().status().transfer.fileBytesDone;
    SimNode& primary = cluster.awaitPrimary();
    primary.stop();
    // Nothing commits: of the two that are left, one has no log to count with.
    cluster.loop().runFor(700 * kj::MILLISECONDS);
    cluster.loop().wait(primary.start().promise());
    cluster.awaitPrimary();
    awaitPhase(cluster, "fetching");
    // The state's own file has changed; the others have not.
    const uint64_t after = cluster.node(2).volume().status().transfer.fileBytesDone;
    EXPECT_GE(after + (600u << 10), before) << "restart " << kills;
  }
  settleAndVerify(cluster);
}

// The newest log but one is all that is left: its holder cannot lead alone, and the member that is
// behind cannot lead at all. It fetches from the candidate, and then they are two.
TEST_F(StateTransferTest, TheSourceMayBeLostForGood) {
  SimCluster cluster(508, 3, slow());
  beginWithOneBehind(cluster);
  startC(cluster);
  awaitPhase(cluster, "fetching");
  cluster.loop().runFor(500 * kj::MILLISECONDS);
  cluster.node(0).stop();
  cluster.awaitPrimary(60'000);
  EXPECT_EQ(cluster.primary(), &cluster.node(1));
  cluster.put(1, "late", "1");
  EXPECT_EQ(cluster.get(2, "late"), "1");
  cluster.startAll();
  settleAndVerify(cluster);
}

TEST_F(StateTransferTest, ACorruptedBlockIsFetchedAgain) {
  SimCluster cluster(506, 3, smallLogs());
  beginWithOneBehind(cluster);
  cluster.network().links.corruptPerMillion = 200'000;
  startC(cluster);
  cluster.until([&]() {
    return cluster.node(2).volume().status().transfer.blocksRefetched > 0 ||
           installedAtC(cluster) > 0;
  }, 60'000, "a block comes damaged");
  EXPECT_GT(cluster.node(2).volume().status().transfer.blocksRefetched, 0u);
  settleInstalledOnce(cluster);
}

// It was the primary and has records of its own where the new primary's log begins. The new primary still
// has in memory what both had before; that must not hide that the records behind it are gone.
TEST_F(StateTransferTest, AMemberThatPartedBelowTheLogOfThePrimaryConverges) {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = 512;
  options.proposeTimeoutMs = 300;
  SimCluster cluster(509, 3, options);
  cluster.begin(2);
  for (int i = 0; i < 5; ++i) cluster.put(0, "early", std::to_string(i));
  cluster.settle();
  cluster.network().isolate("a", cluster.nodeIds());
  const RecordIndex parted = cluster.node(0).volume().status().committed;
  for (int i = 0; i < 60; ++i) {
    cluster.tasks().add(outcomeOf(cluster.node(0).volume().propose(
        kvProposal(cluster.newTxn(), "put own " + std::to_string(i)))).ignoreResult());
  }
  cluster.until([&]() { return cluster.primary() != &cluster.node(0); }, 20'000, "another leads");
  const size_t leads = cluster.indexOf(*cluster.primary());
  for (int i = 0; i < 20; ++i) cluster.put(leads, "k", std::to_string(i));
  cluster.loop().wait(cluster.node(leads).volume().checkpointNow());
  cluster.until([&]() { return cluster.node(leads).volume().status().base > parted; }, 20'000,
                "the log is recycled");
  ASSERT_LT(cluster.node(leads).volume().status().base,
            cluster.node(0).volume().status().last);
  cluster.network().heal();
  cluster.settle();
  cluster.verify();
  EXPECT_EQ(cluster.node(0).volume().status().transfer.installed, 1u);
}

Co<ReplicatedExtentWriter::Sealed> writeExtent(SimCluster& cluster, size_t node) {
  auto writer = co_await cluster.node(node).replicator().beginExtent(cluster.node(node).volume());
  auto block = kernelio::IoBuffer::allocate(1000);
  std::fill(block.begin(), block.begin() + 1000, kj::byte{7});
  co_await writer->writeBlock(0, kj::mv(block));
  auto sealed = co_await writer->seal(1000);
  co_return sealed;
}

// A front began to send an extent that the state names, and sends no more of it.
TEST_F(StateTransferTest, AnUnfinishedStreamOfAnExtentDoesNotHoldItUp) {
  SimCluster cluster(507, 3, slow());
  cluster.kvOptions.checkpointBytes = kFillerBytes;
  cluster.begin(2);
  for (int i = 0; i < 5; ++i) cluster.put(0, "early", std::to_string(i));
  cluster.settle();
  cluster.node(2).stop();
  auto sealed = cluster.loop().wait(writeExtent(cluster, 0).promise());
  Proposal proposal = kvProposal(cluster.newTxn(), "put pack 1");
  proposal.extents.push_back(sealed.info.id);
  proposal.sealedOn = sealed.sealedOn;
  cluster.loop().wait(cluster.node(0).volume().propose(kj::mv(proposal)));
  recycle(cluster, cluster.node(0).volume().status().applied);
  startC(cluster);
  awaitPhase(cluster, "fetching");
  auto peers = cluster.network().makePeers("a");
  auto half = kernelio::IoBuffer::allocate(500);
  std::fill(half.begin(), half.begin() + 500, kj::byte{7});
  const Hash128 checksum = hashBytes(half.bytes());
  cluster.loop().wait(peers->peer("c").writeExtentBlock(sealed.info.id, 0, half, checksum));
  EXPECT_EQ(cluster.node(2).extents().statistics().quarantined, 1u);
  settleAndVerify(cluster);
  EXPECT_EQ(installedAtC(cluster), 1u);
  EXPECT_TRUE(cluster.node(2).extents().isSealed(sealed.info.id));
}

// What has rotted in the staging folder while the receiver was down is seen and fetched again.
TEST_F(StateTransferTest, AStagedBlockThatRotsIsFetchedAgain) {
  SimCluster cluster(507, 3, slow());
  beginWithOneBehind(cluster);
  startC(cluster);
  awaitPhase(cluster, "fetching");
  cluster.loop().runFor(400 * kj::MILLISECONDS);
  const uint64_t before = cluster.node(2).volume().status().transfer.fileBytesDone;
  const std::string folder =
      StateTransfer::folderOf(cluster.node(2).volume().id()) + "/files/filler-0";
  cluster.node(2).stop();
  cluster.node(2).storage().rot(folder.c_str(), 8192, 4096);
  startC(cluster);
  awaitPhase(cluster, "fetching");
  EXPECT_LT(cluster.node(2).volume().status().transfer.fileBytesDone, before);
  settleInstalledOnce(cluster);
}

// Cuts the power of "c", which has begun to fetch, at its write `step` from now on. False: it has
// converged without that many.
bool cutPowerAtWrite(SimCluster& cluster, uint64_t step) {
  SimNode& c = cluster.node(2);
  c.storage().cutPowerAt(c.storage().writeBoundaries() + step + 1,
                         step % 2 == 0 ? kernelio::PowerCut::kDuring : kernelio::PowerCut::kAfter);
  cluster.until([&]() {
    return !c.storage().powered() ||
           (c.hasVolume() && c.volume().status().transfer.installed > 0 &&
            !c.volume().status().transfer.running);
  }, 60'000, "the power cut or the end");
  const bool cut = !c.storage().powered();
  c.losePower();
  return cut;
}

// Power is cut at one write after another around the installation: whatever is found, it is the old
// state or the new one, and the member converges.
TEST_F(StateTransferTest, APowerCutAroundTheSwitchLeavesTheOldStateOrTheNew) {
  size_t old = 0, installed = 0;
  bool cut = true;
  for (uint64_t step = 0; cut; ++step) {
    SCOPED_TRACE(step);
    SimCluster cluster(520, 3, smallLogs());
    beginWithOneBehind(cluster);
    startC(cluster);
    awaitPhase(cluster, "installing");
    cut = cutPowerAtWrite(cluster, step);
    startC(cluster);
    // Before it has heard anything that would change it.
    const VolumeStatus status = cluster.node(2).volume().status();
    EXPECT_FALSE(status.repairing) << status.problem;
    EXPECT_GE(status.checkpoint, status.base);
    ++(status.base.value > 100 ? installed : old);
    settleAndVerify(cluster);
    ASSERT_LT(step, 1000u);
  }
  EXPECT_GT(old, 1u);
  EXPECT_GT(installed, 1u);
}

// A receiver that has lost power at any write of the whole transfer converges.
TEST_F(StateTransferTest, APowerCutAnywhereOnTheWayIsSurvived) {
  bool cut = true;
  uint64_t step = 0;
  for (; cut; ++step) {
    SCOPED_TRACE(step);
    SimCluster cluster(540 + step, 3, smallLogs());
    beginWithOneBehind(cluster);
    cluster.startsMayFail = true;
    cluster.node(2).boot();
    cut = cutPowerAtWrite(cluster, step);
    cluster.startsMayFail = false;
    startC(cluster);
    settleAndVerify(cluster);
    ASSERT_LT(step, 1000u);
  }
  EXPECT_GT(step, 30u);
}

}  // namespace
}  // namespace packmoor::replicator
