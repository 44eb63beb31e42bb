// Goal: what a member promises, accepts, acknowledges and applies is what rules 3, 13, 14 and 15 say,
// case by case. Method: MemberCore against logs made by hand.
#include "member_core.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace packmoor::replicator {
namespace {

using Outcome = AppendReply::Outcome;
using Claim = MemberCore::Claim;

// Records of the given epochs, one after another; equal epochs and equal salts give equal logs.
std::vector<RecordRef> recordsOf(std::vector<uint64_t> epochs, uint8_t salt = 0,
                                 LogPosition after = {}) {
  std::vector<RecordRef> records;
  for (uint64_t epoch : epochs) {
    auto payload = kj::heapArray<kj::byte>(1);
    payload[0] = salt;
    records.push_back(makeRecord(after.index.next(), Epoch(epoch), after.hash,
                                 RecordKind(kStateMachineKindMin), {}, kj::mv(payload)));
    after = LogPosition{records.back()->index, Epoch(epoch), records.back()->hash};
  }
  return records;
}

LogPosition at(const RecordRef& record) { return {record->index, record->epoch, record->hash}; }

class FakeLog final : public LogView {
 public:
  explicit FakeLog(std::vector<RecordRef> records) : records(std::move(records)) {
    durableIndex = last().index;
  }
  LogPosition base() const override { return basePosition; }
  LogPosition last() const override { return records.empty() ? basePosition : at(records.back()); }
  RecordIndex durable() const override { return durableIndex; }
  kj::Maybe<LogPosition> position(RecordIndex index) const override {
    if (index == basePosition.index) return basePosition;
    for (const RecordRef& record : records) {
      if (record->index == index) return at(record);
    }
    return nullptr;
  }
  void dropUpTo(RecordIndex index) {
    while (!records.empty() && records.front()->index <= index) {
      basePosition = at(records.front());
      records.erase(records.begin());
    }
  }
  std::vector<RecordRef> records;
  LogPosition basePosition;
  RecordIndex durableIndex;
};

Uuid nonce(uint8_t n) {
  Uuid id;
  id.bytes.fill(n);
  return id;
}

AppendRequest request(uint64_t epoch, LogPosition previous, std::vector<RecordRef> records = {}) {
  AppendRequest request;
  request.epoch = Epoch(epoch);
  request.nonce = nonce(static_cast<uint8_t>(epoch));
  request.previous = previous;
  request.records = std::move(records);
  return request;
}

MemberCore memberIn(uint64_t epoch, uint64_t committed = 0) {
  return MemberCore(FencePromise{Epoch(epoch), nonce(static_cast<uint8_t>(epoch))},
                    RecordIndex(committed), false);
}

TEST(MemberCoreTest, LowerEpochsAndForeignNoncesAreRefused) {
  MemberCore member = memberIn(5);
  EXPECT_EQ(member.compare(Epoch(4), nonce(4)), Claim::kLower);
  EXPECT_EQ(member.compare(Epoch(5), nonce(5)), Claim::kSame);
  EXPECT_EQ(member.compare(Epoch(5), nonce(6)), Claim::kLower);
  EXPECT_EQ(member.compare(Epoch(6), nonce(6)), Claim::kHigher);
  member.raise(FencePromise{Epoch(7), nonce(7)});
  EXPECT_EQ(member.compare(Epoch(6), nonce(6)), Claim::kLower);
}

TEST(MemberCoreDeathTest, APromiseNeverGoesBack) {
  MemberCore member = memberIn(5);
  EXPECT_DEATH(member.raise(FencePromise{Epoch(5), nonce(6)}), "a promise goes back");
}

TEST(MemberCoreTest, RecordsFollowOnlyAMatchingHash) {
  auto ours = recordsOf({1, 1, 1});
  FakeLog log(ours);
  MemberCore member = memberIn(2);
  auto next = recordsOf({2, 2}, 0, at(ours[2]));

  AppendPlan plan = member.plan(request(2, at(ours[2]), next), log);
  EXPECT_EQ(plan.outcome, Outcome::kDurable);
  EXPECT_EQ(plan.have, 0u);
  EXPECT_TRUE(plan.truncateTo == nullptr);

  auto theirs = recordsOf({1, 1, 2});
  plan = member.plan(request(2, at(theirs[2]), {}), log);
  EXPECT_EQ(plan.outcome, Outcome::kMismatch);
  EXPECT_EQ(plan.position, at(ours[2]));
}

TEST(MemberCoreTest, BeyondTheEndItTellsWhereTheLogEnds) {
  auto all = recordsOf({1, 1, 1, 1, 1});
  FakeLog log({all.begin(), all.begin() + 2});
  MemberCore member = memberIn(1);
  AppendPlan plan = member.plan(request(1, at(all[3]), {all[4]}), log);
  EXPECT_EQ(plan.outcome, Outcome::kMismatch);
  EXPECT_EQ(plan.position, at(all[1]));
}

TEST(MemberCoreTest, BelowTheLogThereIsNothingToCompare) {
  auto all = recordsOf({1, 1, 1, 1});
  FakeLog log(all);
  log.dropUpTo(RecordIndex(2));
  MemberCore member = memberIn(1, 2);
  AppendPlan plan = member.plan(request(1, at(all[0]), {all[1], all[2]}), log);
  EXPECT_EQ(plan.outcome, Outcome::kBehind);
  EXPECT_EQ(plan.position, at(all[1]));
  plan = member.plan(request(1, at(all[1]), {all[2]}), log);  // the base itself can be compared
  EXPECT_EQ(plan.outcome, Outcome::kDurable);
  EXPECT_EQ(plan.have, 1u);
}

TEST(MemberCoreTest, ALateDuplicateNeverShortensTheLog) {
  auto all = recordsOf({1, 1, 1, 1});
  FakeLog log(all);
  MemberCore member = memberIn(1);
  AppendPlan plan = member.plan(request(1, LogPosition(), {all[0], all[1]}), log);
  EXPECT_EQ(plan.outcome, Outcome::kDurable);
  EXPECT_EQ(plan.have, 2u);
  EXPECT_TRUE(plan.truncateTo == nullptr);
}

// Rule 19: what a member holds that an accepted loss ignored may be nowhere else.
TEST(MemberCoreTest, AnUnprovenMemberIsNeverCut) {
  auto ours = recordsOf({1, 1, 1, 1});
  auto theirs = recordsOf({2, 2}, 0, at(ours[1]));
  FakeLog log(ours);
  MemberCore member(FencePromise{Epoch(2), nonce(2)}, RecordIndex(4), false);
  AppendPlan plan =
      member.plan(request(2, at(ours[0]), {ours[1], theirs[0], theirs[1]}), log, false);
  EXPECT_EQ(plan.outcome, Outcome::kRepairing);
  EXPECT_EQ(KJ_ASSERT_NONNULL(plan.truncateTo), at(ours[1]));
  plan = member.plan(request(2, at(ours[0]), {ours[1], ours[2]}), log, false);
  EXPECT_EQ(plan.outcome, Outcome::kDurable);
}

TEST(MemberCoreTest, OnlyTheFirstConflictCutsTheLog) {
  auto ours = recordsOf({1, 1, 1, 1});
  auto theirs = recordsOf({2, 2}, 0, at(ours[1]));
  FakeLog log(ours);
  MemberCore member = memberIn(2);
  AppendPlan plan = member.plan(request(2, at(ours[0]), {ours[1], theirs[0], theirs[1]}), log);
  EXPECT_EQ(plan.outcome, Outcome::kDurable);
  EXPECT_EQ(plan.have, 1u);
  EXPECT_EQ(KJ_ASSERT_NONNULL(plan.truncateTo), at(ours[1]));
}

TEST(MemberCoreDeathTest, ACommittedRecordIsNeverReplaced) {
  auto ours = recordsOf({1, 1, 1});
  auto theirs = recordsOf({2}, 0, at(ours[1]));
  FakeLog log(ours);
  MemberCore member = memberIn(2, 3);
  EXPECT_DEATH(member.plan(request(2, at(ours[1]), theirs), log), "replaces a committed record");
}

TEST(MemberCoreDeathTest, APrimaryNeverReplacesWhatItHasSent) {
  auto ours = recordsOf({2, 2, 2});
  auto theirs = recordsOf({2}, 9, at(ours[1]));
  FakeLog log(ours);
  MemberCore member = memberIn(2);
  member.verified(Epoch(2), RecordIndex(3));
  EXPECT_DEATH(member.plan(request(2, at(ours[1]), theirs), log), "replaces what it has sent");
}

TEST(MemberCoreTest, RecordsThatDoNotFollowOneAnotherAreNonsense) {
  auto all = recordsOf({1, 1, 1});
  FakeLog log({});
  MemberCore member = memberIn(1);
  EXPECT_ANY_THROW(member.plan(request(1, LogPosition(), {all[0], all[2]}), log));
  EXPECT_ANY_THROW(member.plan(request(1, LogPosition(), {all[1]}), log));
  auto future = recordsOf({3});
  EXPECT_ANY_THROW(member.plan(request(1, LogPosition(), future), log));
  auto back = recordsOf({2}, 0);
  auto lower = recordsOf({1}, 0, at(back[0]));
  EXPECT_ANY_THROW(member.plan(request(2, LogPosition(), {back[0], lower[0]}), log));
}

TEST(MemberCoreTest, AcknowledgesTheLesserOfVerifiedAndDurable) {
  auto all = recordsOf({1, 1, 1, 1});
  FakeLog log(all);
  MemberCore member = memberIn(1);
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(0));  // nothing verified in this epoch
  member.verified(Epoch(1), RecordIndex(3));
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(3));
  log.durableIndex = RecordIndex(2);
  EXPECT_EQ(member.acknowledgement(log), at(all[1]));
}

