// Goal: receive-pack does what git's own does, in its words, and changes nothing when it refuses.
// Method: requests as git's HTTP client makes them, with packs made by git, to a node in memory.
#include "gitlayer/connectivity.h"
#include "receive_harness.h"

#include <gmock/gmock.h>

namespace packmoor::gitlayer::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(ReceiveTest, AdvertisesAnEmptyRepository) {
  std::string text = advertisement(true);
  EXPECT_THAT(text, StartsWith("001f# service=git-receive-pack\n0000"));
  EXPECT_THAT(text, HasSubstr(std::string(kZero) + " capabilities^{}" + std::string(1, '\0') +
                              "report-status report-status-v2 delete-refs side-band-64k quiet "
                              "atomic ofs-delta push-options session-id=packmoor-"));
  EXPECT_THAT(text, HasSubstr(" object-format=sha1 agent=packmoor/"));
  EXPECT_EQ(text.substr(text.size() - 4), "0000");
}

TEST_F(ReceiveTest, AdvertisesRefsInOrderAndVersionOne) {
  std::string id = git_.commit("a", "1");
  git_.run({"tag", "-a", "-m", "t", "v1"});
  node_.import("r", git_);
  std::string text = advertisement(false, 1);
  EXPECT_THAT(text, StartsWith("000eversion 1\n"));
  size_t main = text.find(id + " refs/heads/main" + std::string(1, '\0') + "report-status");
  size_t tag = text.find(git_.line({"rev-parse", "v1"}) + " refs/tags/v1\n");
  ASSERT_NE(main, std::string::npos);
  ASSERT_NE(tag, std::string::npos);
  EXPECT_LT(main, tag);
  EXPECT_EQ(text.find("^{}"), std::string::npos);
}

TEST_F(ReceiveTest, AdvertisesManyRefs) {
  ObjectId id = node_.addObject("r", ObjectType::kBlob, "x");
  for (int i = 0; i < 3000; ++i) {
    node_.setRef("r", "refs/tags/a-rather-long-name-" + std::to_string(100000 + i), id);
  }
  std::string text = advertisement(false);
  StringInput in(text);
  PktReader reader(in);
  size_t count = 0;
  std::string last;
  for (;;) {
    Pkt pkt = loop_.wait(reader.read());
    if (pkt.kind != PktKind::kData) break;
    std::string name(pkt.line().substr(41).substr(0, pkt.line().substr(41).find('\0')));
    EXPECT_LT(last, name);
    last = name;
    ++count;
  }
  EXPECT_EQ(count, 3000u);
}

TEST_F(ReceiveTest, TakesAFirstPush) {
  std::string id = git_.commit("a/b", "hello");
  std::string body = commands({std::string(kZero) + " " + id + " refs/heads/main"}) +
                     git_.pack({"main"}, {"--delta-base-offset"});
  for (size_t piece : {SIZE_MAX, size_t(1), size_t(7)}) {
    node_.state("r").refs.clear();
    node_.state("r").objects.clear();
    Answer answer = push(body, piece);
    EXPECT_EQ(answer.unpack, "ok");
    EXPECT_EQ(answer.refs["refs/heads/main"], "ok") << answer.raw;
    EXPECT_THAT(answer.progress, HasSubstr("Packmoor: durable"));
    EXPECT_EQ(refOf("refs/heads/main"), id);
    EXPECT_EQ(node_.state("r").objects.size(), 4u);  // commit, two trees, blob
  }
  EXPECT_EQ(counters_.pushes, 3u);
  const PushTransaction& last = node_.pushed.back();
  EXPECT_EQ(last.principal, "tester");
  EXPECT_FALSE(last.atomic);
  EXPECT_TRUE(last.updates[0].forward);
  EXPECT_TRUE(last.updates[0].peeled.isZero());
}

