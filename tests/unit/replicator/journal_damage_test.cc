// Goal: what rots in a journal is noticed, named, and never taken for a torn tail; what is torn is
// cut; a volume that may have lost something says so until it is repaired; a disk that refuses a
// write ends the process. Method: flips and faults at chosen places of a simulated disk.
#include "journal_fixture.h"
#include "replicator/journal_format.h"

#include <cstring>

namespace packmoor::replicator {
namespace {

using kernelio::SimFault;
using kernelio::SimFaultKind;
using kernelio::SimStorage;
using kernelio::VirtualLoop;

constexpr uint64_t kSector = 4096;
constexpr char kFirst[] = "journal/segment-000001";
constexpr char kSecond[] = "journal/segment-000002";

class JournalDamageTest : public testing::Test {
 protected:
  // Each append is one batch of one sector: batch 1 is the first snapshot, batch n + 1 the nth.
  void appendEach(JournalNode& node, VolumeId id, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) loop_.wait(node.append(id, 100, i));
  }
  // A life that ends by losing power `markerWaitMs` after its last acknowledgement.
  void live(uint64_t count, int64_t markerWaitMs) {
    JournalNode node(loop_, storage_);
    node.open();
    for (uint64_t i = 0; i < count; ++i) {
      loop_.wait(node.append(a_, 100, i));
      if (i == 0) loop_.wait(node.append(b_, 100, i));  // batch 3
    }
    loop_.runFor(markerWaitMs * kj::MILLISECONDS);
    storage_.cutPower();
  }
  void crashed(uint64_t count, int64_t markerWaitMs) {
    live(count, markerWaitMs);
    storage_.crash();
  }

  // All slots, where they have content.
  void rotMarker() {
    for (uint64_t slot = 0; slot < format::kMarkerSlots; ++slot) {
      storage_.rot("journal/marker", slot * kSector, sizeof(format::MarkerSlot));
    }
  }

