// Goal: whatever rots on a running member's disk is found by a pass of its scrubber and mended, nothing
// is forgotten by that, and a pass goes on where it was, whatever happens. Method: bits are flipped on
// the disks of whole nodes in virtual time, of standbys and of primaries, and nodes are started again.
#include "replicator/scrubber.h"

#include "replicator/journal_format.h"
#include "scrub_progress.h"
#include "sim_load.h"

#include <gtest/gtest.h>

#include <cstring>

namespace packmoor::replicator {
namespace {

constexpr uint64_t kExtentBytes = 3 * kBlockBytes + 1000;

ReplicatorOptions longLog() {
  ReplicatorOptions options = SimCluster::testOptions();
  options.logRetainBytes = options.logRepairBytes = 64u << 20;
  return options;
}

kernelio::IoBuffer blockOf(size_t bytes, uint64_t seed) {
  auto data = kernelio::IoBuffer::allocate(bytes);
  for (size_t i = 0; i < bytes; ++i) data.begin()[i] = static_cast<kj::byte>(seed + i * 31 + i / 7);
  return data;
}

Co<ReplicatedExtentWriter::Sealed> makeExtent(SimCluster& cluster, size_t node) {
  auto beginning = cluster.node(node).replicator().beginExtent(cluster.node(node).volume());
  auto writer = co_await kj::mv(beginning);
  for (uint64_t block = 0; block * kBlockBytes < kExtentBytes; ++block) {
    auto data = blockOf(blockBytesAt(kExtentBytes, block), block);
    co_await writer->writeBlock(block, data);
  }
  auto sealing = writer->seal(kExtentBytes);
  auto sealed = co_await kj::mv(sealing);
  co_return sealed;
}

// A node's scrubber, which goes when the node does.
class Scrubbing final : private kj::TaskSet::ErrorHandler {
 public:
  Scrubbing(SimCluster& cluster, size_t node, ScrubOptions options = ScrubOptions()) {
    SimNode& on = cluster.node(node);
    auto opening = Scrubber::open(
        ScrubParts{on.env(), on.journal(), on.extents(), on.replicator()}, options);
    scrubber_ = cluster.loop().wait(kj::mv(opening));
    tasks_.add(scrubber_->run());
  }
  Scrubber* operator->() { return scrubber_.get(); }

 private:
  void taskFailed(kj::Exception&& exception) override { ADD_FAILURE() << kj::str(exception).cStr(); }