TEST_F(ReceiveTest, TakesThinPacksAndFindsForward) {
  std::string content;
  for (int i = 0; i < 500; ++i) content += "line " + std::to_string(i) + "\n";
  std::string first = git_.commit("a", content);
  node_.import("r", git_);
  std::string second = git_.commit("a", content + "one more\n");
  std::string third = git_.commit("a", content + "one more\nand one\n");
  std::string pack = git_.pack({"main", "^" + first}, {"--thin", "--delta-base-offset"});
  ASSERT_LT(pack.size(), 1000u);
  Answer answer = push(commands({first + " " + third + " refs/heads/main",
                                 third + " " + first + " refs/heads/back"}) + pack);
  EXPECT_EQ(answer.unpack, "ok") << answer.progress;
  EXPECT_EQ(answer.refs["refs/heads/main"], "ok");
  EXPECT_EQ(answer.refs["refs/heads/back"], "fetch first");
  EXPECT_EQ(refOf("refs/heads/main"), third);
  EXPECT_TRUE(node_.pushed.back().updates[0].forward);
  EXPECT_FALSE(node_.pushed.back().updates[1].forward);
  (void)second;
}

TEST_F(ReceiveTest, PeelsTags) {
  std::string id = git_.commit("a", "1");
  git_.run({"tag", "-a", "-m", "t", "v1"});
  git_.run({"tag", "-a", "-m", "t", "v2", "v1"});
  std::string tag = git_.line({"rev-parse", "v2"});
  Answer answer = push(commands({std::string(kZero) + " " + tag + " refs/tags/v2",
                                 std::string(kZero) + " " + id + " refs/heads/x"}) +
                       git_.pack({"v2"}));
  EXPECT_EQ(answer.refs["refs/tags/v2"], "ok") << answer.raw;
  EXPECT_EQ(node_.pushed.back().updates[0].peeled.hex(), kj::StringPtr(id.c_str()));
  EXPECT_TRUE(node_.pushed.back().updates[1].peeled.isZero());
}

TEST_F(ReceiveTest, DeletesWithoutAPack) {
  std::string id = git_.commit("a", "1");
  git_.run({"branch", "side"});
  node_.import("r", git_);
  Answer answer = push(commands({id + " " + kZero + " refs/heads/side",
                                 id + " " + kZero + " refs/heads/main",
                                 std::string(kZero) + " " + kZero + " refs/heads/none"}));
  EXPECT_EQ(answer.unpack, "ok");
  EXPECT_EQ(answer.refs["refs/heads/side"], "ok");
  EXPECT_EQ(answer.refs["refs/heads/none"], "ok");
  EXPECT_EQ(refOf("refs/heads/side"), "");
  // HEAD names it.
  EXPECT_EQ(answer.refs["refs/heads/main"], "deletion of the current branch prohibited");
  EXPECT_EQ(refOf("refs/heads/main"), id);
}

TEST_F(ReceiveTest, CreatesABranchWithAnEmptyPack) {
  std::string id = git_.commit("a", "1");
  node_.import("r", git_);
  Answer answer = push(commands({std::string(kZero) + " " + id + " refs/heads/second"}) +
                       git_.pack({"main", "^main"}));
  EXPECT_EQ(answer.unpack, "ok");
  EXPECT_EQ(refOf("refs/heads/second"), id);
}

TEST_F(ReceiveTest, AnswersTheProbeOfAnHttpClient) {
  EXPECT_EQ(serve("0000"), "");
  EXPECT_EQ(serve(""), "");
}

TEST_F(ReceiveTest, QuietAndPlainReports) {
  std::string id = git_.commit("a", "1");
  std::string pack = git_.pack({"main"});
  std::string line = std::string(kZero) + " " + id + " refs/heads/main";
  Answer quiet = push(commands({line}, "report-status side-band-64k quiet") + pack);
  EXPECT_EQ(quiet.refs["refs/heads/main"], "ok");
  EXPECT_THAT(quiet.progress, IsEmpty());
  node_.state("r").refs.clear();
  std::string plain = serve(commands({line}, "report-status") + pack);
  EXPECT_EQ(plain, "000eunpack ok\n0017ok refs/heads/main\n0000");
  node_.state("r").refs.clear();
  EXPECT_EQ(serve(commands({line}, "agent=x") + pack), "");
  EXPECT_EQ(refOf("refs/heads/main"), id);
}

TEST_F(ReceiveTest, RefusesBadNames) {
  std::string id = git_.commit("a", "1");
  std::string zero = kZero;
  Answer answer = push(
      commands({zero + " " + id + " HEAD", zero + " " + id + " refs/heads/a..b",
                zero + " " + id + " refs/heads/" + std::string(2000, 'n'),
                zero + " " + id + " refs/heads/good"}) +
      git_.pack({"main"}));
  EXPECT_EQ(answer.unpack, "ok");
  EXPECT_EQ(answer.refs["HEAD"], "funny refname");
  EXPECT_EQ(answer.refs["refs/heads/a..b"], "funny refname");
  EXPECT_EQ(answer.refs["refs/heads/" + std::string(2000, 'n')], "funny refname");
  EXPECT_EQ(answer.refs["refs/heads/good"], "ok");
  EXPECT_EQ(node_.state("r").refs.size(), 1u);
}

