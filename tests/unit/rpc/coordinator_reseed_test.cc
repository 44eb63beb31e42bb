// Goal: what is written to an accepted etcd is the newest that members know, and nothing is written
// while somebody may know more (DESIGN rule 18). Method: plans over made-up memories.
#include "coordinator_reseed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kOld = 0xa, kNew = 0xb;

Uuid uuid(uint8_t value) {
  Uuid id;
  id.bytes[15] = value;
  return id;
}
Uuid journalOf(const std::string& node) { return uuid(static_cast<uint8_t>(node[0])); }

VolumeRecord record(uint64_t epoch, const std::string& primary, std::vector<std::string> members) {
  VolumeRecord record;
  record.id = uuid(1);
  record.name = "main";
  record.current.epoch = Epoch(epoch);
  record.current.primary = {primary, journalOf(primary)};
  record.current.nonce = uuid(static_cast<uint8_t>(epoch));
  for (const auto& node : members) record.current.members.push_back({node, journalOf(node)});
  record.current.writeQuorum = 2;
  record.phase = VolumePhase::kActive;
  record.lastActive = record.current;
  record.revision = static_cast<int64_t>(epoch);
  return record;
}

NodeKnowledge node(const std::string& name, const VolumeRecord& known, uint64_t promised) {
  NodeKnowledge knowledge;
  knowledge.node = name;
  knowledge.journal = journalOf(name);
  knowledge.doubts = true;
  knowledge.seenCluster = kNew;
  knowledge.memory.clusterId = kOld;
  knowledge.memory.revision = 100;
  knowledge.memory.listed = 90;
  knowledge.memory.volumes = {known};
  knowledge.promises[known.id] = Epoch(promised);
  return knowledge;
}

const std::vector<std::string> kAbc = {"a", "b", "c"};

class CoordinatorReseed : public ::testing::Test {
 protected:
  ReseedPlan plan(std::set<std::string> without = {}) {
    survey.now = {kNew, 50};
    return planReseed(asked, survey, without, [this]() { return uuid(next++); });
  }
  std::vector<NodeKnowledge> asked;
  EtcdSurvey survey;
  uint8_t next = 200;
};

TEST_F(CoordinatorReseed, TakesTheHighestEpochAndLeavesItActive) {
  const auto newest = record(3, "b", kAbc);
  asked = {node("a", record(2, "a", kAbc), 3), node("b", newest, 3), node("c", newest, 3)};
  survey.volumes = {record(1, "a", kAbc)};
  auto made = plan();
  EXPECT_THAT(made.problems, IsEmpty());
  ASSERT_EQ(made.volumes.size(), 1u);
  EXPECT_EQ(made.volumes[0].current, newest.current);
  EXPECT_EQ(made.volumes[0].phase, VolumePhase::kActive);
  EXPECT_EQ(made.volumes[0].lastActive, newest.lastActive);
  EXPECT_EQ(made.volumes[0].revision, revisionOf(1, 0));
  EXPECT_THAT(made.marker.nodes, ElementsAre("a", "b", "c"));
  ASSERT_EQ(made.marker.continues.size(), 1u);
  EXPECT_EQ(made.marker.continues[0].clusterId, kOld);
  EXPECT_EQ(made.marker.continues[0].revision, 90);
}

TEST_F(CoordinatorReseed, RefusesWhileAMemberDoesNotAnswer) {
  const auto newest = record(3, "b", kAbc);
  asked = {node("a", newest, 3), node("b", newest, 3)};
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("Member c of volume main does not answer")));
  EXPECT_THAT(plan({"b"}).problems, ElementsAre(HasSubstr("Member c")));
  EXPECT_THAT(plan({"c"}).problems, IsEmpty());
  asked.push_back(node("c", newest, 3));
  asked.back().journal = uuid(250);
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("has another disk")));
  asked.back() = node("c", newest, 3);
  asked.back().promises.clear();
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("has not opened the volume")));
}

// The members of the newest configuration count, not those of one that somebody remembers.
TEST_F(CoordinatorReseed, AsksTheMembersOfTheNewestConfiguration) {
  const auto older = record(2, "a", kAbc), newest = record(3, "b", {"a", "b", "d"});
  asked = {node("a", older, 3), node("b", newest, 3)};
  EXPECT_THAT(membersKnown(asked), ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("Member d")));
  asked.push_back(node("d", newest, 3));
  EXPECT_THAT(plan().problems, IsEmpty());
}

