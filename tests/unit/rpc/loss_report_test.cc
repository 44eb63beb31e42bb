// Goal: what is told to be lost is what the members that answer know, and no more. Method: made-up answers
// of members, judged.
#include "loss_report.h"

#include <gmock/gmock.h>

namespace packmoor::rpc {
namespace {

using control::VolumeLogAnswer;
using control::VolumeLostWritesReply;
using replicator::Epoch;
using replicator::MemberIdentity;
using replicator::Uuid;
using replicator::VolumeRecord;
using testing::ElementsAre;
using testing::HasSubstr;

MemberIdentity member(const std::string& node) {
  Uuid journal;
  journal.bytes.fill(static_cast<uint8_t>(node.back()));
  return {node, journal};
}

VolumeRecord volume(std::vector<std::string> members, uint32_t writeQuorum) {
  VolumeRecord record;
  record.name = "main";
  record.revision = 77;
  record.current.epoch = Epoch(5);
  for (const std::string& node : members) record.current.members.push_back(member(node));
  record.current.writeQuorum = writeQuorum;
  record.current.primary = record.current.members.front();
  record.lastActive = record.current;
  return record;
}

VolumeLogAnswer answer(const std::string& node, uint64_t lastEpoch, uint64_t last) {
  VolumeLogAnswer answer;
  answer.set_open(true);
  answer.set_journal(member(node).journal.text().cStr());
  answer.mutable_member()->set_node(node);
  answer.mutable_member()->set_whole(true);
  answer.mutable_member()->set_last(last);
  answer.mutable_member()->set_last_epoch(lastEpoch);
  answer.mutable_member()->set_announced(last);
  return answer;
}

VolumeLostWritesReply judged(const VolumeRecord& record, std::vector<VolumeLogAnswer> answers,
                             const std::string& promote = "") {
  VolumeLostWritesReply reply;
  judge(record, answers, promote, reply);
  addRanges(answers, reply);
  return reply;
}

TEST(LossReportTest, NothingIsLostWhileAFenceQuorumAnswers) {
  auto reply = judged(volume({"a", "b", "c"}, 2), {answer("a", 5, 9), answer("c", 5, 8)});
  EXPECT_FALSE(reply.beyond_repair());
  EXPECT_THAT(reply.state(), HasSubstr("A takeover is possible"));
  EXPECT_EQ(reply.ranges_size(), 0);
  EXPECT_EQ(reply.keep_size(), 0);
}

TEST(LossReportTest, ALeaderLosesNothing) {
  auto leads = answer("a", 5, 9);
  leads.mutable_member()->set_leads(true);
  auto reply = judged(volume({"a", "b", "c"}, 2), {leads});
  EXPECT_FALSE(reply.beyond_repair());
  EXPECT_THAT(reply.state(), HasSubstr("a leads"));
}

TEST(LossReportTest, TheNewestOfThoseThatAnswerIsKeptAndTheRestIsSaidToBeUnknown) {
  auto told = answer("d", 4, 30);
  told.mutable_member()->set_announced(35);
  auto reply = judged(volume({"a", "b", "c", "d", "e"}, 3), {told, answer("e", 5, 20)});
  ASSERT_TRUE(reply.beyond_repair());
  EXPECT_EQ(reply.revision(), 77);
  EXPECT_THAT(reply.keep(), ElementsAre("d", "e"));
  EXPECT_THAT(reply.ignore(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(reply.leader(), "e");   // by the epoch of the last record, not by its index
  EXPECT_EQ(reply.keeps_up_to(), 20u);
  ASSERT_EQ(reply.ranges_size(), 2);
  EXPECT_EQ(reply.ranges(0).first(), 21u);
  EXPECT_EQ(reply.ranges(0).last(), 35u);
  EXPECT_THAT(reply.ranges(0).why(), HasSubstr("d was told"));
  EXPECT_EQ(reply.ranges(1).first(), 36u);
  EXPECT_EQ(reply.ranges(1).last(), 0u);
}

TEST(LossReportTest, DamagedMembersAndOtherJournalsAreNotKept) {
  auto damaged = answer("b", 5, 12);
  damaged.mutable_member()->set_whole(false);
  auto other = answer("c", 5, 99);
  other.set_journal(member("z").journal.text().cStr());
  auto reply = judged(volume({"a", "b", "c"}, 3), {damaged, other});
  ASSERT_TRUE(reply.beyond_repair());
  EXPECT_EQ(reply.keep_size(), 0);
  EXPECT_THAT(reply.ignore(), ElementsAre("a", "b", "c"));
  EXPECT_THAT(reply.members(2).problem(), HasSubstr("another journal"));
  EXPECT_FALSE(reply.members(2).reachable());
}

TEST(LossReportTest, ADamagedCopyIsKeptAsItIsWhereNoneIsWhole) {
  auto damaged = answer("b", 5, 12);
  damaged.mutable_member()->set_whole(false);
  damaged.mutable_member()->set_damaged(true);
  auto worse = answer("c", 5, 11);
  worse.mutable_member()->set_whole(false);
  worse.mutable_member()->set_damaged(true);
  auto reply = judged(volume({"a", "b", "c"}, 2), {damaged, worse});
  EXPECT_TRUE(reply.as_is());
  EXPECT_THAT(reply.keep(), ElementsAre("b"));
  EXPECT_THAT(reply.ignore(), ElementsAre("a", "c"));
  EXPECT_THAT(reply.ranges(0).why(), HasSubstr("that of b"));
  reply = judged(volume({"a", "b", "c"}, 1), {damaged, answer("c", 4, 1)});
  EXPECT_FALSE(reply.as_is());
  EXPECT_THAT(reply.keep(), ElementsAre("c"));
}

TEST(LossReportTest, AnAsyncStandbyIsKeptWhereItIsTheOnlyOneOrHasMoreOrIsToBePromoted) {
  auto record = volume({"a", "b"}, 2);
  record.lastActive->async = {member("x"), member("y")};
  EXPECT_THAT(judged(record, {answer("x", 5, 7)}).keep(), ElementsAre("x"));
  EXPECT_THAT(judged(record, {answer("x", 5, 7), answer("y", 5, 8)}).keep(), ElementsAre("x", "y"));
  EXPECT_THAT(judged(record, {answer("x", 5, 7), answer("y", 5, 8)}, "x").keep(),
              ElementsAre("x", "y"));
  record.lastActive->writeQuorum = 1;
  auto counted = judged(record, {answer("b", 5, 7), answer("x", 5, 7), answer("y", 5, 8)});
  EXPECT_THAT(counted.keep(), ElementsAre("b", "y"));
  EXPECT_EQ(counted.leader(), "y");
  auto promoted = judged(record, {answer("b", 5, 7), answer("x", 5, 7)}, "x");
  EXPECT_THAT(promoted.keep(), ElementsAre("b", "x"));
  EXPECT_EQ(promoted.leader(), "x");
}

TEST(LossReportTest, WritesAreListedOnceAndAreCountedBeyondTheBound) {
  auto reply = judged(volume({"a", "b"}, 1), {answer("a", 5, 3)});
  std::vector<control::LostWrite> records;
  for (uint64_t index = 3; index < 3 + kLostWritesMax + 5; ++index) {
    auto& write = records.emplace_back();
    write.set_index(index);
    write.set_epoch(5);
    write.set_hash(std::to_string(index));
    write.set_what("push");
    write.set_repository("team/app");
    write.set_pusher("alice");
    write.set_client("192.0.2.7");
    write.add_push_options("ci.skip");
    auto& ref = *write.add_refs();
    ref.set_name("refs/heads/main");
    ref.set_new_id("1234");
  }
  addWrites(records, 3, "b", "Why.", reply);
  addWrites({records[1]}, 3, "c", "Why.", reply);
  EXPECT_EQ(static_cast<size_t>(reply.writes_size()), kLostWritesMax);
  EXPECT_EQ(reply.writes_left_off(), 4u);
  EXPECT_EQ(reply.writes(0).held_by(), "b");
  EXPECT_EQ(lineOf(reply.writes(0)), "record 4 of epoch 5: push in team/app by alice from 192.0.2.7, "
                                     "option ci.skip; "
                                     "refs/heads/main (none) to 1234");
  EXPECT_THAT(summaryOf(reply), HasSubstr("1004 records"));
  EXPECT_THAT(summaryOf(reply), HasSubstr("whatever b acknowledged"));
}

}  // namespace
}  // namespace packmoor::rpc
