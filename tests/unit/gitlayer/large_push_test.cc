// Goal: a pack of any size becomes two sealed extents, a pack that stands alone and the index that
// git would make of it; a refused one leaves nothing. Method: packs made by git, pushed with the
// bound for small packs set to nothing; git itself judges the extents.
#include "receive_harness.h"

#include <gmock/gmock.h>

#include <set>

namespace packmoor::gitlayer::test {
namespace {

using ::testing::HasSubstr;

class LargePushTest : public ReceiveTest {
 protected:
  LargePushTest() { node_.options_.inlinePackBytesMax = 0; }
  ~LargePushTest() noexcept override {}

  // The newest pushed pack's extents are what git index-pack would leave.
  void expectLikeGit() {
    ASSERT_FALSE(node_.state("r").packs.empty());
    const FakePack& pack = node_.state("r").packs.back();
    packmoor::test::TempFolder folder;
    std::string path = folder.path() + "/p.pack";
    packmoor::test::writeFile(path, *pack.pack);
    auto made = packmoor::test::runProcess({"git", "index-pack", path}, folder.path());
    ASSERT_EQ(made.exitCode, 0) << made.err;
    EXPECT_EQ(packmoor::test::readFile(folder.path() + "/p.idx"), *pack.index);
    auto verified = packmoor::test::runProcess(
        {"git", "verify-pack", folder.path() + "/p.idx"}, folder.path());
    EXPECT_EQ(verified.exitCode, 0) << verified.err;
  }

  static ObjectId idOf(const std::string& hex) {
    ObjectId id;
    KJ_REQUIRE(ObjectId::parseHex(hex, id));
    return id;
  }

  // Adds many versions of a few files: commits, trees, deep deltas.
  void makeHistory(int commits) {
    for (int i = 0; text_.size() < 2000; ++i) text_ += "line " + std::to_string(i * 7919) + "\n";
    std::string stream;
    bool first = true;
    auto add = [&](const std::string& text) { stream += text + "\n"; };
    auto addData = [&](const std::string& data) {
      add("data " + std::to_string(data.size()));
      add(data);
    };
    for (int end = made_ + commits, i = made_; i < end; made_ = ++i) {
      text_.insert((i * 37) % text_.size(), "change " + std::to_string(i) + "\n");
      add("commit refs/heads/main");
      add("committer C O Mitter <committer@example.com> " + std::to_string(1700000000 + i) +
          " +0000");
      addData("commit " + std::to_string(i) + "\n");
      if (i > 0 && first) add("from refs/heads/main^0");
      first = false;
      add("M 100644 inline dir/file" + std::to_string(i % 5));
      addData(text_);
      add("M 100644 inline other");
      addData(std::to_string(i));
    }
    git_.run({"fast-import", "--quiet"}, stream);
  }

  std::string text_;
  int made_ = 0;

