// Goal: the offline reader shows every batch and entry of a journal as they were appended, agrees
// with recovery about damage, and changes nothing. Method: journals written on a simulated disk.
#include "replicator/journal_reader.h"

#include "journal_fixture.h"

namespace packmoor::replicator {
namespace {

using kernelio::SimEnv;
using kernelio::SimStorage;
using kernelio::VirtualLoop;

// Writes down what it is shown, a line each.
struct Lines final : JournalReadVisitor {
  std::vector<std::string> lines;
  void batch(const JournalBatchInfo& b) override {
    add(kj::str("batch ", b.batchSequence, " ", b.file, "+", b.offset, " entries=", b.entryCount,
                b.snapshot ? " snapshot" : ""));
  }
  void entry(const JournalBatchInfo& b, const JournalEntryInfo& e) override {
    add(kj::str("  ", entryKindName(e.kind), " ", e.volume.text().slice(0, 2), " ",
                e.position.index, "@", e.position.epoch, " payload=", e.payload.size(),
                " extents=", e.extents.size(), " promise=", e.promise.epoch,
                e.replace ? " replace" : "", e.hashMatches ? "" : " bad"));
  }
  void damage(kj::StringPtr sentence) override { add(kj::str("damage: ", sentence)); }
  void add(kj::String line) { lines.push_back(line.cStr()); }
};

class JournalReaderTest : public testing::Test {
 protected:
  void write() {
    JournalNode node(loop_, storage_);
    node.open();
    auto& journal = node.journal();
    auto first = nextRecord({}, Epoch(1), 5, 1, 2);
    loop_.wait(journal.append(a_, first));
    loop_.wait(node.append(a_, 7, 2, Epoch(2)));
    loop_.wait(journal.truncate(a_, positionOf(*first)));
    loop_.wait(journal.promise(a_, {Epoch(3), volumeId(9)}));
    loop_.wait(journal.checkpoint(a_, positionOf(*first), false));
    loop_.wait(journal.checkpoint(b_, {RecordIndex(9), Epoch(2), Hash128{1, 1}}, true));
    loop_.wait(journal.markWhole(b_));
    loop_.wait(journal.drop(b_));
    node.close();
  }
  JournalReadResult read(Lines& lines) {
    SimEnv sim(loop_, storage_, 3);
    const uint64_t before = storage_.writeBoundaries();
    auto result = loop_.wait(readJournal(sim.disk(), "journal", lines));
    EXPECT_EQ(storage_.writeBoundaries(), before);
    return result;
  }

  VirtualLoop loop_;
  SimStorage storage_{7};
  const VolumeId a_ = volumeId(0xaa), b_ = volumeId(0xbb);
};

TEST_F(JournalReaderTest, ShowsEverything) {
  write();
  Lines lines;
  auto result = read(lines);
  const std::vector<std::string> wanted = {
      "batch 1 segment-000001+0 entries=0 snapshot",
      "batch 2 segment-000001+4096 entries=1",
      "  record aa 1@1 payload=5 extents=2 promise=0",
      "batch 3 segment-000001+8192 entries=1",
      "  record aa 2@2 payload=7 extents=0 promise=0",
      "batch 4 segment-000001+12288 entries=1",
      "  truncate aa 1@1 payload=0 extents=0 promise=0",
      "batch 5 segment-000001+16384 entries=1",
      "  promise aa 0@0 payload=0 extents=0 promise=3",
      "batch 6 segment-000001+20480 entries=1",
      "  checkpoint aa 1@1 payload=0 extents=0 promise=0",
      "batch 7 segment-000001+24576 entries=1",
      "  checkpoint bb 9@2 payload=0 extents=0 promise=0 replace",
      "batch 8 segment-000001+28672 entries=1",
      "  whole bb 0@0 payload=0 extents=0 promise=0",
      "batch 9 segment-000001+32768 entries=1",
      "  drop bb 0@0 payload=0 extents=0 promise=0",
  };
  EXPECT_EQ(lines.lines, wanted);
  EXPECT_TRUE(result.sound());
  EXPECT_TRUE(result.closed);
  EXPECT_EQ(result.records, 2u);
  EXPECT_EQ(result.entries, 8u);
  EXPECT_EQ(result.payloadBytes, 12u);
  EXPECT_EQ(result.firstBatch, 1u);
  EXPECT_EQ(result.lastBatch, 9u);
  EXPECT_EQ(result.markerBatch, 9u);
  EXPECT_EQ(result.segments, 1u);
  EXPECT_EQ(result.recovery.volumes.size(), 1u);
  EXPECT_EQ(result.recovery.volumes[a_].last.index.value, 1u);
  EXPECT_EQ(result.recovery.volumes[a_].promise.epoch.value, 3u);
}

TEST_F(JournalReaderTest, FactsOfALaterLifeAreShown) {
  write();
  {
    JournalNode node(loop_, storage_, 2);
    node.open();
  }
  Lines lines;
  auto result = read(lines);
  ASSERT_GE(lines.lines.size(), 2u);
  EXPECT_EQ(lines.lines.back(), "  facts aa 1@1 payload=0 extents=0 promise=3");
  EXPECT_FALSE(result.closed);
}

TEST_F(JournalReaderTest, DamageIsTold) {
  write();
  storage_.rot("journal/segment-000001", 2 * 4096 + 100, 1);
  Lines lines;
  auto result = read(lines);
  EXPECT_FALSE(result.sound());
  EXPECT_EQ(lines.lines.back(),
            "damage: The journal is damaged in segment-000001 at offset 8192: the next intact batch "
            "after 2 is 4 in segment-000001 at offset 12288.");
  EXPECT_TRUE(result.recovery.volumes[a_].suspect);
}

TEST_F(JournalReaderTest, AnAbsentJournalIsAnError) {
  Lines lines;
  EXPECT_ANY_THROW(read(lines));
}

}  // namespace
}  // namespace packmoor::replicator
