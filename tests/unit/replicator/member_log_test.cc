// Goal: MemberLog tells what is durable of the log as it is now, also while truncations and later
// records are under way, and keeps the extents that its records name. Method: the real journal on a
// simulated disk whose writes take time; steps of random appends and truncations against a plain
// list.
#include "member_log.h"

#include "kernelio/co.h"
#include "kernelio/sim_env.h"
#include "journal_fixture.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

using kernelio::SeededRandom;
using kernelio::SimStorage;
using kernelio::VirtualLoop;

class MemberLogTest : public testing::Test {
 protected:
  MemberLogTest() {
    kernelio::SimTiming timing;
    timing.writeMin = 100 * kj::MICROSECONDS;
    timing.writeMax = 900 * kj::MICROSECONDS;
    storage_.setTiming(timing);
    node_ = std::make_unique<JournalNode>(loop_, storage_);
    node_->open();
    extents_ = loop_.wait(ExtentStore::open(node_->sim().env(), ExtentStoreOptions()));
    log_ = std::make_unique<MemberLog>(node_->journal(), *extents_, volume_, RecoveredVolume(),
                                       [this]() { ++grown_; });
  }

  ~MemberLogTest() noexcept override {}

  RecordRef next(uint64_t epoch, uint64_t seed, std::vector<ExtentId> extents = {}) {
    const LogPosition last = log_->last();
    return makeRecord(last.index.next(), Epoch(epoch), last.hash,
                      RecordKind(kStateMachineKindMin), std::move(extents),
                      patternBytes(20 + seed % 300, seed));
  }
  void append(RecordRef record) { log_->append(kj::arrayPtr(&record, 1)); }

  ExtentId sealExtent(uint8_t number) {
    const ExtentId id = volumeId(number);
    auto writer = loop_.wait(extents_->begin(id));
    auto data = kernelio::IoBuffer::copyOf(patternBytes(100, number));
    loop_.wait(writer->writeBlock(0, data, hashBytes(data.bytes())));
    loop_.wait(writer->seal(100, nullptr));
    extents_->unpin(id);
    return id;
  }

  VirtualLoop loop_;
  SimStorage storage_{5};
  std::unique_ptr<JournalNode> node_;
  kj::Own<ExtentStore> extents_;
  const VolumeId volume_ = volumeId(1);
  std::unique_ptr<MemberLog> log_;
  int grown_ = 0;
};

TEST_F(MemberLogTest, DurableFollowsWritten) {
  append(next(1, 1));
  append(next(1, 2));
  EXPECT_EQ(log_->last().index, RecordIndex(2));
  EXPECT_EQ(log_->durable(), RecordIndex(0));
  loop_.wait(log_->whenWritten());
  EXPECT_EQ(log_->durable(), RecordIndex(2));
  EXPECT_GT(grown_, 0);
  EXPECT_TRUE(log_->whenWritten().poll(loop_.waitScope()));
}

TEST_F(MemberLogTest, WhatIsTruncatedNeverCountsAsDurable) {
  for (uint64_t i = 1; i <= 6; ++i) append(next(1, i));
  auto six = log_->whenWritten();
  log_->truncate(KJ_ASSERT_NONNULL(log_->position(RecordIndex(3))));
  append(next(2, 100));
  loop_.wait(kj::mv(six));
  // The first six are durable, but of the log as it is now only three of them are part.
  EXPECT_LE(log_->durable(), RecordIndex(4));
  loop_.wait(log_->whenWritten());
  EXPECT_EQ(log_->durable(), RecordIndex(4));
  EXPECT_EQ(log_->last().epoch, Epoch(2));
}