TEST(MemberCoreTest, ANewEpochMustVerifyAgain) {
  auto all = recordsOf({1, 1, 1});
  FakeLog log(all);
  MemberCore member = memberIn(1);
  member.verified(Epoch(1), RecordIndex(3));
  member.raise(FencePromise{Epoch(2), nonce(2)});
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(0));
  member.verified(Epoch(2), RecordIndex(2));
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(0));  // the promise is not durable yet
  member.promiseIsDurable(Epoch(2));
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(2));
  member.verified(Epoch(1), RecordIndex(3));                     // late news of the old epoch
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(2));
}

TEST(MemberCoreTest, AppliesTheLesserOfAnnouncedVerifiedAndDurable) {
  auto all = recordsOf({1, 1, 1, 1, 1});
  FakeLog log(all);
  MemberCore member = memberIn(1);
  member.announced(Epoch(1), RecordIndex(4));
  EXPECT_EQ(member.applicable(log), RecordIndex(0));
  member.verified(Epoch(1), RecordIndex(2));
  EXPECT_EQ(member.applicable(log), RecordIndex(2));
  member.verified(Epoch(1), RecordIndex(5));
  EXPECT_EQ(member.applicable(log), RecordIndex(4));
  log.durableIndex = RecordIndex(3);
  EXPECT_EQ(member.applicable(log), RecordIndex(3));
}

