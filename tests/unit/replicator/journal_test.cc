// Goal: the journal keeps each volume's log in order over restarts, shares batches, recycles
// segments, and answers from memory and from disk. Method: scripts on a simulated disk with small
// segments; no faults (see journal_power_test.cc and journal_damage_test.cc for those).
#include "journal_fixture.h"

namespace packmoor::replicator {
namespace {

using kernelio::SimStorage;
using kernelio::VirtualLoop;

class JournalTest : public testing::Test {
 protected:
  VirtualLoop loop_;
  SimStorage storage_{7};
  const VolumeId a_ = volumeId(1), b_ = volumeId(2);
};

TEST_F(JournalTest, CreatesAndReopensEmpty) {
  Uuid id;
  {
    JournalNode node(loop_, storage_);
    node.open();
    EXPECT_TRUE(node.report().created);
    EXPECT_TRUE(node.report().volumes.empty());
    id = node.journal().uuid();
    EXPECT_FALSE(id.isNull());
    EXPECT_EQ(node.journal().last(a_), LogPosition());
    node.close();
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_FALSE(node.report().created);
  EXPECT_EQ(node.journal().uuid(), id);
  EXPECT_EQ(sentences(node.report()), "");
}

TEST_F(JournalTest, AbsentJournalIsAnErrorWhenNotCreating) {
  JournalNode node(loop_, storage_);
  auto options = JournalNode::smallOptions();
  options.create = false;
  EXPECT_ANY_THROW(node.open(options));
}

TEST_F(JournalTest, RecordsOfTwoVolumesComeBackInOrder) {
  std::vector<RecordRef> wantedA, wantedB;
  {
    JournalNode node(loop_, storage_);
    node.open();
    for (uint64_t i = 0; i < 40; ++i) {
      auto& wanted = i % 3 == 0 ? wantedB : wantedA;
      const VolumeId id = i % 3 == 0 ? b_ : a_;
      auto record = nextRecord(node.journal().last(id), Epoch(1 + i / 10), i * 37 % 900, i, i % 4);
      wanted.push_back(record);
      loop_.wait(node.journal().append(id, record));
      EXPECT_EQ(node.journal().durable(id), positionOf(*record));
    }
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_EQ(sentences(node.report()), "");
  ASSERT_EQ(node.report().volumes.size(), 2u);
  for (auto& [id, wanted] : {std::pair(a_, wantedA), std::pair(b_, wantedB)}) {
    EXPECT_EQ(node.report().volumes[id].last, positionOf(*wanted.back()));
    EXPECT_EQ(node.report().volumes[id].base, LogPosition());
    EXPECT_FALSE(node.report().volumes[id].suspect);
    auto read = node.readAll(id, 2000);
    ASSERT_EQ(read.size(), wanted.size());
    for (size_t i = 0; i < read.size(); ++i) {
      EXPECT_EQ(read[i]->hash, wanted[i]->hash);
      EXPECT_EQ(read[i]->extents, wanted[i]->extents);
      EXPECT_EQ(read[i]->payload.asPtr(), wanted[i]->payload.asPtr());
      auto position = node.journal().position(id, read[i]->index);
      KJ_IF_MAYBE (p, position) { EXPECT_EQ(*p, positionOf(*wanted[i])); }
      else { ADD_FAILURE(); }
    }
  }
}

TEST_F(JournalTest, WhatArrivesDuringABatchSharesTheNext) {
  JournalNode node(loop_, storage_);
  node.open();
  const uint64_t before = node.journal().statistics().batches;
  node.sim().faults().hang("journal.before-write");
  auto first = node.append(a_, 10, 1);
  loop_.settle();
  EXPECT_NE(node.journal().statistics().inFlightSinceMs, 0);
  kj::Vector<kj::Promise<void>> rest;
  for (uint64_t i = 0; i < 50; ++i) rest.add(node.append(i % 2 ? a_ : b_, 10, i));
  loop_.settle();
  EXPECT_EQ(node.journal().statistics().queuedEntries, 50u);
  EXPECT_EQ(node.journal().durable(a_), LogPosition());
  EXPECT_EQ(node.journal().last(a_).index.value, 26u);
  node.sim().faults().release("journal.before-write");
  loop_.wait(kj::mv(first));
  EXPECT_EQ(node.journal().durable(a_).index.value, 1u);
  EXPECT_EQ(node.journal().durable(b_).index.value, 0u);
  loop_.wait(kj::joinPromises(rest.releaseAsArray()));
  EXPECT_EQ(node.journal().statistics().batches, before + 2);
  EXPECT_EQ(node.journal().statistics().entries, 51u);
  EXPECT_EQ(node.journal().durable(a_).index.value, 26u);
  loop_.settle();
  EXPECT_EQ(node.journal().statistics().inFlightSinceMs, 0);
}

TEST_F(JournalTest, AppendsOfOneTurnShareABatch) {
  JournalNode node(loop_, storage_);
  node.open();
  const uint64_t before = node.journal().statistics().batches;
  std::vector<RecordRef> records;
  LogPosition last;
  for (uint64_t i = 0; i < 5; ++i) {
    records.push_back(nextRecord(last, Epoch(1), 10, i));
    last = positionOf(*records.back());
  }
  auto many = node.journal().append(a_, kj::arrayPtr(records.data(), records.size()));
  auto one = node.append(b_, 10, 1);
  loop_.wait(kj::mv(one));
  EXPECT_EQ(node.journal().statistics().batches, before + 1);
  EXPECT_EQ(node.journal().durable(a_), last);
  loop_.wait(kj::mv(many));
  loop_.wait(node.journal().append(a_, kj::ArrayPtr<const RecordRef>()));
}

TEST_F(JournalTest, BatchesAreBoundedButABigRecordGetsItsOwn) {
  auto options = JournalNode::smallOptions();
  options.segmentBytes = 1u << 20;
  options.batchBytesMax = 16u << 10;
  {
    JournalNode node(loop_, storage_);
    node.open(options);
    const uint64_t before = node.journal().statistics().batches;
    kj::Vector<kj::Promise<void>> all;
    for (size_t bytes : {10, 10, 400000, 10, 9000, 9000, 10}) {
      all.add(node.append(a_, bytes, bytes));
    }
    loop_.wait(kj::joinPromises(all.releaseAsArray()));
    // {10 10} {400000} {10 9000} {9000 10}
    EXPECT_EQ(node.journal().statistics().batches, before + 4);
  }
  JournalNode node(loop_, storage_, 2);
  node.open(options);
  auto records = node.readAll(a_);
  ASSERT_EQ(records.size(), 7u);
  EXPECT_EQ(records[2]->payload.asPtr(), patternBytes(400000, 400000).asPtr());
}

TEST_F(JournalTest, LongWorkloadRunsInFewSegments) {
  JournalNode node(loop_, storage_);
  node.open();
  for (uint64_t i = 0; i < 2000; ++i) {
    loop_.wait(node.append(i % 2 ? a_ : b_, 700, i));
    if (i % 20 == 19) {
      for (auto& id : {a_, b_}) {
        loop_.wait(node.journal().checkpoint(id, node.journal().last(id), false));
        node.journal().release(id, node.journal().last(id).index);
        EXPECT_EQ(node.journal().base(id), node.journal().last(id));
      }
    }
    EXPECT_LE(node.journal().statistics().segments, 5u);
  }
  loop_.settle();
  EXPECT_GT(node.journal().statistics().bytes, 20 * (64u << 10));
  size_t files = 0;
  for (auto& name : loop_.wait(node.sim().disk().list("journal"))) {
    files += name.startsWith("segment-");
  }
  EXPECT_LE(files, 10u);
}

TEST_F(JournalTest, AReleaseWaitsForItsCheckpoint) {
  JournalNode node(loop_, storage_);
  node.open();
  for (uint64_t i = 0; i < 10; ++i) loop_.wait(node.append(a_, 10, i));
  node.journal().release(a_, RecordIndex(8));
  EXPECT_EQ(node.journal().base(a_).index.value, 0u);
  auto fifth = KJ_ASSERT_NONNULL(node.journal().position(a_, RecordIndex(5)));
  auto checkpoint = node.journal().checkpoint(a_, fifth, false);
  EXPECT_EQ(node.journal().base(a_).index.value, 0u);
  loop_.wait(kj::mv(checkpoint));
  EXPECT_EQ(node.journal().base(a_), fifth);
  EXPECT_ANY_THROW(loop_.wait(node.journal().read(a_, RecordIndex(5), 100)));
  EXPECT_EQ(loop_.wait(node.journal().read(a_, RecordIndex(6), 1 << 20)).size(), 5u);
  EXPECT_TRUE(node.journal().position(a_, RecordIndex(4)) == nullptr);
  EXPECT_TRUE(node.journal().position(a_, RecordIndex(11)) == nullptr);
}

TEST_F(JournalTest, AnUnreleasedVolumeKeepsItsSegments) {
  JournalNode node(loop_, storage_);
  node.open();
  loop_.wait(node.append(b_, 100, 1));
  for (uint64_t i = 0; i < 300; ++i) {
    loop_.wait(node.append(a_, 900, i));
    loop_.wait(node.journal().checkpoint(a_, node.journal().last(a_), false));
    node.journal().release(a_, node.journal().last(a_).index);
  }
  EXPECT_GT(node.journal().statistics().segments, 5u);
  EXPECT_EQ(node.readAll(b_).size(), 1u);
  loop_.wait(node.journal().drop(b_));
  EXPECT_LE(node.journal().statistics().segments, 2u);
  EXPECT_EQ(node.journal().last(b_), LogPosition());
}

TEST_F(JournalTest, ReadsFromMemoryAndFromDiskGiveTheSame) {
  JournalNode node(loop_, storage_);
  auto options = JournalNode::smallOptions();
  options.recentBytesMax = 3000;
  node.open(options);
  std::vector<RecordRef> wanted;
  for (uint64_t i = 0; i < 100; ++i) {
    wanted.push_back(nextRecord(node.journal().last(a_), Epoch(1), 200 + i, i, i % 3));
    loop_.wait(node.journal().append(a_, wanted.back()));
    loop_.wait(node.append(b_, 100, i));
  }
  for (size_t bytesMax : {0, 1, 1000, 100000}) {
    auto read = node.readAll(a_, bytesMax);
    ASSERT_EQ(read.size(), wanted.size());
    for (size_t i = 0; i < read.size(); ++i) EXPECT_EQ(read[i]->hash, wanted[i]->hash);
    EXPECT_EQ(read.back().get(), wanted.back().get());   // from memory
    EXPECT_NE(read.front().get(), wanted.front().get());  // from disk
  }
  EXPECT_EQ(loop_.wait(node.journal().read(a_, RecordIndex(3), 0)).size(), 1u);
  EXPECT_EQ(loop_.wait(node.journal().read(a_, RecordIndex(101), 100)).size(), 0u);
  EXPECT_EQ(loop_.wait(node.journal().read(volumeId(9), RecordIndex(1), 100)).size(), 0u);
}

TEST_F(JournalTest, RecordsCanBeReadBeforeTheyAreDurable) {
  JournalNode node(loop_, storage_);
  auto options = JournalNode::smallOptions();
  options.recentBytesMax = 0;
  node.open(options);
  node.sim().faults().hang("journal.before-write");
  auto first = node.append(a_, 5000, 1);
  auto second = node.append(a_, 5000, 2);
  loop_.settle();
  EXPECT_EQ(node.readAll(a_).size(), 2u);
  node.sim().faults().release("journal.before-write");
  loop_.wait(kj::mv(second));
  EXPECT_EQ(node.readAll(a_).size(), 2u);
}

TEST_F(JournalTest, ASegmentBeingReadIsNotReused) {
  JournalNode node(loop_, storage_);
  node.open();
  for (uint64_t i = 0; i < 100; ++i) loop_.wait(node.append(a_, 900, i));
  kernelio::SimFault slow;
  slow.kind = kernelio::SimFaultKind::kSlow;
  // The name under which the first segment was made, and is open.
  slow.pathPrefix = "journal/prepare-000001";
  slow.delay = 1 * kj::SECONDS;
  storage_.inject(slow);
  auto reading = node.journal().read(a_, RecordIndex(1), 1 << 20);
  loop_.settle();
  EXPECT_EQ(storage_.faultsStruck(), 1u);
  for (uint64_t i = 0; i < 500; ++i) {
    loop_.wait(node.journal().checkpoint(a_, node.journal().last(a_), false));
    node.journal().release(a_, node.journal().last(a_).index);
    loop_.wait(node.append(a_, 900, i));
  }
  auto records = loop_.wait(kj::mv(reading));
  EXPECT_EQ(records[0]->index.value, 1u);
}

TEST_F(JournalTest, TruncationsHideAtOnceAndLast) {
  LogPosition third;
  {
    JournalNode node(loop_, storage_);
    node.open();
    for (uint64_t i = 0; i < 10; ++i) loop_.wait(node.append(a_, 10, i));
    third = KJ_ASSERT_NONNULL(node.journal().position(a_, RecordIndex(3)));
    auto truncated = node.journal().truncate(a_, third);
    EXPECT_EQ(node.journal().last(a_), third);
    EXPECT_EQ(node.journal().durable(a_), third);  // the first three stay durable
    EXPECT_EQ(node.readAll(a_).size(), 3u);
    auto appended = node.append(a_, 10, 99, Epoch(2));
    EXPECT_EQ(node.journal().durable(a_), third);
    loop_.wait(kj::mv(truncated));
    loop_.wait(kj::mv(appended));
    EXPECT_EQ(node.journal().durable(a_).index.value, 4u);
    EXPECT_EQ(node.readAll(a_).back()->epoch.value, 2u);
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_EQ(node.readAll(a_).size(), 4u);
  EXPECT_EQ(node.journal().last(a_).epoch.value, 2u);
  EXPECT_EQ(KJ_ASSERT_NONNULL(node.journal().position(a_, RecordIndex(3))), third);
}

TEST_F(JournalTest, DurableNeverExceedsACutThatIsStillQueued) {
  JournalNode node(loop_, storage_);
  node.open();
  for (uint64_t i = 0; i < 4; ++i) loop_.wait(node.append(a_, 10, i));
  node.sim().faults().hang("journal.before-write");
  auto inFlight = node.append(a_, 10, 5);
  loop_.settle();
  auto second = KJ_ASSERT_NONNULL(node.journal().position(a_, RecordIndex(2)));
  auto cut = node.journal().truncate(a_, second);
  kj::Vector<kj::Promise<void>> more;
  for (uint64_t i = 0; i < 4; ++i) more.add(node.append(a_, 10, 50 + i, Epoch(2)));
  node.sim().faults().release("journal.before-write");
  node.sim().faults().hang("journal.before-write");
  loop_.wait(kj::mv(inFlight));
  EXPECT_EQ(node.journal().durable(a_), second);  // record 5 of the old log is no part of it
  EXPECT_EQ(node.journal().last(a_).index.value, 6u);
  node.sim().faults().release("journal.before-write");
  loop_.wait(kj::mv(cut));
  loop_.wait(kj::joinPromises(more.releaseAsArray()));
  EXPECT_EQ(node.journal().durable(a_), node.journal().last(a_));
}

TEST_F(JournalTest, PromisesAndCheckpointsSurviveRecycling) {
  const Uuid nonce = volumeId(77);
  LogPosition checkpoint;
  {
    JournalNode node(loop_, storage_);
    node.open();
    loop_.wait(node.append(b_, 10, 1));
    loop_.wait(node.journal().promise(b_, {Epoch(5), nonce}));
    checkpoint = node.journal().last(b_);
    loop_.wait(node.journal().checkpoint(b_, checkpoint, false));
    node.journal().release(b_, checkpoint.index);
    loop_.wait(node.journal().promise(volumeId(3), {Epoch(9), nonce}));  // a volume without records
    for (uint64_t i = 0; i < 300; ++i) {
      loop_.wait(node.append(a_, 900, i));
      loop_.wait(node.journal().checkpoint(a_, node.journal().last(a_), false));
      node.journal().release(a_, node.journal().last(a_).index);
    }
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_EQ(sentences(node.report()), "");
  auto& volumes = node.report().volumes;
  ASSERT_EQ(volumes.size(), 3u);
  EXPECT_EQ(volumes[b_].promise.epoch.value, 5u);
  EXPECT_EQ(volumes[b_].promise.nonce, nonce);
  EXPECT_EQ(volumes[b_].last, checkpoint);
  EXPECT_EQ(volumes[b_].checkpoint, checkpoint);
  EXPECT_EQ(volumes[volumeId(3)].promise.epoch.value, 9u);
  loop_.wait(node.append(b_, 10, 2));  // goes on from the checkpoint
}

TEST_F(JournalTest, AReplacementStartsTheLogAnew) {
  const LogPosition installed{RecordIndex(500), Epoch(4), Hash128{1, 2}};
  {
    JournalNode node(loop_, storage_);
    node.open();
    for (uint64_t i = 0; i < 5; ++i) loop_.wait(node.append(a_, 10, i));
    auto done = node.journal().checkpoint(a_, installed, true);
    EXPECT_EQ(node.journal().base(a_), installed);
    EXPECT_EQ(node.journal().last(a_), installed);
    EXPECT_EQ(node.journal().durable(a_), LogPosition());
    loop_.wait(kj::mv(done));
    EXPECT_EQ(node.journal().durable(a_), installed);
    loop_.wait(node.append(a_, 10, 9, Epoch(4)));
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_EQ(node.report().volumes[a_].base, installed);
  EXPECT_EQ(node.report().volumes[a_].checkpoint, installed);
  ASSERT_EQ(node.readAll(a_).size(), 1u);
  EXPECT_EQ(node.readAll(a_)[0]->index.value, 501u);
}

TEST_F(JournalTest, ADroppedVolumeIsForgottenAndMayComeAgain) {
  {
    JournalNode node(loop_, storage_);
    node.open();
    loop_.wait(node.append(a_, 10, 1));
    loop_.wait(node.append(b_, 10, 1));
    auto dropped = node.journal().drop(a_);
    EXPECT_EQ(node.journal().last(a_), LogPosition());
    auto again = node.append(a_, 20, 2);
    loop_.wait(kj::mv(dropped));
    loop_.wait(kj::mv(again));
    loop_.wait(node.journal().drop(b_));
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  ASSERT_EQ(node.report().volumes.size(), 1u);
  ASSERT_EQ(node.readAll(a_).size(), 1u);
  EXPECT_EQ(node.readAll(a_)[0]->payload.size(), 20u);
}

TEST_F(JournalTest, ManyRestartsUseFewSegments) {
  for (uint64_t life = 0; life < 30; ++life) {
    JournalNode node(loop_, storage_, life);
    node.open();
    EXPECT_EQ(sentences(node.report()), "");
    EXPECT_EQ(node.journal().last(a_).index.value, life);
    loop_.wait(node.append(a_, 10, life));
    EXPECT_LE(node.journal().statistics().segments, 5u);
    if (life % 2 == 0) node.close();
  }
}

TEST_F(JournalTest, SegmentSizeMayChange) {
  for (uint64_t bytes : {64u << 10, 256u << 10, 32u << 10}) {
    auto options = JournalNode::smallOptions();
    options.segmentBytes = bytes;
    JournalNode node(loop_, storage_, bytes);
    node.open(options);
    EXPECT_EQ(sentences(node.report()), "");
    for (uint64_t i = 0; i < 100; ++i) {
      loop_.wait(node.append(a_, bytes / 4, i));
      loop_.wait(node.journal().checkpoint(a_, node.journal().last(a_), false));
      node.journal().release(a_, node.journal().last(a_).index);
    }
  }
}

TEST_F(JournalTest, LatencyIsCounted) {
  JournalNode node(loop_, storage_);
  node.open();
  kernelio::SimTiming timing;
  timing.writeMin = timing.writeMax = 300 * kj::MICROSECONDS;
  storage_.setTiming(timing);
  const auto before = node.journal().statistics();
  loop_.wait(node.append(a_, 10, 1));
  const auto after = node.journal().statistics();
  EXPECT_EQ(after.lastLatencyUs, 300u);
  const size_t bucket = kernelio::LatencyHistogram::bucketOf(300);
  EXPECT_EQ(after.latency.count(bucket), before.latency.count(bucket) + 1);
}

TEST_F(JournalTest, CloseWaitsForWhatIsQueued) {
  JournalNode node(loop_, storage_);
  node.open();
  auto appended = node.append(a_, 10, 1);
  loop_.wait(node.journal().close());
  EXPECT_EQ(node.journal().durable(a_).index.value, 1u);
  loop_.wait(kj::mv(appended));
}

using JournalDeathTest = JournalTest;

TEST_F(JournalDeathTest, ARecordMustFollow) {
  JournalNode node(loop_, storage_);
  node.open();
  loop_.wait(node.append(a_, 10, 1));
  auto wrongIndex = nextRecord(LogPosition{RecordIndex(7), Epoch(1), node.journal().last(a_).hash},
                               Epoch(1), 1, 1);
  EXPECT_DEATH((void)node.journal().append(a_, wrongIndex), "does not continue the log");
  auto wrongHash = nextRecord(LogPosition{RecordIndex(1), Epoch(1), Hash128{5, 5}}, Epoch(1), 1, 1);
  EXPECT_DEATH((void)node.journal().append(a_, wrongHash), "does not continue the log");
}

TEST_F(JournalDeathTest, NothingIsTruncatedBelowTheCheckpoint) {
  JournalNode node(loop_, storage_);
  node.open();
  for (uint64_t i = 0; i < 4; ++i) loop_.wait(node.append(a_, 10, i));
  auto second = KJ_ASSERT_NONNULL(node.journal().position(a_, RecordIndex(2)));
  loop_.wait(node.journal().checkpoint(a_, node.journal().last(a_), false));
  EXPECT_DEATH((void)node.journal().truncate(a_, second), "below its checkpoint");
}

}  // namespace
}  // namespace packmoor::replicator
