// Goal: turns are few, go round, and come back; a build that waits for its client holds none.
// Method: the queue by itself, then sessions whose clients do not read.
#include "gitlayer/pack_queue.h"

#include "upload_harness.h"

#include <random>

namespace packmoor::gitlayer::test {
namespace {

class PackQueueTest : public UploadTest {
 protected:
  ~PackQueueTest() noexcept override {}
  using Turn = kj::Own<PackQueue::Turn>;
  kj::Promise<void> take(const std::string& key, const std::string& name) {
    return queue_->turn(key)
        .then([this, name](Turn turn) {
          order_ += name;
          turns_.push_back(kj::mv(turn));
        })
        .eagerlyEvaluate(nullptr);
  }
  kj::Own<GitSession> shared(uint32_t version) {
    GitRequest request;
    request.repository = "r";
    request.protocolVersion = version;
    auto view = loop_.wait(node_.view("r", false));
    return makeUploadPackSession(node_, *queue_, kj::mv(request), kj::mv(KJ_ASSERT_NONNULL(view)));
  }

  kj::Own<PackQueue> queue_ = kj::refcounted<PackQueue>(1);
  std::deque<Turn> turns_;
  std::string order_;
};

TEST_F(PackQueueTest, GoesRoundByKey) {
  auto running = take("a", "1");
  std::vector<kj::Promise<void>> waiting;
  for (auto& [key, name] : std::vector<std::pair<std::string, std::string>>{
           {"a", "2"}, {"a", "3"}, {"a", "4"}, {"b", "5"}, {"c", "6"}, {"b", "7"}}) {
    waiting.push_back(take(key, name));
  }
  loop_.settle();
  EXPECT_EQ(order_, "1");
  EXPECT_EQ(queue_->waiting(), 6u);
  waiting[1] = kj::READY_NOW;  // the third gives up
  for (int i = 0; i < 6; ++i) {
    if (!turns_.empty()) turns_.pop_front();
    loop_.settle();
  }
  EXPECT_EQ(order_, "125674");
  turns_.clear();
  EXPECT_FALSE(queue_->full());
}

TEST_F(PackQueueTest, RefusesMoreThanItsBound) {
  std::vector<kj::Own<PackQueue::Opened>> opened;
  for (uint32_t i = 0; i < PackQueue::kOpenMax; ++i) {
    auto one = queue_->open();
    opened.push_back(kj::mv(KJ_ASSERT_NONNULL(one)));
  }
  EXPECT_TRUE(queue_->open() == nullptr);
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  auto session = shared(2);
  StringInput in(fetchV2({"want " + hex(one), "done"}));
  StringOutput out;
  loop_.wait(session->serve(in, out));
  EXPECT_NE(parse(out.text).error.find("too many fetches"), std::string::npos) << out.text;
  opened.pop_back();
  EXPECT_FALSE(queue_->open() == nullptr);
}

TEST_F(PackQueueTest, KeepsAWaitingClientAlive) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  auto running = take("a", "1");
  loop_.settle();
  auto session = shared(2);
  StringInput in(fetchV2({"want " + hex(one), "done"}));
  StringOutput out;
  auto serving = session->serve(in, out).eagerlyEvaluate(nullptr);
  loop_.runFor(16 * kj::SECONDS);
  std::string kept = out.text;
  EXPECT_NE(kept.find("Waiting for other fetches"), std::string::npos);
  EXPECT_EQ(kept.substr(kept.size() - 15), std::string("0005\1" "0005\1" "0005\1"));
  turns_.clear();
  loop_.wait(kj::mv(serving));
  EXPECT_EQ(objectsOf(parse(out.text).pack).size(), 3u);
}

// Takes nothing until it is told to.
class StuckOutput final : public kj::AsyncOutputStream {
 public:
  kj::Promise<void> write(const void* buffer, size_t size) override {
    taken += size;
    if (taken < takes) return kj::READY_NOW;
    return kj::NEVER_DONE;
  }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    for (auto piece : pieces) taken += piece.size();
    return kj::NEVER_DONE;
  }
  kj::Promise<void> whenWriteDisconnected() override { return kj::NEVER_DONE; }
  size_t taken = 0, takes = 100'000;
};

TEST_F(PackQueueTest, LetsOthersGoOnWhileAClientDoesNotRead) {
  std::string large;
  std::mt19937 random(1);
  while (large.size() < 8'000'000) large += static_cast<char>(random());
  ObjectId one = simple(large);
  ref("refs/heads/main", one);
  std::string body = fetchV2({"want " + hex(one), "done"});

  auto slow = shared(2);
  StringInput slowIn(body);
  StuckOutput stuck;
  auto serving = slow->serve(slowIn, stuck).eagerlyEvaluate(nullptr);
  loop_.runFor(60 * kj::SECONDS);
  EXPECT_LT(stuck.taken, 1'000'000u);
  EXPECT_FALSE(queue_->full());

  auto quick = shared(2);
  StringInput in(body);
  StringOutput out;
  loop_.wait(quick->serve(in, out));
  EXPECT_EQ(objectsOf(parse(out.text).pack).size(), 3u);
  serving = nullptr;  // the slow client goes away
  EXPECT_FALSE(queue_->full());
}

}  // namespace
}  // namespace packmoor::gitlayer::test
