// Goal: a pack that was built is sent to all who ask for the same and to nobody else; who comes while it is
// built shares it; what is given up, fails or is too large is not kept, and clients are none the worse.
// Method: sessions over one cache whose turns the test gives.
#include "gitlayer/pack_cache.h"

#include "gitlayer/pack_format.h"
#include "upload_harness.h"

#include <support/temp_dir.h>

#include <random>

namespace packmoor::gitlayer::test {
namespace {

class PackCacheTest : public UploadTest {
 protected:
  ~PackCacheTest() noexcept override {}

  void open(uint64_t bytesMax = 256u << 20) {
    cache_ = kj::heap<PackCache>(node_.env(), kj::addRef(*queue_), folder_.path() + "/cache", bytesMax,
                                 [this](const std::string&) { return freeBytes_; });
  }
  struct Client {
    kj::Own<GitSession> session;
    kj::Own<StringInput> in;
    kj::Own<StringOutput> out = kj::heap<StringOutput>();
    kj::Promise<void> serving = nullptr;
  };
  Client begin(const std::string& body) {
    Client client;
    GitRequest request;
    request.repository = "r";
    request.protocolVersion = 2;
    auto view = loop_.wait(node_.view("r", false));
    client.session = makeUploadPackSession(node_, *queue_, kj::mv(request),
                                           kj::mv(KJ_ASSERT_NONNULL(view)), policy_, cache_.get());
    client.in = kj::heap<StringInput>(body);
    client.serving = client.session->serve(*client.in, *client.out).eagerlyEvaluate(nullptr);
    return client;
  }
  UploadAnswer ask(const std::string& body) {
    Client client = begin(body);
    loop_.wait(kj::mv(client.serving));
    return parse(client.out->text);
  }
  std::string noise(size_t bytes, unsigned seed = 1) {
    std::string text;
    std::mt19937 random(seed);
    while (text.size() < bytes) text += static_cast<char>(random());
    return text;
  }
  // As the pack's header says.
  uint32_t objectsIn(const std::string& body) {
    const std::string pack = ask(body).pack;
    uint32_t count = 0;
    KJ_REQUIRE(decodePackHeader(kj::StringPtr(pack.c_str(), pack.size()).asBytes(), count) == Decoded::kDone);
    return count;
  }
  void expectCounts(uint64_t hits, uint64_t misses, uint64_t entries) {
    const auto statistics = cache_->statistics();
    EXPECT_EQ(statistics.hits, hits);
    EXPECT_EQ(statistics.misses, misses);
    EXPECT_EQ(statistics.entries, entries);
  }

