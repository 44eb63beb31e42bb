// Goal: a client with side-band hears an empty packet every five seconds, or as it is set, while its push is
// being ordered or its fetch waits, one without it hears nothing of the kind, and none while it is itself
// still sending. Method: virtual time; a push and a view that the node holds, a queue whose turn is taken.
#include "keep_alive.h"

#include "upload_harness.h"

namespace packmoor::gitlayer::test {
namespace {

const std::string kPacket(kKeepalivePacket);

class PushKeepAliveTest : public ReceiveTest {
 protected:
  PushKeepAliveTest() {
    auto held = kj::newPromiseAndFulfiller<void>();
    node_.holdPush = kj::mv(held.promise);
    release_ = kj::mv(held.fulfiller);
    id_ = git_.commit("a", "1");
    pack_ = git_.pack({"main"});
  }
  ~PushKeepAliveTest() noexcept override {}
  std::string body(const std::string& capabilities = kUsual) {
    return commands({std::string(kZero) + " " + id_ + " refs/heads/main"}, capabilities) + pack_;
  }

  kj::Own<kj::PromiseFulfiller<void>> release_;
  std::string id_, pack_;
};

TEST_F(PushKeepAliveTest, TellsAClientThatItsPushIsWorkedOn) {
  for (size_t inlineMax : {size_t(256) << 10, size_t(0)}) {
    SCOPED_TRACE(inlineMax);
    node_.options_.inlinePackBytesMax = inlineMax;
    node_.state("r").refs.clear();
    auto held = kj::newPromiseAndFulfiller<void>();
    node_.holdPush = kj::mv(held.promise);
    StringInput in(body());
    StringOutput out;
    auto opened = session();
    auto serving = opened->serve(in, out).eagerlyEvaluate(nullptr);
    loop_.runFor(kKeepaliveInterval - 1 * kj::MILLISECONDS);
    EXPECT_EQ(out.text, "");
    loop_.runFor(1 * kj::MILLISECONDS);
    EXPECT_EQ(out.text, kPacket);
    loop_.runFor(2 * kKeepaliveInterval);
    EXPECT_EQ(out.text, kPacket + kPacket + kPacket);
    held.fulfiller->fulfill();
    loop_.wait(kj::mv(serving));
    Answer answer = parseAnswer(out.text);
    EXPECT_EQ(answer.unpack, "ok") << answer.raw;
    EXPECT_EQ(answer.refs["refs/heads/main"], "ok");
    EXPECT_EQ(refOf("refs/heads/main"), id_);
  }
}

TEST_F(PushKeepAliveTest, TheIntervalIsASetting) {
  for (uint32_t seconds : {2u, 0u}) {
    SCOPED_TRACE(seconds);
    node_.state("r").refs.clear();
    node_.state("r").info.settings.receiveKeepAlive = seconds;
    auto held = kj::newPromiseAndFulfiller<void>();
    node_.holdPush = kj::mv(held.promise);
    StringInput in(body());
    StringOutput out;
    auto opened = session();
    auto serving = opened->serve(in, out).eagerlyEvaluate(nullptr);
    loop_.runFor(4 * kj::SECONDS);
    EXPECT_EQ(out.text, seconds == 2 ? kPacket + kPacket : "");
    held.fulfiller->fulfill();
    loop_.wait(kj::mv(serving));
    EXPECT_EQ(parseAnswer(out.text).refs["refs/heads/main"], "ok") << out.text;
  }
}

TEST_F(PushKeepAliveTest, SparesAClientWithoutSideBand) {
  StringInput in(body(" report-status"));
  StringOutput out;
  auto opened = session();
  auto serving = opened->serve(in, out).eagerlyEvaluate(nullptr);
  loop_.runFor(4 * kKeepaliveInterval);
  EXPECT_EQ(out.text, "");
  release_->fulfill();
  loop_.wait(kj::mv(serving));
  EXPECT_EQ(parseAnswer(out.text).unpack, "ok");
}

TEST_F(PushKeepAliveTest, SaysNothingWhileThePackComesIn) {
  for (size_t inlineMax : {size_t(256) << 10, size_t(0)}) {
    node_.options_.inlinePackBytesMax = inlineMax;
    StringInput in(body());
    in.neverEnds = true;
    StringOutput out;
    auto opened = session();
    auto serving = opened->serve(in, out).eagerlyEvaluate(nullptr);
    loop_.runFor(4 * kKeepaliveInterval);
    EXPECT_EQ(out.text, "");
  }
}

TEST_F(PushKeepAliveTest, AFailureAfterwardsIsStillReported) {
  StringInput in(body());
  StringOutput out;
  auto opened = session();
  auto serving = opened->serve(in, out).eagerlyEvaluate(nullptr);
  loop_.runFor(kKeepaliveInterval);
  release_->reject(KJ_EXCEPTION(FAILED, "there is no quorum"));
  loop_.wait(kj::mv(serving));
  Answer answer = parseAnswer(out.text);
  EXPECT_EQ(answer.refs["refs/heads/main"], "there is no quorum") << answer.raw;
}

class FetchKeepAliveTest : public UploadTest {
 protected:
  ~FetchKeepAliveTest() noexcept override {}
};

TEST_F(FetchKeepAliveTest, TellsAClientThatItsFetchWaits) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  auto queue = kj::refcounted<PackQueue>(1);
  for (bool sideBand : {true, false, true}) {
    SCOPED_TRACE(sideBand);
    auto taken = loop_.wait(queue->turn("other"));
    GitRequest request;
    request.repository = "r";
    auto view = loop_.wait(node_.view("r", false));
    auto opened =
        makeUploadPackSession(node_, *queue, kj::mv(request), kj::mv(KJ_ASSERT_NONNULL(view)), policy_);
    StringInput in(packets({"want " + hex(one) + (sideBand ? " side-band-64k no-progress" : ""),
                            "0000", "done"}));
    StringOutput out;
    auto serving = opened->serve(in, out).eagerlyEvaluate(nullptr);
    loop_.runFor(2 * kKeepaliveInterval);
    const bool told = sideBand && policy_.keepAliveSeconds > 0;
    EXPECT_EQ(out.text, told ? "0008NAK\n" + kPacket + kPacket : "0008NAK\n");
    taken = nullptr;
    loop_.wait(kj::mv(serving));
    EXPECT_EQ(objectsOf(parse(out.text).pack).size(), 3u);
    if (!sideBand) policy_.keepAliveSeconds = 0;
  }
}

// Runs each job after some time.
class SlowPool final : public kernelio::WorkerPool {
 public:
  explicit SlowPool(kj::Timer& timer) : timer_(timer) {}
  size_t threadCount() override { return 0; }