TEST_F(ReceiveTest, RefusesNonCommitsAsBranches) {
  git_.commit("a", "1");
  std::string tree = git_.line({"rev-parse", "HEAD^{tree}"});
  Answer answer = push(commands({std::string(kZero) + " " + tree + " refs/heads/tree",
                                 std::string(kZero) + " " + tree + " refs/tags/tree"}) +
                       git_.pack({"main"}));
  EXPECT_EQ(answer.refs["refs/heads/tree"], "failed to update ref");
  EXPECT_THAT(answer.progress, HasSubstr("non-commit object"));
  EXPECT_EQ(answer.refs["refs/tags/tree"], "ok");
}

TEST_F(ReceiveTest, AtomicIsAllOrNothing) {
  std::string id = git_.commit("a", "1");
  std::string pack = git_.pack({"main"});
  std::string zero = kZero;
  std::string capabilities = "report-status side-band-64k atomic";
  // A problem found here.
  Answer answer = push(commands({zero + " " + id + " refs/heads/good", zero + " " + id + " HEAD"},
                                capabilities) + pack);
  EXPECT_EQ(answer.refs["refs/heads/good"], "atomic push failure");
  EXPECT_EQ(answer.refs["HEAD"], "funny refname");
  EXPECT_TRUE(node_.state("r").refs.empty());
  EXPECT_TRUE(node_.pushed.empty());
  // A problem found where it is ordered.
  answer = push(commands({zero + " " + id + " refs/heads/good", id + " " + id + " refs/heads/old"},
                         capabilities) + pack);
  EXPECT_EQ(answer.refs["refs/heads/good"], "atomic push failure");
  EXPECT_EQ(answer.refs["refs/heads/old"], "fetch first");
  EXPECT_TRUE(node_.state("r").refs.empty());
  EXPECT_TRUE(node_.pushed.back().atomic);
  EXPECT_EQ(counters_.pushesRefused, 2u);
}

TEST_F(ReceiveTest, RefusesMissingObjects) {
  std::string first = git_.commit("a", "1");
  std::string second = git_.commit("b", "2");
  // The pack lacks what the first commit brought, and the repository is empty.
  Answer answer = push(commands({std::string(kZero) + " " + second + " refs/heads/main"}) +
                       git_.pack({"main", "^" + first}));
  EXPECT_EQ(answer.unpack, "ok");
  EXPECT_EQ(answer.refs["refs/heads/main"], "missing necessary objects");
  EXPECT_TRUE(node_.state("r").objects.empty());
  EXPECT_EQ(node_.freshViews, 1u);
  // A tip that nobody has.
  answer = push(commands({std::string(kZero) + " " + std::string(40, 'a') + " refs/heads/main"}) +
                git_.pack({"main"}));
  EXPECT_EQ(answer.refs["refs/heads/main"], "missing necessary objects");
  EXPECT_TRUE(node_.state("r").refs.empty());
}

TEST_F(ReceiveTest, LooksAgainWhenItsViewIsOld) {
  std::string content;
  for (int i = 0; i < 500; ++i) content += "line " + std::to_string(i) + "\n";
  std::string first = git_.commit("a", content);
  std::string second = git_.commit("a", content + "more\n");
  std::string pack = git_.pack({"main", "^" + first}, {"--thin"});
  // Another node has taken the first commit; this one shows it in fresh views only.
  node_.beforeView = [&](bool fresh) {
    if (fresh && node_.state("r").objects.empty()) node_.import("r", git_);
  };
  Answer answer = push(commands({std::string(kZero) + " " + second + " refs/heads/x"}) + pack);
  EXPECT_EQ(answer.unpack, "ok") << answer.progress;
  EXPECT_EQ(answer.refs["refs/heads/x"], "ok");
  EXPECT_EQ(node_.freshViews, 1u);
}

