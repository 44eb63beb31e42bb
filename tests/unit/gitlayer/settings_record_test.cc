// Goal: settings are changed by records, are the same after a crash, keep what a newer version has set,
// and hold for every push that is ordered after them. Method: a log in memory, and members of a cluster.
#include "record_codec.h"
#include "state_machine_fixture.h"
#include "test_cluster.h"

#include <gitlayer/git_state.pb.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;
using Status = ApplyResult::Status;

class SettingsRecordTest : public StateMachineTest {
 protected:
  ~SettingsRecordTest() noexcept {}
  Status set(uint64_t txn, Settings changes) {
    return submit(setProposal(txn, 1, std::move(changes))).status;
  }
};

TEST_F(SettingsRecordTest, SetsChangesAndUnsets) {
  submit(createProposal(1, 1, "project"));
  EXPECT_TRUE(view()->info().settings.stored.empty());
  EXPECT_EQ(set(2, {{"transfer.hideRefs", {"refs/a", "refs/b"}},
                    {"receive.denyDeletes", {"true"}},
                    {"newer.thing", {"x"}},
                    {"HEAD", {"refs/heads/trunk"}},
                    {"description", {"what it is"}}}),
            Status::kDone);
  auto info = view()->info();
  EXPECT_EQ(info.head, "refs/heads/trunk");
  EXPECT_EQ(info.description, "what it is");
  EXPECT_TRUE(info.settings.denyDeletes);
  EXPECT_EQ(info.settings.uploadHidden, (std::vector<std::string>{"refs/a", "refs/b"}));
  ASSERT_EQ(info.settings.stored.size(), 3u);
  EXPECT_EQ(info.settings.stored[0].key, "newer.thing");

  EXPECT_EQ(set(3, {{"receive.denyDeletes", {}},
                    {"transfer.hideRefs", {"refs/c"}},
                    {"HEAD", {}},
                    {"description", {}},
                    {"never.set", {}}}),
            Status::kDone);
  info = view()->info();
  EXPECT_EQ(info.head, "refs/heads/main");
  EXPECT_EQ(info.description, "");
  EXPECT_FALSE(info.settings.denyDeletes);
  EXPECT_EQ(info.settings.receiveHidden, std::vector<std::string>{"refs/c"});
  EXPECT_EQ(info.settings.stored.size(), 2u);

  const std::string before = dump();
  crash();
  EXPECT_EQ(dump(), before);
  EXPECT_EQ(view()->info().settings.stored[0].values, std::vector<std::string>{"x"});
}

TEST_F(SettingsRecordTest, RefusesWhatCannotBe) {
  submit(createProposal(1, 1, "project"));
  EXPECT_EQ(submit(setProposal(2, 2, {{"a", {"b"}}})).status, Status::kNotFound);
  EXPECT_EQ(set(3, {{"HEAD", {"main"}}}), Status::kRefused);
  EXPECT_EQ(set(4, {}), Status::kRefused);
  EXPECT_EQ(set(5, {{std::string(kSettingKeyBytesMax + 1, 'k'), {"v"}}}), Status::kRefused);
  EXPECT_EQ(set(6, {{"k", {std::string(kSettingValueBytesMax + 1, 'v')}}}), Status::kRefused);
  EXPECT_EQ(log->last(), 1u) << "nothing of it was ordered";
  Settings many;
  for (size_t i = 0; i < kSettingsMax; ++i) many.push_back({"k" + std::to_string(i), {"v"}});
  EXPECT_EQ(set(7, many), Status::kDone);
  EXPECT_EQ(set(8, {{"one more", {"v"}}}), Status::kRefused);
  EXPECT_EQ(view()->info().settings.stored.size(), kSettingsMax);
}

