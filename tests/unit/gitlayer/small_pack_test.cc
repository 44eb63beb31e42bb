// Goal: a small pack is unpacked to exactly what git put in, and no damaged one is taken.
// Method: packs made by git; every byte of one changed in turn; the trailer made right again, so
// that the damage itself must be found.
#include "fake_git_node.h"
#include "gitlayer/small_pack.h"

#include <kernelio/sim_env.h>
#include <sha1_stream.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace packmoor::gitlayer::test {
namespace {

using ::testing::HasSubstr;

kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

std::string withTrailer(std::string pack) {
  pack.resize(pack.size() - kOidBytes);
  Sha1Stream sha1;
  sha1.update(bytesOf(pack));
  ObjectId trailer = sha1.finish();
  return pack.append(reinterpret_cast<const char*>(trailer.bytes.data()), kOidBytes);
}

class SmallPackTest : public ::testing::Test {
 protected:
  SmallPackTest() { node_.addRepository("r"); }
  ~SmallPackTest() noexcept override {}

  UnpackedPack unpack(const std::string& pack, size_t inflatedBytesMax = 1u << 20) {
    auto view = loop_.wait(node_.view("r", false));
    return unpackSmallPack(bytesOf(pack), KJ_ASSERT_NONNULL(view)->objects(), inflatedBytesMax);
  }
  size_t objectsIn(const std::string& revisions) {
    std::string list = git_.run({"rev-list", "--objects", revisions});
    return static_cast<size_t>(std::count(list.begin(), list.end(), '\n'));
  }

  kernelio::VirtualLoop loop_;
  kernelio::SimStorage storage_{1};
  kernelio::SimEnv sim_{loop_, storage_, 1};
  FakeGitNode node_{sim_.env()};
  packmoor::test::TestGit git_;
};

TEST_F(SmallPackTest, UnpacksWhatGitPacked) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "line " + std::to_string(i) + "\n";
  for (int i = 0; i < 6; ++i) git_.commit("dir/file", text += "more " + std::to_string(i) + "\n");
  git_.run({"tag", "-a", "-m", "t", "v1"});
  for (auto& options : std::vector<std::vector<std::string>>{{}, {"--delta-base-offset"}}) {
    std::string pack = git_.pack({"v1"}, options);
    UnpackedPack unpacked = unpack(pack);
    ASSERT_FALSE(unpacked.refusal) << unpacked.refusal->detail;
    EXPECT_EQ(unpacked.objects.size(), objectsIn("v1"));
    size_t deltas = 0;
    for (const auto& object : unpacked.objects) {
      EXPECT_EQ(hashObject(object.type, object.data), object.id);
      deltas += object.deflated.size() == 0;
    }
    EXPECT_GT(deltas, 3u);
    auto objects = toNewObjects(unpacked);
    ASSERT_EQ(objects.size(), unpacked.objects.size());
    EXPECT_EQ(unpacked.byId.size(), objects.size());
  }
}

TEST_F(SmallPackTest, RefusesEveryDamagedByte) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "line " + std::to_string(i) + "\n";
  git_.commit("a", text);
  git_.commit("a", text + "x");
  std::string pack = git_.pack({"main"}, {"--delta-base-offset"});
  UnpackedPack whole = unpack(pack);
  ASSERT_FALSE(whole.refusal);
  for (size_t at = 0; at < pack.size(); ++at) {
    for (int bit : {0, 3, 7}) {
      std::string damaged = pack;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      EXPECT_TRUE(unpack(damaged).refusal.has_value()) << at;
      // With a right trailer it may be another good pack, but then of other objects or streams.
      UnpackedPack other = unpack(withTrailer(damaged));
      if (other.refusal || other.tooLarge) continue;
      EXPECT_LE(other.objects.size(), whole.objects.size());
      for (const auto& object : other.objects) {
        EXPECT_EQ(hashObject(object.type, object.data), object.id);
      }
    }
  }
  for (size_t length = 0; length < pack.size(); ++length) {
    EXPECT_TRUE(unpack(pack.substr(0, length)).refusal.has_value()) << length;
  }
  EXPECT_THAT(unpack(withTrailer(pack + "x")).refusal->detail, HasSubstr("junk"));
}

TEST_F(SmallPackTest, StopsAtItsBoundOfMemory) {
  git_.commit("a", std::string(100'000, 'a'));
  std::string pack = git_.pack({"main"});
  EXPECT_TRUE(unpack(pack, 99'999).tooLarge);
  EXPECT_FALSE(unpack(pack, 101'000).tooLarge);
}

TEST_F(SmallPackTest, TakesEmptyObjectsAndPacks) {
  git_.commit("empty", "");
  EXPECT_FALSE(unpack(git_.pack({"main"})).refusal);
  UnpackedPack none = unpack(git_.pack({"main", "^main"}));
  EXPECT_FALSE(none.refusal);
  EXPECT_TRUE(none.objects.empty());
}

TEST_F(SmallPackTest, SaysWhichBaseIsMissing) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "line " + std::to_string(i) + "\n";
  std::string first = git_.commit("a", text);
  git_.commit("a", text + "x");
  std::string pack = git_.pack({"main", "^" + first}, {"--thin"});
  UnpackedPack unpacked = unpack(pack);
  ASSERT_TRUE(unpacked.refusal);
  EXPECT_TRUE(unpacked.missingBase);
  EXPECT_EQ(unpacked.refusal->detail, "pack has 1 unresolved delta");
  node_.import("r", git_);
  EXPECT_FALSE(unpack(pack).refusal);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