TEST_F(MemberLogTest, TruncationsAndAppendsInAnyOrderKeepCount) {
  SeededRandom random(11);
  std::vector<LogPosition> model(1);       // positions by index
  uint64_t seed = 0;
  for (int step = 0; step < 600; ++step) {
    if (random.below(4) != 0 || model.size() == 1) {
      auto record = next(1 + static_cast<uint64_t>(step) / 10, ++seed);
      append(record);
      model.push_back(positionOf(*record));
    } else {
      const uint64_t to = model.size() - 1 - random.below(std::min<uint64_t>(model.size() - 1, 5)) - 1;
      log_->truncate(model[to]);
      model.resize(to + 1);
    }
    if (random.below(3) == 0) loop_.runFor(static_cast<int64_t>(random.below(800)) * kj::MICROSECONDS);
    ASSERT_EQ(log_->last(), model.back());
    ASSERT_LE(log_->durable(), log_->last().index);
    // The journal must agree that what is called durable is.
    const LogPosition durable = node_->journal().durable(volume_);
    ASSERT_LE(log_->durable(), std::max(durable.index, RecordIndex(0)));
    for (uint64_t i = 0; i < model.size(); ++i) {
      ASSERT_EQ(KJ_ASSERT_NONNULL(log_->position(RecordIndex(i))), model[i]);
    }
  }
  loop_.wait(log_->whenWritten());
  EXPECT_EQ(log_->durable(), model.back().index);
}

TEST_F(MemberLogTest, RecentRecordsAreGivenWithinTheBounds) {
  for (uint64_t i = 1; i <= 20; ++i) append(next(1, i));
  std::vector<RecordRef> records;
  EXPECT_TRUE(log_->recent(RecordIndex(5), RecordIndex(9), 1 << 20, 100, records));
  ASSERT_EQ(records.size(), 5u);
  EXPECT_EQ(records.front()->index, RecordIndex(5));
  records.clear();
  EXPECT_TRUE(log_->recent(RecordIndex(5), RecordIndex(20), 1, 100, records));
  EXPECT_EQ(records.size(), 1u);           // at least one
  records.clear();
  EXPECT_TRUE(log_->recent(RecordIndex(5), RecordIndex(20), 1 << 20, 3, records));
  EXPECT_EQ(records.size(), 3u);
}

TEST_F(MemberLogTest, ExtentsStayWhileTheLogNamesThem) {
  const ExtentId id = sealExtent(7);
  append(next(1, 1, {id}));
  append(next(1, 2));
  loop_.wait(log_->whenWritten());
  EXPECT_EQ(extents_->statistics().pinned, 1u);
  log_->keepCommitted(RecordIndex(2));
  loop_.wait(log_->checkpoint(log_->last()));
  log_->release(RecordIndex(2));
  EXPECT_EQ(extents_->statistics().pinned, 0u);
}

TEST_F(MemberLogTest, TruncatingLetsExtentsGo) {
  const ExtentId id = sealExtent(8);
  append(next(1, 1));
  append(next(1, 2, {id}));
  EXPECT_EQ(extents_->statistics().pinned, 1u);
  log_->truncate(KJ_ASSERT_NONNULL(log_->position(RecordIndex(1))));
  EXPECT_EQ(extents_->statistics().pinned, 0u);
}

using MemberLogDeathTest = MemberLogTest;

TEST_F(MemberLogDeathTest, ACommittedRecordIsNeverTruncated) {
  append(next(1, 1));
  append(next(1, 2));
  log_->keepCommitted(RecordIndex(2));
  const LogPosition first = KJ_ASSERT_NONNULL(log_->position(RecordIndex(1)));
  EXPECT_DEATH(log_->truncate(first), "a committed record would be truncated");
}

TEST_F(MemberLogDeathTest, ARecordNeverComesBeforeItsExtent) {
  auto record = next(1, 1, {volumeId(99)});
  EXPECT_DEATH(append(record), "before its extent is sealed");
}

TEST_F(MemberLogDeathTest, RecordsFollowOneAnother) {
  append(next(1, 1));
  auto stray = makeRecord(RecordIndex(3), Epoch(1), Hash128(), RecordKind(kStateMachineKindMin), {},
                          nullptr);
  EXPECT_DEATH(append(stray), "appending out of order");
}

}  // namespace
}  // namespace packmoor::replicator