  VirtualLoop loop_;
  SimStorage storage_{11};
  const VolumeId a_ = volumeId(1), b_ = volumeId(2);
};

TEST_F(JournalDamageTest, ATornTailBehindTheMarkerIsCut) {
  crashed(5, 0);  // batches 1 to 7; the marker knows none
  storage_.rot(kFirst, 6 * kSector + 200, 1);
  {
    JournalNode node(loop_, storage_, 2);
    node.open();
    EXPECT_EQ(sentences(node.report()), "");
    EXPECT_EQ(node.report().tornBytes, kSector);
    EXPECT_EQ(node.journal().last(a_).index.value, 4u);
    EXPECT_FALSE(node.report().volumes[a_].suspect);
    loop_.wait(node.append(a_, 50, 77));
  }
  JournalNode node(loop_, storage_, 3);
  node.open();
  EXPECT_EQ(sentences(node.report()), "");
  EXPECT_EQ(node.readAll(a_).back()->payload.size(), 50u);
}

TEST_F(JournalDamageTest, ARottenTailThatTheMarkerKnowsIsNotCut) {
  crashed(5, 1000);
  storage_.rot(kFirst, 6 * kSector + 200, 1);
  {
    JournalNode node(loop_, storage_, 2);
    node.open();
    EXPECT_NE(sentences(node.report()).find("segment-000001 at offset 24576"), std::string::npos)
        << sentences(node.report());
    EXPECT_NE(sentences(node.report()).find("acknowledged"), std::string::npos);
    EXPECT_TRUE(node.report().volumes[a_].suspect);
    EXPECT_TRUE(node.report().volumes[b_].suspect);  // it may have been in that batch
    EXPECT_TRUE(node.report().mayMissVolumes);
    EXPECT_EQ(node.journal().last(a_).index.value, 4u);
  }
  // Still so after a restart; the evidence is not overwritten.
  {
    JournalNode node(loop_, storage_, 3);
    node.open();
    EXPECT_TRUE(node.report().volumes[a_].suspect);
    EXPECT_TRUE(node.report().volumes[b_].suspect);
    loop_.wait(node.append(a_, 10, 1));  // repair goes on from there
    loop_.wait(node.journal().markWhole(a_));
  }
  JournalNode node(loop_, storage_, 4);
  node.open();
  EXPECT_FALSE(node.report().volumes[a_].suspect);
  EXPECT_TRUE(node.report().volumes[b_].suspect);
  EXPECT_EQ(node.journal().last(a_).index.value, 5u);
}

TEST_F(JournalDamageTest, RotInTheMiddleIsNamedAndCutsTheLogBeforeIt) {
  crashed(8, 0);
  storage_.rot(kFirst, 5 * kSector + 10, 1);  // batch 6: record 4 of a
  {
    JournalNode node(loop_, storage_, 2);
    node.open();
    const std::string text = sentences(node.report());
    EXPECT_NE(text.find("segment-000001 at offset 20480"), std::string::npos) << text;
    EXPECT_NE(text.find("lost its records from 4 to 4"), std::string::npos) << text;
    EXPECT_TRUE(node.report().volumes[a_].suspect);
    EXPECT_TRUE(node.report().volumes[b_].suspect);  // its promise may have been there
    EXPECT_EQ(node.journal().last(a_).index.value, 3u);
    EXPECT_EQ(node.journal().last(b_).index.value, 1u);
    appendEach(node, a_, 3);
  }
  JournalNode node(loop_, storage_, 3);
  node.open();
  EXPECT_TRUE(node.report().volumes[a_].suspect);
  EXPECT_EQ(node.readAll(a_).size(), 6u);
}

TEST_F(JournalDamageTest, EveryRottenSectorIsNoticed) {
  for (uint64_t sector = 0; sector < 10; ++sector) {
    for (bool unreadable : {false, true}) {
      SCOPED_TRACE(sector);
      SimStorage storage(sector);
      {
        JournalNode node(loop_, storage);
        node.open();
        for (uint64_t i = 0; i < 9; ++i) loop_.wait(node.append(a_, 100, i));
        node.close();
      }
      if (unreadable) {
        storage.breakSectors(kFirst, sector * kSector, 1);
      } else {
        storage.rot(kFirst, sector * kSector + 50, 1);
      }
      JournalNode node(loop_, storage, 2);
      node.open();
      EXPECT_NE(sentences(node.report()), "");
      EXPECT_TRUE(node.report().mayMissVolumes);
      for (auto& [id, volume] : node.report().volumes) EXPECT_TRUE(volume.suspect);
      EXPECT_EQ(node.report().volumes.size(), 1u);
    }
  }
}

TEST_F(JournalDamageTest, AnUnreadableTailIsRot) {
  crashed(5, 0);
  storage_.breakSectors(kFirst, 6 * kSector, 1);
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_NE(sentences(node.report()).find("cannot be read"), std::string::npos);
  EXPECT_TRUE(node.report().volumes[a_].suspect);
}

TEST_F(JournalDamageTest, RotBelowTheCheckpointHarmsNobody) {
  {
    JournalNode node(loop_, storage_);
    node.open();
    for (uint64_t i = 0; i < 40; ++i) {
      loop_.wait(node.append(a_, 900, i));
      loop_.wait(node.append(b_, 900, i));
    }
    loop_.wait(node.journal().checkpoint(a_, node.journal().last(a_), false));
    loop_.wait(node.journal().checkpoint(b_, node.journal().last(b_), false));
    appendEach(node, a_, 20);  // into a later segment, with its snapshot
    node.close();
  }
  storage_.rot(kSecond, 3 * kSector + 100, 1);
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_NE(sentences(node.report()).find("segment-000002"), std::string::npos);
  EXPECT_FALSE(node.report().volumes[a_].suspect);
  EXPECT_FALSE(node.report().volumes[b_].suspect);
  EXPECT_FALSE(node.report().mayMissVolumes);
  EXPECT_EQ(node.journal().last(a_).index.value, 60u);
  EXPECT_LE(node.journal().base(a_).index.value, 40u);
}

// It can be read now, and not any more when a later segment begins well: nobody may rely on it.
TEST_F(JournalDamageTest, WhatLiesBehindALostFirstBatchIsSuspect) {
  for (uint64_t life = 1; life <= 2; ++life) {
    JournalNode node(loop_, storage_, life);
    node.open();
    appendEach(node, a_, 3);
    node.close();
  }
  storage_.rot(kFirst, 0, sizeof(format::FrameHeader));
  {
    JournalNode node(loop_, storage_, 3);
    node.open();
    EXPECT_TRUE(node.report().volumes[a_].suspect);
    EXPECT_NE(sentences(node.report()).find("damaged at its beginning"), std::string::npos);
    // As a repair does.
    loop_.wait(node.journal().checkpoint(a_, LogPosition(), true));
    appendEach(node, a_, 20);
    loop_.wait(node.journal().markWhole(a_));
    node.close();
  }
  for (uint64_t life = 4; life <= 5; ++life) {
    JournalNode node(loop_, storage_, life);
    node.open();
    EXPECT_FALSE(node.report().volumes[a_].suspect) << sentences(node.report());
    EXPECT_EQ(node.readAll(a_).size(), 20u);
    node.close();
  }
}

// Nor does what is whole become such: before a segment without its first batch, one is kept.
TEST_F(JournalDamageTest, ASegmentThatLostItsFirstBatchNeverBecomesTheOldest) {
  {
    JournalNode node(loop_, storage_);
    node.open();
    appendEach(node, b_, 32);  // the last one is the first batch of the third segment
    appendEach(node, a_, 5);
    appendEach(node, b_, 20);
    loop_.wait(node.journal().checkpoint(b_, node.journal().last(b_), false));
    node.close();
  }
  storage_.rot("journal/segment-000003", 0, sizeof(format::FrameHeader));
  for (uint64_t life = 2; life <= 4; ++life) {
    JournalNode node(loop_, storage_, life);
    node.open();
    if (life == 2) {
      EXPECT_NE(sentences(node.report()).find("segment-000003"), std::string::npos);
    }
    EXPECT_FALSE(node.report().volumes[a_].suspect) << "life " << life;
    EXPECT_EQ(node.readAll(a_).size(), 5u);
    for (int round = 0; round < 10; ++round) {  // what is released is written over
      appendEach(node, b_, 20);
      loop_.wait(node.journal().checkpoint(b_, node.journal().last(b_), false));
      node.journal().release(b_, node.journal().last(b_).index);
    }
    node.close();
  }
}

TEST_F(JournalDamageTest, OldDamageDoesNotGrowTheJournal) {
  crashed(8, 1000);
  storage_.rot(kFirst, 5 * kSector + 10, 1);
  storage_.rot(kFirst, 9 * kSector + 10, 1);  // the last one
  for (uint64_t life = 2; life < 20; ++life) {
    JournalNode node(loop_, storage_, life);
    node.open();
    EXPECT_NE(sentences(node.report()), "");
    EXPECT_TRUE(node.report().volumes[a_].suspect);
    EXPECT_LE(node.journal().statistics().segments, 5u);
    EXPECT_EQ(node.journal().last(a_).index.value, 3 + life - 2);
    loop_.wait(node.append(a_, 10, life));
  }
}

TEST_F(JournalDamageTest, ALostMarkerMakesAllSuspect) {
  crashed(3, 1000);
  rotMarker();
  {
    JournalNode node(loop_, storage_, 2);
    node.open();
    EXPECT_NE(sentences(node.report()).find("marker is lost"), std::string::npos);
    EXPECT_TRUE(node.report().volumes[a_].suspect);
    EXPECT_EQ(node.journal().last(a_).index.value, 3u);
    loop_.wait(node.journal().markWhole(a_));
  }
  JournalNode node(loop_, storage_, 3);
  node.open();
  EXPECT_FALSE(node.report().volumes[a_].suspect);
  EXPECT_TRUE(node.report().volumes[b_].suspect);
}

TEST_F(JournalDamageTest, AJournalThatLostEverythingIsRefused) {
  crashed(3, 1000);
  rotMarker();
  for (uint64_t sector = 0; sector < 5; ++sector) storage_.rot(kFirst, sector * kSector, 128);
  JournalNode node(loop_, storage_, 2);
  auto failure = kj::runCatchingExceptions([&]() { node.open(); });
  ASSERT_TRUE(failure != nullptr);
  EXPECT_TRUE(strstr(KJ_ASSERT_NONNULL(failure).getDescription().cStr(), "Move its data") !=
              nullptr);
}

TEST_F(JournalDamageTest, LostBatchesAreNoticed) {
  for (uint64_t skip = 0; skip < 6; ++skip) {
    SCOPED_TRACE(skip);
    SimStorage storage(skip);
    {
      JournalNode node(loop_, storage);
      node.open();
      SimFault lost;
      lost.kind = SimFaultKind::kLostWrite;
      lost.pathPrefix = "journal/prepare-000001";
      lost.skip = skip;
      storage.inject(lost);
      for (uint64_t i = 0; i < 6; ++i) loop_.wait(node.append(a_, 100, i));
      EXPECT_EQ(storage.faultsStruck(), 1u);
      node.close();
    }
    storage.clearFaults();
    JournalNode node(loop_, storage, 2);
    node.open();
    EXPECT_NE(sentences(node.report()), "");
    if (!node.report().volumes.empty()) { EXPECT_TRUE(node.report().volumes[a_].suspect); }
    EXPECT_EQ(node.journal().last(a_).index.value, skip);
  }
}

TEST_F(JournalDamageTest, MisplacedBatchesAreNoticed) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    SimStorage storage(seed);
    std::vector<RecordRef> wanted;
    {
      JournalNode node(loop_, storage);
      node.open();
      for (uint64_t i = 0; i < 10; ++i) {
        if (i == 6) {
          SimFault misplaced;
          misplaced.kind = SimFaultKind::kMisdirectedWrite;
          misplaced.pathPrefix = "journal/prepare-000001";
          storage.inject(misplaced);
        }
        wanted.push_back(nextRecord(node.journal().last(a_), Epoch(1), 100, i));
        loop_.wait(node.journal().append(a_, wanted.back()));
      }
      node.close();
    }
    storage.clearFaults();
    JournalNode node(loop_, storage, 2);
    node.open();
    auto records = node.readAll(a_);
    for (size_t i = 0; i < records.size(); ++i) EXPECT_EQ(records[i]->hash, wanted[i]->hash);
    if (records.size() < wanted.size()) {
      EXPECT_TRUE(node.report().volumes[a_].suspect || node.report().mayMissVolumes);
    }
  }
}