  Answer pushMain(const std::string& pack, const std::string& old = kZero) {
    return push(commands({old + " " + git_.line({"rev-parse", "main"}) + " refs/heads/main"}) +
                pack);
  }
};

TEST_F(LargePushTest, TakesAHistory) {
  makeHistory(40);
  git_.run({"repack", "-q", "-adf", "--depth=50"});
  for (auto& options : std::vector<std::vector<std::string>>{
           {}, {"--delta-base-offset"}, {"--no-reuse-object", "--depth=4095", "--window=50"}}) {
    node_.state("r").refs.clear();
    node_.state("r").objects.clear();
    std::string pack = git_.pack({"main"}, options);
    Answer answer = pushMain(pack);
    EXPECT_EQ(answer.unpack, "ok") << answer.progress;
    EXPECT_EQ(answer.refs["refs/heads/main"], "ok");
    expectLikeGit();
    EXPECT_EQ(*node_.state("r").packs.back().pack, pack);
  }
  EXPECT_EQ(node_.extentsAbandoned, 0u);
  EXPECT_EQ(node_.pushed.back().sealedOn, (std::vector<std::string>{"a", "b"}));
}

TEST_F(LargePushTest, CompletesThinPacks) {
  packmoor::test::TempFolder folder;
  makeHistory(20);
  node_.import("r", git_);
  std::string old = git_.line({"rev-parse", "main"});
  size_t before = node_.state("r").objects.size();
  makeHistory(10);
  for (auto& options : std::vector<std::vector<std::string>>{
           {"--thin"}, {"--thin", "--delta-base-offset"}}) {
    node_.setRef("r", "refs/heads/main", idOf(old));
    if (options.size() > 1) node_.extentFolder = folder.path();
    std::string pack = git_.pack({"main", "^" + old}, options);
    Answer answer = pushMain(pack, old);
    EXPECT_EQ(answer.unpack, "ok") << answer.progress;
    EXPECT_EQ(answer.refs["refs/heads/main"], "ok");
    EXPECT_TRUE(node_.pushed.back().updates[0].forward);
    expectLikeGit();
    EXPECT_GT(node_.state("r").packs.back().pack->size(), pack.size());
  }
  EXPECT_GT(node_.state("r").objects.size(), before);
}

// A push that must be verified again is ordered with the extents that it has sealed already.
TEST_F(LargePushTest, KeepsItsExtentsWhenItIsVerifiedAgain) {
  makeHistory(5);
  std::vector<PackExtents> proposed;
  std::vector<replicator::TxnId> txns;
  node_.beforePush = [&](PushTransaction& transaction) -> std::optional<PushOutcome> {
    proposed.push_back(*transaction.pack);
    txns.push_back(transaction.txn);
    EXPECT_EQ(transaction.sealedOn, (std::vector<std::string>{"a", "b"}));
    if (proposed.size() > 2) return std::nullopt;
    PushOutcome again;
    again.verifyAgain = true;
    again.refs.resize(1);
    return again;
  };
  Answer answer = pushMain(git_.pack({"main"}));
  EXPECT_EQ(answer.refs["refs/heads/main"], "ok") << answer.progress;
  ASSERT_EQ(proposed.size(), 3u);
  for (const auto& extents : proposed) {
    EXPECT_EQ(extents.pack, proposed[0].pack);
    EXPECT_EQ(extents.index, proposed[0].index);
  }
  EXPECT_EQ(std::set<replicator::TxnId>(txns.begin(), txns.end()).size(), 3u);
  EXPECT_EQ(node_.freshViews, 2u);
  EXPECT_EQ(node_.extentsAbandoned, 0u);
  expectLikeGit();
}

// A thin pack's base is taken from the repository into the pack. When it was pruned before the push was
// ordered, what it names may be gone, and the repository must not get it back alone.
TEST_F(LargePushTest, ABaseThatWasPrunedIsNotBroughtBackAlone) {
  for (int i = 0; i < 80; ++i) git_.write("f" + std::to_string(i), std::to_string(i * 7919));
  git_.commit("changed", "on the side");
  git_.run({"branch", "-q", "side"});
  git_.run({"checkout", "-q", "--orphan", "keep"});
  // The same files, in folders that are no good bases.
  git_.run({"rm", "-q", "-r", "-f", "."});
  for (int i = 0; i < 80; ++i) {
    git_.write("d" + std::to_string(i % 8) + "/f" + std::to_string(i), std::to_string(i * 7919));
  }
  git_.commit("kept", "of another branch");
  git_.run({"checkout", "-q", "-f", "--orphan", "new", "side"});
  git_.commit("changed", "on main");
  git_.run({"branch", "-q", "-M", "new", "main"});
  // Of a shallow client, which takes bases from any commit that it was shown.
  const std::string pack = git_.pack({"main", "^side", "^keep"}, {"--thin", "--shallow"});
  node_.import("r", git_);
  auto& state = node_.state("r");
  state.refs.erase(state.refs.find("refs/heads/main"));
  for (const char* object : {"main", "main^{tree}", "main:changed"}) {
    state.objects.erase(idOf(git_.line({"rev-parse", object})));
  }
  const auto base = idOf(git_.line({"rev-parse", "side^{tree}"}));
  int attempts = 0;
  node_.beforePush = [&](PushTransaction&) -> std::optional<PushOutcome> {
    if (attempts++ > 0) return std::nullopt;
    state.refs.erase(state.refs.find("refs/heads/side"));
    for (const char* object : {"side", "side^{tree}", "side:changed"}) {
      state.objects.erase(idOf(git_.line({"rev-parse", object})));
    }
    PushOutcome again;
    again.verifyAgain = true;
    again.refs.resize(1);
    return again;
  };
  Answer answer = pushMain(pack);
  EXPECT_EQ(attempts, 1) << "git made no thin pack with a tree's delta, or it was ordered again";
  EXPECT_EQ(answer.refs["refs/heads/main"], "missing necessary objects") << answer.progress;
  EXPECT_EQ(state.objects.count(base), 0u);
}

TEST_F(LargePushTest, BlocksOfEverySizeAtTheEnd) {
  // Incompressible blobs put the trailer on, before and behind the end of a block.
  git_.commit("seed", "x");
  std::string noise(replicator::kBlockBytes * 2, '\0');
  sim_.random().fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(noise.data()), noise.size()));
  size_t overhead = 0;
  for (int cut : {0, 0, 1, 10, 19, 20, 21, 40}) {
    git_.run({"checkout", "-q", "--orphan", "other"});
    size_t blob = overhead == 0 ? noise.size() - 5000 : noise.size() - overhead + 20 - cut;
    git_.commit("big", noise.substr(0, blob));
    git_.run({"branch", "-q", "-M", "other", "main"});
    std::string pack = git_.pack({"main"});
    if (overhead == 0) overhead = pack.size() - blob;
    Answer answer = pushMain(pack);
    EXPECT_EQ(answer.refs["refs/heads/main"], "ok") << answer.progress << answer.unpack;
    expectLikeGit();
    node_.state("r").refs.clear();
  }
}