TEST_F(ReceiveTest, VerifiesAgainAfterAPrune) {
  std::string id = git_.commit("a", "1");
  std::string body =
      commands({std::string(kZero) + " " + id + " refs/heads/main"}) + git_.pack({"main"});
  int pruned = 0;
  replicator::TxnId first;
  node_.beforePush = [&](PushTransaction& transaction) -> std::optional<PushOutcome> {
    EXPECT_NE(transaction.txn, first);
    first = transaction.txn;
    if (pruned++ > 0) return std::nullopt;
    PushOutcome again;
    again.verifyAgain = true;
    again.refs.resize(1);
    return again;
  };
  Answer answer = push(body);
  EXPECT_EQ(answer.refs["refs/heads/main"], "ok");
  EXPECT_EQ(pruned, 2);
  EXPECT_EQ(node_.freshViews, 1u);
  node_.state("r").refs.clear();
  node_.beforePush = [&](PushTransaction&) -> std::optional<PushOutcome> {
    PushOutcome again;
    again.verifyAgain = true;
    again.refs.resize(1);
    return again;
  };
  answer = push(body);
  EXPECT_THAT(answer.refs["refs/heads/main"], HasSubstr("pruned"));
}

// Another node's operator has forbidden it after this node's view.
TEST_F(ReceiveTest, IsJudgedByTheSettingsOfThePushsTime) {
  std::string id = git_.commit("a", "1");
  git_.run({"branch", "side"});
  node_.import("r", git_);
  node_.beforePush = [&](PushTransaction&) -> std::optional<PushOutcome> {
    if (node_.state("r").info.settings.denyDeletes) return std::nullopt;
    node_.state("r").info.settings.denyDeletes = true;
    PushOutcome again;
    again.verifyAgain = true;
    again.refs.resize(1);
    return again;
  };
  Answer answer = push(commands({id + " " + kZero + " refs/heads/side"}));
  EXPECT_EQ(answer.refs["refs/heads/side"], "deletion prohibited");
  EXPECT_EQ(refOf("refs/heads/side"), id);
  EXPECT_EQ(node_.freshViews, 1u);
}

TEST_F(ReceiveTest, DoesNotShowHiddenRefs) {
  std::string id = git_.commit("a", "1");
  git_.run({"update-ref", "refs/hidden/x", "main"});
  node_.import("r", git_);
  node_.state("r").info.settings.receiveHidden = {"refs/hidden"};
  std::string text = advertisement(false);
  EXPECT_THAT(text, HasSubstr(id + " refs/heads/main"));
  EXPECT_THAT(text, Not(HasSubstr("refs/hidden")));
  node_.state("r").info.settings.receiveHidden = {"refs"};
  EXPECT_THAT(advertisement(false), HasSubstr(std::string(kZero) + " capabilities^{}"));
}