TEST_F(JournalDamageTest, ARecordThatRotsWhileOpenIsNamed) {
  JournalNode node(loop_, storage_);
  auto options = JournalNode::smallOptions();
  options.recentBytesMax = 0;
  node.open(options);
  appendEach(node, a_, 4);
  storage_.rot(kFirst, 2 * kSector + 250, 1);  // record 2
  auto failure = kj::runCatchingExceptions(
      [&]() { loop_.wait(node.journal().read(a_, RecordIndex(1), 1 << 20)); });
  const std::string text = KJ_ASSERT_NONNULL(failure).getDescription().cStr();
  EXPECT_NE(text.find("Record 2 of volume 0101"), std::string::npos) << text;
  EXPECT_NE(text.find("segment-000001"), std::string::npos) << text;
  EXPECT_EQ(loop_.wait(node.journal().read(a_, RecordIndex(3), 1 << 20)).size(), 2u);
}

// ---- Errors ---------------------------------------------------------------------------------

TEST_F(JournalDamageTest, AFailedBatchIsFatalAndAcknowledgesNothing) {
  JournalNode node(loop_, storage_);
  node.open();
  appendEach(node, a_, 2);
  SimFault fault;
  fault.kind = SimFaultKind::kWriteError;
  fault.pathPrefix = "journal/prepare-000001";
  storage_.inject(fault);
  auto first = node.append(a_, 10, 1);
  auto second = node.append(b_, 10, 1);
  EXPECT_ANY_THROW(loop_.wait(kj::mv(first)));
  EXPECT_ANY_THROW(loop_.wait(kj::mv(second)));
  ASSERT_EQ(node.fatals().size(), 1u);
  EXPECT_NE(node.fatals()[0].find("nothing more can be acknowledged"), std::string::npos);
  EXPECT_EQ(node.journal().durable(a_).index.value, 2u);
  // Never tried again.
  EXPECT_ANY_THROW(loop_.wait(node.append(a_, 10, 2)));
  EXPECT_ANY_THROW(loop_.wait(node.journal().promise(a_, {Epoch(2), volumeId(1)})));
  loop_.runFor(10 * kj::SECONDS);
  EXPECT_EQ(node.fatals().size(), 1u);
  loop_.wait(node.journal().close());
}