TEST_F(CoordinatorReseed, APromiseAboveBecomesAnAttemptThatFailed) {
  const auto newest = record(3, "b", kAbc);
  asked = {node("a", newest, 5), node("b", newest, 3), node("c", newest, 3)};
  auto made = plan();
  ASSERT_EQ(made.volumes.size(), 1u);
  EXPECT_EQ(made.volumes[0].current.epoch, Epoch(5));
  EXPECT_NE(made.volumes[0].current.nonce, newest.current.nonce);
  EXPECT_EQ(made.volumes[0].phase, VolumePhase::kRecovering);
  EXPECT_EQ(made.volumes[0].lastActive, newest.current) << "that is fenced next";
}

TEST_F(CoordinatorReseed, AnEpochThatEtcdHandedOutIsNotHandedOutAgain) {
  const auto newest = record(3, "b", kAbc);
  asked = {node("a", newest, 3), node("b", newest, 3), node("c", newest, 3)};
  survey.volumes = {record(7, "c", kAbc)};
  survey.volumes[0].revision = revisionOf(4, 20);
  auto made = plan();
  EXPECT_EQ(made.volumes[0].current.epoch, Epoch(7));
  EXPECT_EQ(made.volumes[0].phase, VolumePhase::kRecovering);
  EXPECT_EQ(made.volumes[0].lastActive, newest.current);
  EXPECT_EQ(generationOf(made.volumes[0].revision), 5u);
}

TEST_F(CoordinatorReseed, RefusesTwoOwnersOfOneEpoch) {
  auto one = record(3, "b", kAbc), other = record(3, "c", kAbc);
  other.current.nonce = uuid(77);
  asked = {node("a", one, 3), node("b", one, 3), node("c", other, 3)};
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("different owners of epoch 3")));
}

TEST_F(CoordinatorReseed, RefusesWhileANodeMayUseAnotherEtcd) {
  const auto newest = record(3, "b", kAbc);
  asked = {node("a", newest, 3), node("b", newest, 3), node("c", newest, 3)};
  asked[2].doubts = false;  // it still follows the old one
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("Node c has not seen this etcd yet")));
  asked[2].memory.clusterId = kNew;  // it follows this one already, from not so far
  asked[2].memory.revision = 40;
  EXPECT_THAT(plan().problems, IsEmpty());
  asked[2].memory.revision = 60;  // it has seen what this one has not
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("Node c")));
  asked[2].doubts = true;
  asked[2].seenCluster = 0xdd;
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("Node c")));
}

// A backup from before a volume was deleted does not bring it back, and nobody need have it open.
TEST_F(CoordinatorReseed, ADeletedVolumeStaysDeleted) {
  const auto before = record(3, "b", kAbc);
  auto deleted = before;
  deleted.traits.deleted = true;
  deleted.revision += 1;
  asked = {node("a", deleted, 3), node("b", before, 3), node("c", deleted, 3)};
  asked[0].promises.clear();
  asked[2].promises.clear();
  survey.volumes = {before};
  auto made = plan();
  EXPECT_THAT(made.problems, IsEmpty());
  ASSERT_EQ(made.volumes.size(), 1u);
  EXPECT_TRUE(made.volumes[0].traits.deleted);
  EXPECT_EQ(made.volumes[0].current.epoch, Epoch(3));
  asked.pop_back();
  EXPECT_THAT(plan().problems, ElementsAre(HasSubstr("Member c")));
}

TEST_F(CoordinatorReseed, AVolumeThatUsesANameAgainComesAfterTheDeletedOne) {
  auto deleted = record(9, "b", kAbc), again = record(2, "a", kAbc);
  deleted.traits.deleted = true;
  again.id = uuid(2);
  again.traits.former = {deleted.id};
  asked = {node("a", again, 2), node("b", again, 2), node("c", deleted, 9)};
  asked[2].promises[again.id] = Epoch(2);
  survey.volumes = {deleted};
  auto made = plan();
  EXPECT_THAT(made.problems, IsEmpty());
  ASSERT_EQ(made.volumes.size(), 1u);
  EXPECT_EQ(made.volumes[0].id, again.id);
  EXPECT_EQ(made.volumes[0].current.epoch, Epoch(2));
  EXPECT_EQ(made.volumes[0].phase, VolumePhase::kActive);
}

}  // namespace
}  // namespace packmoor::rpc
