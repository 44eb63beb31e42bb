// Goal: the counting rules of DESIGN section 6 count as written. Method: small cases, and for the
// compared indexes every pair of ends.
#include "quorum.h"

#include "read_rounds.h"
#include "wake_signal.h"

#include "kernelio/virtual_loop.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

MemberIdentity member(char name, uint8_t journal = 1) {
  MemberIdentity identity;
  identity.node = std::string(1, name);
  identity.journal.bytes.fill(journal);
  return identity;
}

VolumeConfiguration configuration(size_t members, uint32_t writeQuorum) {
  VolumeConfiguration result;
  for (size_t i = 0; i < members; ++i) result.members.push_back(member(static_cast<char>('a' + i)));
  result.writeQuorum = writeQuorum;
  return result;
}

FenceReply report(char name, uint64_t epoch, uint64_t index) {
  FenceReply reply;
  reply.promised = true;
  reply.member = member(name);
  reply.last = LogPosition{RecordIndex(index), Epoch(epoch), Hash128{epoch, index}};
  return reply;
}

TEST(QuorumTest, FencesAllButWPlusOne) {
  EXPECT_EQ(fenceQuorum(configuration(3, 2)), 2u);
  EXPECT_EQ(fenceQuorum(configuration(5, 3)), 3u);
  EXPECT_EQ(fenceQuorum(configuration(3, 1)), 3u);
  EXPECT_EQ(fenceQuorum(configuration(3, 3)), 1u);
  EXPECT_EQ(fenceQuorum(configuration(2, 2)), 1u);
  EXPECT_EQ(fenceQuorum(configuration(1, 1)), 1u);
}

TEST(QuorumTest, TheLastActiveConfigurationIsFenced) {
  VolumeRecord record;
  record.current = configuration(3, 2);
  EXPECT_EQ(&configurationToFence(record), &record.current);
  record.lastActive = configuration(1, 1);
  EXPECT_EQ(configurationToFence(record).members.size(), 1u);
}

TEST(QuorumTest, OnlyCompleteReportsOfTheVeryMembersCount) {
  const VolumeConfiguration three = configuration(3, 2);
  FenceReply reply = report('b', 1, 1);
  EXPECT_TRUE(countsAsFenced(three, reply));
  reply.repairing = true;
  EXPECT_FALSE(countsAsFenced(three, reply));
  reply = report('b', 1, 1);
  reply.promised = false;
  EXPECT_FALSE(countsAsFenced(three, reply));
  reply = report('b', 1, 1);
  reply.member = member('b', 2);  // the same node with an empty disk
  EXPECT_FALSE(countsAsFenced(three, reply));
  EXPECT_FALSE(countsAsFenced(three, report('d', 1, 1)));
}

TEST(QuorumTest, AdoptsByEpochBeforeIndex) {
  const FenceReply a = report('a', 1, 90), b = report('b', 2, 10), c = report('c', 2, 12);
  EXPECT_EQ(chooseAdopted({&a, &b})->member.node, "b");
  EXPECT_EQ(chooseAdopted({&a, &b, &c})->member.node, "c");
  EXPECT_EQ(chooseAdopted({}), nullptr);
}

TEST(QuorumTest, CountsTheWthLargest) {
  EXPECT_EQ(countedByQuorum({5, 9, 7}, 1), 9u);
  EXPECT_EQ(countedByQuorum({5, 9, 7}, 2), 7u);
  EXPECT_EQ(countedByQuorum({5, 9, 7}, 3), 5u);
  EXPECT_EQ(countedByQuorum({5, 9}, 3), 0u);
}

TEST(QuorumTest, OnlyTheOwnEpochCommitsByCounting) {
  CommitCounter counter(Epoch(4), RecordIndex(10), 3, 2);
  counter.acknowledge(0, Epoch(4), RecordIndex(9));
  counter.acknowledge(1, Epoch(4), RecordIndex(9));
  EXPECT_EQ(counter.onQuorum(), RecordIndex(0));       // EpochStart is not among it
  counter.acknowledge(0, Epoch(4), RecordIndex(12));
  counter.acknowledge(1, Epoch(3), RecordIndex(12));   // of another epoch
  EXPECT_EQ(counter.onQuorum(), RecordIndex(0));
  counter.acknowledge(1, Epoch(4), RecordIndex(11));
  EXPECT_EQ(counter.onQuorum(), RecordIndex(11));
  counter.acknowledge(1, Epoch(4), RecordIndex(10));   // an old one arrives late
  EXPECT_EQ(counter.onQuorum(), RecordIndex(11));
  EXPECT_EQ(counter.everywhere(), RecordIndex(0));
}