TEST(MemberCoreTest, WhatWasKnownToBeCommittedStaysSo) {
  auto all = recordsOf({1, 1, 1});
  FakeLog log(all);
  MemberCore member = memberIn(1);
  member.verified(Epoch(1), RecordIndex(3));
  member.announced(Epoch(1), RecordIndex(2));
  member.raise(FencePromise{Epoch(2), nonce(2)});
  member.announced(Epoch(1), RecordIndex(3));  // too late to count
  EXPECT_EQ(member.committed(), RecordIndex(2));
  EXPECT_EQ(member.applicable(log), RecordIndex(2));
}

TEST(MemberCoreTest, AMemberInRepairAcknowledgesNothing) {
  auto all = recordsOf({1, 1});
  FakeLog log(all);
  MemberCore member = memberIn(1);
  member.verified(Epoch(1), RecordIndex(2));
  member.beginRepair();
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(0));
  EXPECT_EQ(member.plan(request(1, at(all[1])), log).outcome, Outcome::kRepairing);
  EXPECT_EQ(member.repairedUpTo(log).index, RecordIndex(0));
  member.acceptRepairs();
  EXPECT_EQ(member.plan(request(1, at(all[1])), log).outcome, Outcome::kDurable);
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(0));
  EXPECT_EQ(member.repairedUpTo(log).index, RecordIndex(2));
  member.whole();
  EXPECT_EQ(member.acknowledgement(log).index, RecordIndex(2));
}

}  // namespace
}  // namespace packmoor::replicator