  kj::Own<Scrubber> scrubber_;
  kj::TaskSet tasks_{*this};
};

class ScrubberTest : public testing::Test {
 protected:
  static ScrubStatus pass(SimCluster& cluster, Scrubbing& scrubber) {
    const uint64_t before = scrubber->status().passes;
    cluster.loop().wait(scrubber->start());
    cluster.until([&]() { return scrubber->status().passes > before; }, 60'000, "a pass is complete");
    return scrubber->status();
  }

  static void untilMended(SimCluster& cluster, Scrubbing& scrubber) {
    cluster.until([&]() {
      for (const ScrubFinding& finding : scrubber->status().findings) {
        if (finding.mendedMs == 0) return false;
      }
      return true;
    }, 60'000, "all is mended");
  }

  static ExtentId putExtent(SimCluster& cluster) {
    auto sealed = cluster.loop().wait(makeExtent(cluster, 0).promise());
    const TxnId txn = cluster.newTxn();
    Proposal proposal = kvProposal(txn, "put pack 1");
    proposal.extents.push_back(sealed.info.id);
    proposal.sealedOn = sealed.sealedOn;
    auto outcome = cluster.loop().wait(cluster.node(0).volume().propose(kj::mv(proposal)));
    cluster.remember(txn, outcome.index, "put pack 1");
    cluster.settle();
    return sealed.info.id;
  }

  static size_t standbyOf(SimCluster& cluster) {
    return cluster.indexOf(cluster.awaitPrimary()) == 2 ? 1 : 2;
  }

  // Flips bits in a batch with records in the middle of a closed segment. The highest record that the
  // node then has durably in the state is returned.
  static void rotClosedSegment(SimCluster& cluster, size_t node) {
    cluster.damageExpected = true;
    SimNode& on = cluster.node(node);
    const auto closed = on.journal().closedSegments();
    ASSERT_GE(closed.size(), 3u);
    const uint64_t wanted = closed[1];
    auto names = cluster.loop().wait(on.env().disk.list("journal"));
    for (const auto& name : names) {
      if (!name.startsWith("segment-")) continue;
      const std::string path = std::string("journal/") + name.cStr();
      auto bytes = KJ_ASSERT_NONNULL(on.storage().content(path.c_str()));
      uint64_t place = 0, seen = 0;
      for (uint64_t at = 0; at + sizeof(format::FrameHeader) <= bytes.size();
           at += format::kFrameAlignment) {
        format::FrameHeader header;
        std::memcpy(&header, bytes.begin() + at, sizeof header);
        if (header.magic != format::kFrameMagic || header.segmentSequence != wanted) continue;
        if (++seen == 10) place = at;
      }
      if (place == 0) continue;
      on.storage().rot(path.c_str(), place, 200);
      return;
    }
    FAIL() << "the segment is not there";
  }

  static void fillJournal(SimCluster& cluster) {
    SimLoad load(cluster, {0, 0, 1, 1});
    cluster.until([&]() { return cluster.node(0).journal().closedSegments().size() >= 4 &&
                                 cluster.node(1).journal().closedSegments().size() >= 4 &&
                                 cluster.node(2).journal().closedSegments().size() >= 4; },
                  120'000, "segments are closed");
    load.join();
    EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    cluster.settle();
  }
};

TEST_F(ScrubberTest, WhatIsWholeStaysAsItIs) {
  SimCluster cluster(801, 3, longLog());
  cluster.begin(2);
  putExtent(cluster);
  fillJournal(cluster);
  Scrubbing scrubber(cluster, 0);
  const ScrubStatus status = pass(cluster, scrubber);
  EXPECT_EQ(status.findings.size(), 0u);
  EXPECT_EQ(status.extents.found + status.journal.found + status.state.found, 0u);
  EXPECT_EQ(status.phase, ScrubPhase::kIdle);
  EXPECT_GT(status.lastPassMs, 0);
  EXPECT_GT(status.bytesTotal, kExtentBytes + 4 * SimCluster::journalOptions().segmentBytes);
  EXPECT_GE(status.bytesDone, status.bytesTotal);
  cluster.verify();
}

TEST_F(ScrubberTest, ExtentsAreRepaired) {
  SimCluster cluster(802, 3, longLog());
  cluster.begin(2);
  const ExtentId id = putExtent(cluster);
  for (size_t node = 0; node < 3; ++node) {
    auto& storage = cluster.node(node).storage();
    std::string path = cluster.node(node).extents().path(id).cStr();
    storage.rot(path.c_str(), kBlockBytes + 77, 1);
    storage.breakSectors(path.c_str(), 2 * kBlockBytes, 1);
    path.replace(path.rfind(".data"), 5, ".sum");
    storage.rot(path.c_str(), 90, 1);
    Scrubbing scrubber(cluster, node);
    const ScrubStatus status = pass(cluster, scrubber);
    EXPECT_EQ(status.extents.found, 3u);
    EXPECT_EQ(status.extents.mended, 3u);
    ASSERT_EQ(status.findings.size(), 3u);
    for (const ScrubFinding& finding : status.findings) {
      EXPECT_EQ(finding.kind, ScrubPhase::kExtents);
      EXPECT_EQ(finding.extent, id);
      EXPECT_GT(finding.mendedMs, 0);
      EXPECT_NE(finding.what.find(id.text().cStr()), std::string::npos) << finding.what;
    }
    cluster.loop().wait(scrubber->acknowledge());
    EXPECT_EQ(scrubber->status().findings.size(), 0u);
  }
  for (size_t node = 0; node < 3; ++node) cluster.restart(node);
  for (size_t node = 0; node < 3; ++node) {
    EXPECT_TRUE(cluster.node(node).extents().isSealed(id));
    Scrubbing scrubber(cluster, node);
    EXPECT_EQ(pass(cluster, scrubber).extents.found, 3u);  // those from before
  }
}

// Nobody has the block at first. It stands, is tried again, and is mended once a member is there.
TEST_F(ScrubberTest, WhatCannotBeMendedIsTriedAgain) {
  SimCluster cluster(803, 2, longLog());
  cluster.begin(2);
  const ExtentId id = putExtent(cluster);
  cluster.node(1).stop();
  cluster.node(0).storage().rot(cluster.node(0).extents().path(id), 5, 1);
  Scrubbing scrubber(cluster, 0);
  ScrubStatus status = pass(cluster, scrubber);
  ASSERT_EQ(status.findings.size(), 1u);
  EXPECT_EQ(status.findings[0].mendedMs, 0);
  EXPECT_NE(status.findings[0].problem.find("no other member"), std::string::npos)
      << status.findings[0].problem;
  status = pass(cluster, scrubber);
  EXPECT_EQ(status.findings.size(), 1u);  // the same
  EXPECT_EQ(status.extents.found, 1u);
  cluster.startAll();
  untilMended(cluster, scrubber);
  EXPECT_EQ(scrubber->status().extents.mended, 1u);
  EXPECT_EQ(cluster.node(0).extents().statistics().blocksStanding, 0u);
}

// The state has let go of the extent, and the others have dropped it; here the log still holds it, for members
// that are behind. Nothing stands then; and such a member is not given a bad block, but told that it is dropped.
TEST_F(ScrubberTest, WhatTheStateHasLetGoOfNeedsNoMending) {
  SimCluster cluster(808, 3, longLog());
  cluster.extentOptions.expiryMs = 100;
  cluster.begin(2);
  const ExtentId id = putExtent(cluster);
  cluster.put(0, "drop-extents", "all");
  cluster.settle();
  const RecordIndex dropped = cluster.node(0).volume().status().last;
  const size_t here = standbyOf(cluster);
  for (size_t i = 0; i < 3; ++i) {
    if (i == here) continue;
    cluster.until([&]() { return cluster.node(i).volume().status().checkpoint >= dropped; }, 60'000,
                  "the state is durable");
    cluster.restart(i);
    cluster.until([&]() { return !cluster.node(i).extents().isSealed(id); }, 60'000, "it is dropped");
  }
  cluster.awaitPrimary();
  SimNode& node = cluster.node(here);
  ASSERT_TRUE(node.extents().isSealed(id));
  node.storage().rot(node.extents().path(id), 5, 1);
  auto tells = [&]() {
    return cluster.loop().wait(node.replicator().extentInfo(cluster.node(0).id(), id));
  };
  EXPECT_EQ(tells().first, kExtentBytes);
  Scrubbing scrubber(cluster, here);
  const ScrubStatus status = pass(cluster, scrubber);
  EXPECT_EQ(status.extents.found, 1u);
  EXPECT_EQ(status.extents.mended, 1u);
  ASSERT_EQ(status.findings.size(), 1u);
  EXPECT_NE(status.findings[0].what.find("is needed no more"), std::string::npos)
      << status.findings[0].what;
  EXPECT_EQ(tells().first, 0u);
  EXPECT_EQ(node.extents().statistics().blocksStanding, 0u);
  cluster.settle();
  cluster.verify();
}

TEST_F(ScrubberTest, ARottenSegmentIsNeededNoMore) {
  for (bool ofPrimary : {false, true}) {
    SimCluster cluster(804 + ofPrimary, 3, longLog());
    cluster.begin(2);
    fillJournal(cluster);
    const size_t node = ofPrimary ? cluster.indexOf(cluster.awaitPrimary()) : standbyOf(cluster);
    const RecordIndex base = cluster.node(node).volume().status().base;
    rotClosedSegment(cluster, node);
    {
      SimLoad load(cluster, {0, 0, 1, 1});
      Scrubbing scrubber(cluster, node);
      const ScrubStatus found = pass(cluster, scrubber);
      EXPECT_EQ(found.journal.found, 1u);
      untilMended(cluster, scrubber);
      const ScrubStatus status = scrubber->status();
      ASSERT_EQ(status.findings.size(), 1u);
      EXPECT_EQ(status.findings[0].kind, ScrubPhase::kJournal);
      EXPECT_EQ(status.findings[0].volume, "main");
      EXPECT_NE(status.findings[0].what.find("The journal is damaged in segment-"),
                std::string::npos) << status.findings[0].what;
      EXPECT_GE(cluster.node(node).volume().status().base.value, status.findings[0].place);
      EXPECT_GT(cluster.node(node).volume().status().base, base);
      EXPECT_FALSE(cluster.node(node).volume().status().repairing);
      EXPECT_EQ(pass(cluster, scrubber).journal.found, 1u);  // nothing of it is left
      load.join();
      EXPECT_EQ(load.failed, 0u) << load.lastFailure;
    }
    // A restart finds nothing missing.
    cluster.restart(node);
    EXPECT_FALSE(cluster.node(node).volume().status().repairing);
    cluster.settle();
    cluster.verify();
  }
}

// The restart comes before the scrubber: recovery finds the rot, and the volume is repaired.
TEST_F(ScrubberTest, ARestartBeforeItIsMendedFindsTheRot) {
  ReplicatorOptions options = longLog();
  options.checkpointBytes = 64u << 20;
  options.checkpointIntervalMs = 3'600'000;
  SimCluster cluster(806, 3, options);
  cluster.begin(2);
  fillJournal(cluster);
  const size_t node = standbyOf(cluster);
  rotClosedSegment(cluster, node);
  cluster.node(node).stop();
  cluster.startAll();
  EXPECT_GT(cluster.node(node).recovered().damage.size(), 0u);
  cluster.until([&]() { return cluster.node(node).hasVolume() &&
                               !cluster.node(node).volume().status().repairing; },
                20'000, "it is whole");
  cluster.settle();
  cluster.verify();
}

TEST_F(ScrubberTest, ARottenStateIsReplaced) {
  for (bool ofPrimary : {false, true}) {
    SimCluster cluster(807 + ofPrimary, 3, longLog());
    cluster.begin(2);
    for (int i = 0; i < 50; ++i) cluster.put(0, "k" + std::to_string(i), "v");
    cluster.settle();
    const size_t node = ofPrimary ? cluster.indexOf(cluster.awaitPrimary()) : standbyOf(cluster);
    cluster.node(node).disk.rot = "table 3 is damaged";
    Scrubbing scrubber(cluster, node);
    EXPECT_EQ(pass(cluster, scrubber).state.found, 1u);
    untilMended(cluster, scrubber);
    EXPECT_EQ(scrubber->status().state.mended, 1u);
    EXPECT_EQ(scrubber->status().findings.at(0).what, "Of volume main, table 3 is damaged.");
    EXPECT_EQ(cluster.node(node).disk.replaced, 1u);
    EXPECT_EQ(pass(cluster, scrubber).state.found, 1u);
    cluster.settle();
    cluster.verify();
  }
}

// So slow that a pass takes a while: it can be paused, and goes on where it was after a restart.
TEST_F(ScrubberTest, APassGoesOnWhereItWas) {
  ScrubOptions slow;
  slow.bytesPerSecond = 40'000;
  SimCluster cluster(809, 1);
  cluster.begin(1);
  for (int i = 0; i < 4; ++i) putExtent(cluster);
  {
    Scrubbing scrubber(cluster, 0, slow);
    cluster.loop().wait(scrubber->start());
    cluster.until([&]() { return scrubber->status().bytesDone > kExtentBytes + kBlockBytes; },
                  600'000, "a part of it is done");
    EXPECT_EQ(scrubber->status().phase, ScrubPhase::kExtents);
    EXPECT_GT(scrubber->status().bytesPerSecond, 0u);
    cluster.loop().wait(scrubber->pause());
    const uint64_t done = scrubber->status().bytesDone;
    cluster.loop().runFor(60 * kj::SECONDS);
    EXPECT_LE(scrubber->status().bytesDone, done + kBlockBytes);
    EXPECT_EQ(scrubber->status().bytesPerSecond, 0u);
  }
  cluster.restart(0);
  {
    Scrubbing scrubber(cluster, 0, slow);
    EXPECT_TRUE(scrubber->status().paused);
    cluster.loop().runFor(60 * kj::SECONDS);
    EXPECT_EQ(scrubber->status().phase, ScrubPhase::kExtents);
    const uint64_t had = scrubber->status().bytesDone;
    EXPECT_GT(had, kExtentBytes);
    cluster.loop().wait(scrubber->resume());
    cluster.until([&]() { return scrubber->status().passes == 1; }, 3'600'000, "it is complete");
    // Not all of it again: at most the extent that was being read, and one whose end was not saved.
    EXPECT_LT(scrubber->status().bytesDone, scrubber->status().bytesTotal + 2 * kExtentBytes);
  }
}

TEST_F(ScrubberTest, PassesComeByThemselves) {
  ScrubOptions often;
  often.intervalMs = 100'000;
  SimCluster cluster(810, 1);
  cluster.begin(1);
  Scrubbing scrubber(cluster, 0, often);
  EXPECT_EQ(scrubber->status().dueMs, scrubber->status().sinceMs + 100'000);
  cluster.loop().runFor(350 * kj::SECONDS);
  EXPECT_EQ(scrubber->status().passes, 3u);
}

TEST(ScrubProgressTest, ComesBackAsItWas) {
  ScrubProgress progress;
  progress.wanted = progress.status.paused = true;
  progress.status.phase = ScrubPhase::kState;
  progress.status.journal = {3, 2};
  progress.status.bytesDone = 7;
  progress.segment = 12;
  progress.volume = "main";
  progress.file = "000012.sst";
  ScrubFinding finding;
  finding.kind = ScrubPhase::kJournal;
  finding.volume = "main";
  finding.place = 99;
  finding.what = "It is damaged.";
  finding.foundMs = 5;
  progress.status.findings.push_back(finding);
  auto bytes = encodeScrubProgress(progress);
  auto decoded = decodeScrubProgress(bytes);
  const ScrubProgress& back = KJ_ASSERT_NONNULL(decoded);
  EXPECT_TRUE(back.wanted && back.status.paused);
  EXPECT_EQ(back.status.phase, ScrubPhase::kState);
  EXPECT_EQ(back.status.journal.found, 3u);
  EXPECT_EQ(back.status.journal.mended, 2u);
  EXPECT_EQ(back.status.bytesDone, 7u);
  EXPECT_EQ(back.segment, 12u);
  EXPECT_EQ(back.volume, "main");
  EXPECT_EQ(back.file, "000012.sst");
  ASSERT_EQ(back.status.findings.size(), 1u);
  EXPECT_EQ(back.status.findings[0].place, 99u);
  EXPECT_EQ(back.status.findings[0].what, "It is damaged.");
  for (size_t at = 0; at < bytes.size(); ++at) {
    bytes[at] ^= 4;
    EXPECT_TRUE(decodeScrubProgress(bytes) == nullptr) << at;
    bytes[at] ^= 4;
  }
}

}  // namespace
}  // namespace packmoor::replicator