TEST_F(ReceiveTest, HeedsTheRepositorysBounds) {
  std::string id = git_.commit("a", std::string(10'000, 'x'));
  std::string line = std::string(kZero) + " " + id + " refs/heads/";
  node_.state("r").info.settings.commandsMax = 1;
  EXPECT_THAT(push(commands({line + "a", line + "b"})).error, HasSubstr("at most 1 refs"));
  // Also where the pack goes to extents.
  for (size_t inlineMax : {256u << 10, 20u}) {
    node_.options_.inlinePackBytesMax = inlineMax;
    node_.state("r").info.settings.maxInputBytes = 100;
    Answer answer = push(commands({line + "a"}) + git_.pack({"main"}));
    EXPECT_EQ(answer.unpack, "index-pack abnormal exit");
    EXPECT_EQ(answer.refs["refs/heads/a"], "unpacker error");
    EXPECT_THAT(answer.progress, HasSubstr("fatal: pack exceeds maximum allowed size"));
  }
  EXPECT_TRUE(node_.pushed.empty());
}

TEST_F(ReceiveTest, TakesNoPushOptionsWhereTheyAreNotWanted) {
  std::string id = git_.commit("a", "1");
  node_.state("r").info.settings.advertisePushOptions = false;
  EXPECT_THAT(advertisement(false), Not(HasSubstr("push-options")));
  std::string body = commands({std::string(kZero) + " " + id + " refs/heads/main"},
                              "report-status push-options");
  appendPkt(body, "ci.skip");
  appendFlush(body);
  EXPECT_EQ(push(body + git_.pack({"main"})).refs["refs/heads/main"], "ok");
  EXPECT_TRUE(node_.pushed.back().pushOptions.empty());
}

// How far it goes is found out beyond what is cheap only where it is asked for.
TEST_F(ReceiveTest, KnowsLongStepsForward) {
  std::string stream;
  for (size_t i = 0; i < kForwardReadsMax + 100; ++i) {
    stream += kj::str("commit refs/heads/main\ncommitter t <t@x> ", 1'700'000'000 + i,
                      " +0000\ndata 0\n").cStr();
  }
  git_.run({"fast-import", "--quiet", "--force"}, stream);
  node_.import("r", git_);
  const std::string first = git_.line({"rev-list", "--max-parents=0", "main"});
  const std::string last = git_.line({"rev-parse", "main"});
  node_.setRef("r", "refs/heads/slow", node_.state("r").refs.at("refs/heads/main").id);
  auto& slow = node_.state("r").refs.at("refs/heads/slow").id;
  ASSERT_TRUE(ObjectId::parseHex(first, slow));
  const std::string body = commands({first + " " + last + " refs/heads/slow"}) + git_.pack({});
  push(body);
  EXPECT_FALSE(node_.pushed.back().updates[0].forward);
  ASSERT_TRUE(ObjectId::parseHex(first, slow));
  node_.state("r").info.settings.denyNonFastForwards = true;
  EXPECT_EQ(push(body).refs["refs/heads/slow"], "ok");
  EXPECT_TRUE(node_.pushed.back().updates[0].forward);
  const std::string back = commands({last + " " + first + " refs/heads/slow"}) + git_.pack({});
  EXPECT_EQ(push(back).refs["refs/heads/slow"], "non-fast-forward");
}

TEST_F(ReceiveTest, ReportsWhatCouldNotBeOrdered) {
  std::string id = git_.commit("a", "1");
  node_.beforePush = [](PushTransaction&) -> std::optional<PushOutcome> {
    KJ_FAIL_REQUIRE("no quorum");
  };
  Answer answer =
      push(commands({std::string(kZero) + " " + id + " refs/heads/main"}) + git_.pack({"main"}));
  EXPECT_EQ(answer.unpack, "ok");
  EXPECT_THAT(answer.refs["refs/heads/main"], HasSubstr("no quorum"));
  EXPECT_EQ(counters_.pushesRefused, 1u);
}

TEST_F(ReceiveTest, RefusesWhatItDoesNotSpeak) {
  std::string id(40, 'a');
  std::string line = std::string(kZero) + " " + id + " refs/heads/main";
  Answer answer = push(commands({line}, "report-status object-format=sha256 side-band-64k"));
  EXPECT_THAT(answer.error, HasSubstr("object format"));
  EXPECT_THAT(push(commands({"shallow " + id.substr(1), line})).error,
              HasSubstr("protocol error: expected shallow sha"));
  EXPECT_THAT(push(commands({"push-cert"}, "side-band-64k")).error, HasSubstr("signed"));
  EXPECT_THAT(push(commands({"nonsense"})).error, HasSubstr("protocol error"));
  EXPECT_THAT(push(commands({line.substr(1)})).error, HasSubstr("protocol error"));
  node_.options_.commandsMax = 1;
  EXPECT_THAT(push(commands({line, line})).error, HasSubstr("at most 1 refs here (git.commands_max"));
  node_.options_.commandsMax = 100;
  const std::string longName = line.substr(0, 82) + "refs/heads/" + std::string(60'000, 'n');
  EXPECT_THAT(push(commands(std::vector<std::string>(19, longName))).error,
              HasSubstr("longer than 256 bytes on average"));
  EXPECT_THAT(push("0003").error, HasSubstr("bad packet length"));
  EXPECT_THAT(push("zzzz").error, HasSubstr("bad packet length"));
  std::string open;
  appendPkt(open, line);
  EXPECT_THAT(push(open).error, HasSubstr("does not end in a flush"));
}

TEST_F(ReceiveTest, TakesPushOptions) {
  std::string id = git_.commit("a", "1");
  std::string body = commands({std::string(kZero) + " " + id + " refs/heads/main"},
                              "report-status push-options");
  appendPkt(body, "ci.skip");
  appendFlush(body);
  Answer answer = push(body + git_.pack({"main"}));
  EXPECT_EQ(answer.refs["refs/heads/main"], "ok");
  EXPECT_EQ(node_.pushed.back().pushOptions, std::vector<std::string>{"ci.skip"});
}

}  // namespace
}  // namespace packmoor::gitlayer::test