// A push is judged by settings; one that was judged by older ones is judged again.
TEST_F(SettingsRecordTest, APushThatWasCheckedBeforeIsCheckedAgain) {
  submit(createProposal(1, 1, "project"));
  auto at = [](uint64_t txn, uint64_t from, uint64_t to, uint64_t verifiedAt) {
    auto push = transaction(txn, {update("refs/heads/main", from, to)});
    push.verifiedAt = replicator::RecordIndex(verifiedAt);
    return pushProposal(1, std::move(push));
  };
  EXPECT_EQ(submit(at(2, 0, 1, 1)).status, Status::kDone);
  EXPECT_EQ(set(3, {{"receive.denyDeletes", {"true"}}}), Status::kDone);  // record 3
  EXPECT_EQ(submit(at(4, 1, 2, 2)).status, Status::kVerifyAgain);
  EXPECT_EQ(submit(at(5, 1, 2, 3)).status, Status::kDone);
  // While the change is in flight.
  EXPECT_TRUE(log->order(setProposal(6, 1, {{"HEAD", {"refs/heads/x"}}})).accepted);  // record 5
  const auto refused = log->order(at(7, 2, 3, 4));
  EXPECT_FALSE(refused.accepted);
  EXPECT_EQ(decodeResult(refused.result).status, Status::kVerifyAgain);
  EXPECT_EQ(refused.restsOn.value, 5u);
  EXPECT_TRUE(log->order(at(8, 2, 3, 5)).accepted);
  log->applyAll(loop.waitScope());
  EXPECT_EQ(ref("refs/heads/main"), 3u);
}

// Rows from before there were settings, and from a version that knows more.
TEST(SettingsRow, OtherVersionsRowsAreRead) {
  pb::RepositoryRow old;
  old.set_name("project");
  old.set_head("refs/heads/main");
  old.set_last_transaction(7);
  const auto row = RepositoryRow::decode(repositoryId(1), old.SerializeAsString());
  EXPECT_EQ(row.lastSettings, 0u);
  EXPECT_TRUE(row.info.settings.stored.empty());
  EXPECT_EQ(row.encode(), old.SerializeAsString()) << "nothing is added to it";

  pb::RepositoryRow newer = old;
  auto& setting = *newer.add_settings();
  setting.set_key("newer.thing");
  setting.add_values("a");
  setting.add_values("\xff");
  const auto read = RepositoryRow::decode(repositoryId(1), newer.SerializeAsString());
  EXPECT_EQ(read.encode(), newer.SerializeAsString());
}

TEST(SettingsRecord, IsReadAsItWasWritten) {
  const auto proposal = setProposal(9, 1, {{"a", {"x", ""}}, {"b", {}}});
  const auto read = decodeRepositorySet(proposal.payload);
  EXPECT_EQ(read.txn, txnId(9));
  EXPECT_EQ(read.repository, repositoryId(1));
  EXPECT_EQ(read.name, "project");
  ASSERT_EQ(read.changes.size(), 2u);
  EXPECT_EQ(read.changes[0].key, "a");
  EXPECT_EQ(read.changes[0].values, (std::vector<std::string>{"x", ""}));
  EXPECT_TRUE(read.changes[1].values.empty());
  EXPECT_ANY_THROW(decodeRepositorySet(nullptr));
}

TEST(SettingsNode, AnyMemberSetsAndSaysWhyNot) {
  TestCluster cluster(simGround(), 2);
  cluster.create("project");
  auto set = [&](size_t member, const std::string& name, Settings changes) {
    return cluster.node(member).setRepository(name, std::move(changes)).wait(cluster.scope());
  };
  auto changed = set(1, "project", {{"receive.denydeletes", {"yes"}}, {"head", {"trunk"}}});
  EXPECT_EQ(changed.problem, RepositoryProblem::kNone) << changed.message;
  EXPECT_EQ(changed.index.value, cluster.log.size());
  EXPECT_EQ(changed.info.head, "refs/heads/trunk");
  EXPECT_TRUE(changed.info.settings.denyDeletes);
  for (size_t member : {0, 1}) {
    EXPECT_TRUE(cluster.view("project", member)->info().settings.denyDeletes) << member;
  }
  EXPECT_EQ(cluster.dump(0), cluster.dump(1));
  EXPECT_EQ(set(0, "none", {{"HEAD", {"x"}}}).problem, RepositoryProblem::kNotFound);
  auto bad = set(0, "project", {{"HEAD", {"x"}}, {"receive.denyDeletes", {"perhaps"}}});
  EXPECT_EQ(bad.problem, RepositoryProblem::kBadSetting);
  EXPECT_EQ(bad.message, "receive.denyDeletes must be true or false, not 'perhaps'");
  EXPECT_EQ(cluster.view("project")->info().head, "refs/heads/trunk") << "all or nothing";
  EXPECT_EQ(set(0, "project", {}).problem, RepositoryProblem::kBadSetting);
}

}  // namespace
}  // namespace packmoor::gitlayer