TEST_F(JournalDamageTest, AFailedMarkerOrSpareIsFatal) {
  for (auto prefix : {"journal/marker", "journal/prepare-000004"}) {
    for (auto kind : {SimFaultKind::kWriteError, SimFaultKind::kSyncError}) {
      if (kind == SimFaultKind::kSyncError && strcmp(prefix, "journal/marker") == 0) continue;
      SimStorage storage(5);
      JournalNode node(loop_, storage);
      node.open();
      SimFault fault;
      fault.kind = kind;
      fault.pathPrefix = prefix;
      storage.inject(fault);
      bool failed = false;
      for (uint64_t i = 0; i < 100 && !failed; ++i) {
        auto failure = kj::runCatchingExceptions([&]() { loop_.wait(node.append(a_, 900, i)); });
        failed = failure != nullptr;
        loop_.runFor(10 * kj::MILLISECONDS);
      }
      EXPECT_TRUE(failed);
      EXPECT_EQ(node.fatals().size(), 1u);
    }
  }
}

TEST_F(JournalDamageTest, AFailedFirstSnapshotFailsTheOpening) {
  crashed(3, 0);
  SimFault fault;
  fault.kind = SimFaultKind::kWriteError;
  fault.pathPrefix = "journal/segment-000001";
  storage_.inject(fault);
  {
    JournalNode node(loop_, storage_, 2);
    EXPECT_ANY_THROW(node.open());
    EXPECT_EQ(node.fatals().size(), 1u);
  }
  storage_.clearFaults();
  JournalNode node(loop_, storage_, 3);
  node.open();
  EXPECT_EQ(node.journal().last(a_).index.value, 3u);
}

TEST_F(JournalDamageTest, AFullDiskMakesAppendsWait) {
  JournalNode node(loop_, storage_);
  node.open();
  loop_.settle();
  storage_.setCapacity(0);
  kj::Maybe<kj::Promise<void>> waiting;
  for (uint64_t i = 0; i < 200 && waiting == nullptr; ++i) {
    auto appended = node.append(a_, 900, i);
    loop_.runFor(1 * kj::MILLISECONDS);
    if (!appended.poll(loop_.waitScope())) waiting = kj::mv(appended);
  }
  auto& last = KJ_ASSERT_NONNULL(waiting);
  loop_.runFor(10 * kj::SECONDS);
  EXPECT_FALSE(last.poll(loop_.waitScope()));
  EXPECT_NE(node.journal().statistics().inFlightSinceMs, 0);
  EXPECT_EQ(node.fatals().size(), 0u);
  storage_.setCapacity(UINT64_MAX);
  loop_.runFor(2 * kj::SECONDS);
  EXPECT_TRUE(last.poll(loop_.waitScope()));
  loop_.wait(kj::mv(last));
}

}  // namespace
}  // namespace packmoor::replicator