  packmoor::testing::TempDir folder_;
  uint64_t freeBytes_ = 100ull << 30;
  kj::Own<PackQueue> queue_ = kj::refcounted<PackQueue>(1);
  kj::Own<PackCache> cache_;
};

TEST_F(PackCacheTest, TheSameIsBuiltOnceAndSentAgain) {
  // Small ones stay in memory, large ones lie in a file.
  for (size_t bytes : {1000u, 3'000'000u}) {
    open();
    ObjectId one = simple(noise(bytes));
    ref("refs/heads/main", one);
    const std::string body = fetchV2({"want " + hex(one), "done"});
    const UploadAnswer first = ask(body);
    EXPECT_EQ(objectsOf(first.pack).size(), 3u);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(ask(body).raw == first.raw);
    expectCounts(3, 1, 1);
    EXPECT_GT(cache_->statistics().bytes, bytes);
    // A push does not change what that pack is.
    ref("refs/heads/main", simple("next", {one}));
    EXPECT_TRUE(ask(body).raw == first.raw);
    expectCounts(4, 1, 1);
  }
}

TEST_F(PackCacheTest, WhatIsAskedForOtherwiseIsAnother) {
  open();
  ObjectId one = simple("1"), two = simple("2", {one}), named = tag(one, "v1");
  ref("refs/heads/main", two);
  const std::string want = "want " + hex(two);
  EXPECT_EQ(objectsIn(fetchV2({want, "done"})), 6u);
  EXPECT_EQ(objectsIn(fetchV2({want, "have " + hex(one), "done"})), 3u);
  EXPECT_EQ(objectsIn(fetchV2({want, "filter blob:none", "done"})), 4u);
  EXPECT_EQ(objectsIn(fetchV2({want, "deepen 1", "done"})), 3u);
  EXPECT_EQ(objectsIn(fetchV2({"want " + hex(one), "done"})), 3u);
  EXPECT_EQ(objectsIn(fetchV2({want, "include-tag", "done"})), 6u);
  expectCounts(0, 6, 6);
  // The tags that it would bring are part of what it is.
  ref("refs/tags/v1", named, one);
  EXPECT_EQ(objectsIn(fetchV2({want, "include-tag", "done"})), 7u);
  expectCounts(0, 7, 7);
  // Who may not have it is refused before.
  node_.state("r").refs.erase("refs/heads/main");
  node_.state("r").refs.erase("refs/tags/v1");
  EXPECT_NE(ask(fetchV2({want, "done"})).raw.find("not our ref"), std::string::npos);
  expectCounts(0, 7, 7);
}

TEST_F(PackCacheTest, WhoComesWhileItIsBuiltSharesIt) {
  open();
  ObjectId one = simple(noise(2'000'000));
  ref("refs/heads/main", one);
  const std::string body = fetchV2({"want " + hex(one), "done"});
  auto turn = loop_.wait(queue_->turn("test"));
  std::vector<Client> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(begin(body));
  loop_.runFor(6 * kj::SECONDS);
  for (auto& client : clients) {
    EXPECT_NE(client.out->text.find("0005\1"), std::string::npos) << "it was not kept alive";
  }
  expectCounts(4, 1, 1);
  turn = nullptr;
  for (auto& client : clients) {
    loop_.wait(kj::mv(client.serving));
    EXPECT_EQ(objectsOf(parse(client.out->text).pack).size(), 3u);
  }
  expectCounts(4, 1, 1);
}

TEST_F(PackCacheTest, WhatNobodyWaitsForIsGivenUp) {
  open();
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  const std::string body = fetchV2({"want " + hex(one), "done"});
  auto turn = loop_.wait(queue_->turn("test"));
  {
    Client first = begin(body), second = begin(body);
    loop_.settle();
    expectCounts(1, 1, 1);
    first.serving = nullptr;
    second.serving = nullptr;
  }
  turn = nullptr;
  loop_.settle();
  expectCounts(1, 1, 0);
  EXPECT_FALSE(queue_->full());
  // One of two that stays gets it.
  turn = loop_.wait(queue_->turn("test"));
  Client first = begin(body), second = begin(body);
  loop_.settle();
  first.serving = nullptr;
  first.session = nullptr;
  turn = nullptr;
  loop_.wait(kj::mv(second.serving));
  EXPECT_EQ(objectsOf(parse(second.out->text).pack).size(), 3u);
  expectCounts(2, 2, 1);
}

TEST_F(PackCacheTest, AFailureIsToldAndNotKept) {
  open();
  ObjectId missing = blob("gone"), one = commit(tree({{"f", missing}}), {});
  ref("refs/heads/main", one);
  node_.state("r").objects.erase(missing);
  const std::string body = fetchV2({"want " + hex(one), "done"});
  for (int i = 0; i < 2; ++i) {
    EXPECT_NE(ask(body).error.find("the pack could not be built"), std::string::npos);
  }
  expectCounts(0, 2, 0);
}

TEST_F(PackCacheTest, OnADiskThatIsShortOfRoomNothingIsKept) {
  open();
  ObjectId small = simple("1"), large = simple(noise(2'000'000));
  ref("refs/heads/small", small);
  ref("refs/heads/large", large);
  const std::string askSmall = fetchV2({"want " + hex(small), "done"});
  const std::string askLarge = fetchV2({"want " + hex(large), "done"});
  ask(askSmall);
  ask(askLarge);
  expectCounts(0, 2, 2);
  freeBytes_ = PackCache::kFreeBytesMin - 1;
  loop_.runFor(PackCache::kRoomInterval * 2);
  expectCounts(0, 2, 1);   // what lies in memory stays
  for (int i = 0; i < 2; ++i) EXPECT_EQ(objectsIn(askLarge), 3u);
  expectCounts(0, 2, 1);
  freeBytes_ = PackCache::kFreeBytesMin;
  for (int i = 0; i < 2; ++i) EXPECT_EQ(objectsIn(askLarge), 3u);
  expectCounts(1, 3, 2);
}

TEST_F(PackCacheTest, TheOldestGoAndTheLargestAreNotKept) {
  open(8u << 20);
  std::vector<std::string> bodies;
  for (unsigned i = 0; i < 4; ++i) {
    ObjectId one = simple(noise(3'000'000, i));
    ref("refs/heads/b" + std::to_string(i), one);
    bodies.push_back(fetchV2({"want " + hex(one), "done"}));
    ask(bodies.back());
  }
  expectCounts(0, 4, 2);
  EXPECT_LE(cache_->statistics().bytes, 8u << 20);
  ask(bodies[3]);
  expectCounts(1, 4, 2);
  ask(bodies[0]);
  expectCounts(1, 5, 2);
  // Larger than half of the room: everybody gets it, and nobody later.
  ObjectId large = simple(noise(6'000'000, 9));
  ref("refs/heads/large", large);
  const std::string body = fetchV2({"want " + hex(large), "done"});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(objectsOf(ask(body).pack).size(), 3u);
  EXPECT_EQ(cache_->statistics().misses, 7u);
  EXPECT_LE(cache_->statistics().bytes, 8u << 20);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
