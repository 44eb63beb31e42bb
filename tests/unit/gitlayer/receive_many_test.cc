// Goal: a push of very many refs is ordered in records of a bounded size, each of which may be judged anew, and
// every ref gets its own answer; an atomic one stays one record. Method: transcripts against a node in memory
// that says what it is asked.
#include "receive_harness.h"

#include <gmock/gmock.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr size_t kRefs = 1201;   // for three records

class ReceiveManyTest : public ReceiveTest {
 protected:
  ReceiveManyTest() : id_(git_.commit("a", "1")) {
    node_.beforePush = [this](PushTransaction& transaction) -> std::optional<PushOutcome> {
      updates_.push_back(transaction.updates.size());
      objects_.push_back(transaction.objects.size());
      return onRecord ? onRecord(updates_.size()) : std::nullopt;
    };
  }
  ~ReceiveManyTest() noexcept override {}

  static std::string name(size_t number) { return "refs/heads/b" + std::to_string(number); }
  Answer pushAll(const std::string& capabilities = kUsual) {
    std::vector<std::string> lines;
    for (size_t i = 0; i < kRefs; ++i) lines.push_back(std::string(kZero) + " " + id_ + " " + name(i));
    return push(commands(lines, capabilities) + git_.pack({"main"}));
  }
  size_t refsThere() { return node_.state("r").refs.size(); }
  static PushOutcome verifyAgain() {
    PushOutcome again;
    again.verifyAgain = true;
    return again;
  }

  // Asked with the record's number; may answer itself.
  std::function<std::optional<PushOutcome>(size_t)> onRecord;
  std::string id_;
  std::vector<size_t> updates_, objects_;   // of each record
};

TEST_F(ReceiveManyTest, SeveralRecordsTakeThemAll) {
  const Answer answer = pushAll();
  EXPECT_EQ(answer.unpack, "ok");
  EXPECT_EQ(answer.refs.size(), kRefs);
  for (const auto& [ref, status] : answer.refs) ASSERT_EQ(status, "ok") << ref;
  EXPECT_EQ(refsThere(), kRefs);
  EXPECT_THAT(updates_, ElementsAre(500, 500, 201));
  EXPECT_THAT(objects_, ElementsAre(3, 0, 0));
}

TEST_F(ReceiveManyTest, AnAtomicPushIsOneRecord) {
  pushAll(std::string(kUsual) + " atomic");
  EXPECT_THAT(updates_, ElementsAre(kRefs));
  EXPECT_EQ(refsThere(), kRefs);
}

TEST_F(ReceiveManyTest, ObjectsGoAlongUntilARecordTakesEffect) {
  node_.import("r", git_);
  const ObjectId old = node_.state("r").refs.at("refs/heads/main").id;
  node_.state("r").objects.clear();
  for (size_t i = 0; i < 500; ++i) node_.setRef("r", name(i), old);   // so these cannot be made
  const Answer answer = pushAll();
  EXPECT_EQ(answer.refs.at(name(499)), "fetch first");
  EXPECT_EQ(answer.refs.at(name(500)), "ok");
  EXPECT_EQ(answer.refs.at(name(1200)), "ok");
  EXPECT_THAT(objects_, ElementsAre(3, 3, 0));
}

TEST_F(ReceiveManyTest, WhatIsAnsweredStaysWhenTheRestIsVerifiedAgain) {
  onRecord = [](size_t number) {
    return number == 2 ? std::optional<PushOutcome>(verifyAgain()) : std::nullopt;
  };
  const Answer answer = pushAll();
  for (const auto& [ref, status] : answer.refs) ASSERT_EQ(status, "ok") << ref;
  EXPECT_EQ(refsThere(), kRefs);
  EXPECT_THAT(updates_, ElementsAre(500, 500, 500, 201));
  EXPECT_EQ(node_.freshViews, 1u);
}

TEST_F(ReceiveManyTest, ARestThatIsVerifiedInVainHasItsReason) {
  onRecord = [](size_t number) {
    return number >= 2 ? std::optional<PushOutcome>(verifyAgain()) : std::nullopt;
  };
  const Answer answer = pushAll();
  EXPECT_EQ(answer.refs.at(name(0)), "ok");
  EXPECT_THAT(answer.refs.at(name(700)), HasSubstr("pruned"));
  EXPECT_THAT(answer.refs.at(name(1200)), HasSubstr("pruned"));
  EXPECT_EQ(refsThere(), 500u);
}

TEST_F(ReceiveManyTest, WhatCannotBeOrderedEndsThePush) {
  onRecord = [](size_t number) -> std::optional<PushOutcome> {
    if (number == 2) KJ_FAIL_REQUIRE("no quorum");
    return std::nullopt;
  };
  const Answer answer = pushAll();
  EXPECT_EQ(answer.refs.at(name(499)), "ok");
  EXPECT_THAT(answer.refs.at(name(500)), HasSubstr("no quorum"));
  EXPECT_THAT(answer.refs.at(name(1200)), HasSubstr("no quorum"));
  EXPECT_EQ(updates_.size(), 2u);
  EXPECT_EQ(refsThere(), 500u);
}

}  // namespace
}  // namespace packmoor::gitlayer