TEST_F(LargePushTest, TakesLargeObjects) {
  std::string text(5u << 20, 'a');
  sim_.random().fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(text.data()), text.size() / 2));
  git_.commit("large", text);
  text[text.size() - 1] = 'b';
  text.insert(1000, "inserted");
  git_.commit("large", text);
  git_.run({"repack", "-q", "-adf"});
  Answer answer = pushMain(git_.pack({"main"}, {"--delta-base-offset"}));
  EXPECT_EQ(answer.refs["refs/heads/main"], "ok") << answer.progress;
  expectLikeGit();
}

TEST_F(LargePushTest, RefusesBrokenPacks) {
  makeHistory(5);
  std::string pack = git_.pack({"main"}, {"--delta-base-offset"});
  auto expectRefused = [&](const std::string& broken, const char* why) {
    Answer answer = pushMain(broken);
    EXPECT_EQ(answer.unpack, "index-pack abnormal exit");
    EXPECT_EQ(answer.refs["refs/heads/main"], "unpacker error");
    EXPECT_THAT(answer.progress, HasSubstr(why));
  };
  expectRefused(pack.substr(0, pack.size() - 1), "early EOF");
  expectRefused(pack.substr(0, pack.size() / 2), "early EOF");
  expectRefused(pack.substr(0, 5), "early EOF");
  expectRefused(pack + "x", "junk");
  std::string damaged = pack;
  damaged[damaged.size() - 5] ^= 1;
  expectRefused(damaged, "SHA1 mismatch");
  expectRefused("JUNK" + pack.substr(4), "signature");
  EXPECT_EQ(node_.extentsAbandoned, node_.extentsBegun);
  EXPECT_TRUE(node_.state("r").objects.empty());
  EXPECT_TRUE(node_.pushed.empty());
}

TEST_F(LargePushTest, RefusesUnresolvedDeltasAndMissingObjects) {
  makeHistory(10);
  std::string old = git_.line({"rev-parse", "main~3"});
  Answer answer = pushMain(git_.pack({"main", "^" + old}, {"--thin"}));
  EXPECT_EQ(answer.unpack, "index-pack abnormal exit");
  EXPECT_THAT(answer.progress, HasSubstr("unresolved delta"));
  EXPECT_EQ(node_.freshViews, 1u);
  answer = pushMain(git_.pack({"main", "^" + old}));
  EXPECT_EQ(answer.unpack, "ok");
  EXPECT_EQ(answer.refs["refs/heads/main"], "missing necessary objects");
  EXPECT_TRUE(node_.extents.empty());
  EXPECT_EQ(node_.extentsAbandoned, node_.extentsBegun);
}

TEST_F(LargePushTest, RespectsTheSizeLimit) {
  makeHistory(5);
  std::string pack = git_.pack({"main"});
  node_.options_.packBytesMax = pack.size() - 1;
  Answer answer = pushMain(pack);
  EXPECT_THAT(answer.progress, HasSubstr("exceeds maximum allowed size"));
  node_.options_.packBytesMax = pack.size();
  EXPECT_EQ(pushMain(pack).refs["refs/heads/main"], "ok");
}

TEST_F(LargePushTest, ReportsADiskThatFails) {
  makeHistory(5);
  node_.failBlock = 0;
  Answer answer = pushMain(git_.pack({"main"}));
  EXPECT_THAT(answer.unpack, HasSubstr("the disk is full"));
  EXPECT_EQ(answer.refs["refs/heads/main"], "unpacker error");
  EXPECT_EQ(node_.extentsAbandoned, node_.extentsBegun);
}

TEST_F(LargePushTest, AClientThatGoesAwayLeavesNothing) {
  makeHistory(5);
  std::string pack = git_.pack({"main"});
  std::string body =
      commands({std::string(kZero) + " " + git_.line({"rev-parse", "main"}) + " refs/heads/main"}) +
      pack.substr(0, pack.size() / 2);
  StringInput in(body);
  in.neverEnds = true;
  StringOutput out;
  auto served = session();
  {
    auto serving = served->serve(in, out);
    EXPECT_FALSE(serving.poll(loop_.waitScope()));
    EXPECT_EQ(node_.extentsBegun, 1u);
  }
  loop_.settle();
  EXPECT_EQ(node_.extentsAbandoned, 1u);
  EXPECT_TRUE(node_.pushed.empty());
  EXPECT_EQ(out.text, "");
}

TEST_F(LargePushTest, SmallPacksThatInflateGreatlyAreTakenAsLargeOnes) {
  node_.options_.inlinePackBytesMax = 256u << 10;
  git_.commit("zeros", std::string(40u << 20, '\0'));
  std::string pack = git_.pack({"main"});
  ASSERT_LT(pack.size(), 256u << 10);
  Answer answer = pushMain(pack);
  EXPECT_EQ(answer.refs["refs/heads/main"], "ok") << answer.progress;
  expectLikeGit();
}

}  // namespace
}  // namespace packmoor::gitlayer::test