 protected:
  kj::Promise<void> runJob(kj::Function<void()> job) override {
    return timer_.afterDelay(2 * kKeepaliveInterval + 1 * kj::SECONDS)
        .then([job = kj::mv(job)]() mutable { job(); });
  }

 private:
  kj::Timer& timer_;
};

TEST_F(FetchKeepAliveTest, TellsAClientThatItsPackIsCountedAndMade) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  kernelio::Env& env = sim_.env();
  SlowPool pool(env.timer);
  kernelio::Env slow{env.disk, env.timer, env.clock, env.random, pool, env.faults};
  FakeGitNode node(slow);
  node.addRepository("r");
  node.state("r") = node_.state("r");
  GitRequest request;
  request.repository = "r";
  auto view = loop_.wait(node.view("r", false));
  auto opened = makeUploadPackSession(node, kj::mv(request), kj::mv(KJ_ASSERT_NONNULL(view)), policy_);
  StringInput in(packets({"want " + hex(one) + " side-band-64k no-progress", "0000", "done"}));
  StringOutput out;
  loop_.wait(opened->serve(in, out));
  // Two in the counting and two in the making at least, of which nothing else is to be seen.
  std::string text = out.text;
  size_t told = 0;
  for (size_t at; (at = text.find(kPacket)) != text.npos; ++told) text.erase(at, kPacket.size());
  EXPECT_GE(told, 4u);
  EXPECT_EQ(text.rfind("0008NAK\n", 0), 0u);
  EXPECT_EQ(objectsOf(parse(out.text).pack).size(), 3u);
}

// Before the pack there are bands only where a client asked for them everywhere.
TEST_F(FetchKeepAliveTest, TellsAClientThatItsRequestIsLookedAt) {
  ObjectId one = simple("1"), unknown = ObjectId::fromBytes("a name of no object.");
  ref("refs/heads/main", one);
  for (const char* feature : {"sideband-all", "thin-pack"}) {
    SCOPED_TRACE(feature);
    const bool bands = std::string(feature) == "sideband-all";
    auto held = kj::newPromiseAndFulfiller<void>();
    node_.holdView = kj::mv(held.promise);
    StringInput in(fetchV2({feature, "want " + hex(unknown), "want " + hex(one), "done"}));
    StringOutput out;
    auto opened = session(2);
    auto serving = opened->serve(in, out).eagerlyEvaluate(nullptr);
    loop_.runFor(2 * kKeepaliveInterval);
    EXPECT_EQ(out.text, bands ? std::string(kKeepaliveProgress) + std::string(kKeepaliveProgress) : "");
    held.fulfiller->fulfill();
    loop_.wait(kj::mv(serving));
    const std::string refusal = "upload-pack: not our ref " + hex(unknown);
    EXPECT_NE(out.text.find(refusal), std::string::npos) << out.text;
    EXPECT_EQ(out.text.find("ERR") == std::string::npos, bands);
  }
}

}  // namespace
}  // namespace packmoor::gitlayer::test