TEST(QuorumTest, ComparedIndexesBracketEveryCommonPrefix) {
  for (uint64_t base : {0, 1, 7, 100}) {
    for (uint64_t last = base; last < base + 300; ++last) {
      auto indexes = indexesToCompare(RecordIndex(base), RecordIndex(last));
      ASSERT_EQ(indexes.front(), RecordIndex(base));
      ASSERT_EQ(indexes.back(), RecordIndex(last));
      ASSERT_LE(indexes.size(), 12u);
      for (size_t i = 1; i < indexes.size(); ++i) {
        ASSERT_LT(indexes[i - 1], indexes[i]);
        // A prefix that ends just below indexes[i] is found at no more than twice its distance.
        const uint64_t distance = last - indexes[i].value + 1;
        ASSERT_LE(last - indexes[i - 1].value, 2 * distance);
      }
    }
  }
}

// ---- Confirm rounds ---------------------------------------------------------------------------

class RoundsTest : public testing::Test, protected RoundHost {
 protected:
  kj::Timer& timer() override { return loop_.timer(); }
  RecordIndex announceable() override { return committed_; }
  void askToConfirm(size_t slot, uint64_t round) override { asked_.emplace_back(slot, round); }
  std::vector<size_t> slotsByPromptness() override { return {2, 1}; }

  bool served(kj::Promise<RecordIndex>& read) { return read.poll(loop_.waitScope()); }

  kernelio::VirtualLoop loop_;
  RecordIndex committed_{7};
  std::vector<std::pair<size_t, uint64_t>> asked_;
};

TEST_F(RoundsTest, AloneNobodyIsAsked) {
  ReadRounds rounds(*this, 1, 0, 1, 1000);
  EXPECT_EQ(loop_.wait(rounds.confirm()), RecordIndex(7));
  EXPECT_TRUE(asked_.empty());
}

TEST_F(RoundsTest, OneRoundServesAllThatCameBeforeIt) {
  ReadRounds rounds(*this, 3, 0, 2, 1000);
  auto first = rounds.confirm();
  ASSERT_EQ(asked_.size(), 1u);            // the promptest member is enough
  EXPECT_EQ(asked_[0], std::make_pair(size_t(2), uint64_t(1)));
  committed_ = RecordIndex(9);
  auto second = rounds.confirm(), third = rounds.confirm();
  EXPECT_EQ(asked_.size(), 1u);
  rounds.echoed(2, 1);
  EXPECT_TRUE(served(first));
  EXPECT_FALSE(served(second));            // it came after the question of round 1
  EXPECT_EQ(loop_.wait(kj::mv(first)), RecordIndex(7));
  ASSERT_EQ(asked_.size(), 2u);
  rounds.echoed(2, 1);                     // an old echo once more
  EXPECT_FALSE(served(second));
  rounds.echoed(2, 2);
  EXPECT_EQ(loop_.wait(kj::mv(second)), RecordIndex(9));
  EXPECT_EQ(loop_.wait(kj::mv(third)), RecordIndex(9));
}

TEST_F(RoundsTest, AReaderThatFollowsIsItsOwnEcho) {
  ReadRounds two(*this, 3, 0, 2, 1000);
  EXPECT_EQ(loop_.wait(two.confirm(1)), RecordIndex(7));
  EXPECT_TRUE(asked_.empty());
  two.end();
  EXPECT_ANY_THROW(loop_.wait(two.confirm(1)));
  // One echo is not enough where three members must follow.
  ReadRounds three(*this, 3, 0, 3, 1000);
  auto read = three.confirm(1);
  EXPECT_EQ(asked_.size(), 2u);
  EXPECT_FALSE(served(read));
}

TEST_F(RoundsTest, SilenceMakesItAskEverybodyAndThenGiveUp) {
  ReadRounds rounds(*this, 3, 0, 2, 1000);
  auto read = rounds.confirm();
  loop_.runFor(50 * kj::MILLISECONDS);
  rounds.tick();
  EXPECT_EQ(asked_.size(), 3u);
  rounds.echoed(1, 2);                     // of the later round: counts for the earlier reader, too
  EXPECT_TRUE(served(read));
  auto late = rounds.confirm();
  loop_.runFor(2 * kj::SECONDS);
  rounds.tick();
  EXPECT_ANY_THROW(loop_.wait(kj::mv(late)));
}

TEST_F(RoundsTest, TheEndOfTheRoleEndsAllReads) {
  ReadRounds rounds(*this, 3, 0, 2, 1000);
  auto read = rounds.confirm();
  rounds.end();
  EXPECT_ANY_THROW(loop_.wait(kj::mv(read)));
  EXPECT_ANY_THROW(loop_.wait(rounds.confirm()));
}

TEST_F(RoundsTest, AllMembersMustEchoWhenWIsAll) {
  ReadRounds rounds(*this, 3, 0, 3, 1000);
  auto read = rounds.confirm();
  EXPECT_EQ(asked_.size(), 2u);
  rounds.echoed(2, 1);
  EXPECT_FALSE(served(read));
  rounds.echoed(1, 1);
  EXPECT_TRUE(served(read));
}

}  // namespace
}  // namespace packmoor::replicator
