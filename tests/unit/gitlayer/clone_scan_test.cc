// Goal: a clone of packs and hot objects that overlap in any way is a pack that stock git takes, with every
// object once, and as many packs in it as they are as can be. Method: overlapping pieces of one history.
#include "gitlayer/pack_builder.h"

#include "test_import.h"
#include "test_log.h"
#include "whole_repository.h"

#include <support/git_process.h>

#include <gtest/gtest.h>

#include <optional>
#include <random>

namespace packmoor::gitlayer::test {
namespace {

class StringSink final : public PackSink {
 public:
  void write(kj::ArrayPtr<const kj::byte> bytes) override {
    text.append(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  }
  std::string text;
};

class CloneScanTest : public ::testing::Test {
 public:
  ~CloneScanTest() noexcept override {}

 protected:
  TestCluster cluster{realGround(), 1};
  RepositoryInfo repository = cluster.create("project");
  static inline std::optional<packmoor::test::TestGit> history;   // made once, and only read
  packmoor::test::TestGit& git = *history;

  static void TearDownTestSuite() { history.reset(); }
  static void SetUpTestSuite() {
    auto& git = history.emplace();
    std::string text;
    for (int i = 0; i < 24; ++i) {
      text += "line " + std::to_string(i * i) + "\n" + std::string(150, static_cast<char>('a' + i));
      git.commit("file" + std::to_string(i % 2), text);
    }
  }
  void pack(const std::vector<std::string>& revisions) {
    importPack(cluster, repository, git, revisions);
  }
  // Objects that some pack has already, among others.
  void makeHot(const std::vector<std::string>& revisions) {
    PushTransaction txn;
    txn.verifiedAt = replicator::RecordIndex(cluster.log.size());
    for (const auto& revision : revisions) {
      const std::string content = git.run({"cat-file", "blob", revision});
      txn.objects.push_back(blob(content));
    }
    cluster.push(repository, std::move(txn));
  }
  // How many packs went out as they are.
  size_t expectWhole() {
    auto view = cluster.view("project");
    CloneScan scan(view->objects());
    while (!scan.step(7)) {
    }
    const size_t whole = scan.wholePacks();
    auto builder = scan.builder({});
    StringSink sink;
    while (builder->produce(sink, 1000)) {
    }
    const auto ids = objectsOf(*view);
    EXPECT_EQ(builder->statistics().objects, ids.size());
    EXPECT_EQ(builder->statistics().written, ids.size());
    packmoor::test::TempFolder folder;
    const std::string path = folder.path() + "/p.pack";
    packmoor::test::writeFile(path, sink.text);
    git.run({"index-pack", "--strict", path});
    const std::string listed = git.run({"show-index"}, packmoor::test::readFile(folder.path() + "/p.idx"));
    for (const auto& id : ids) EXPECT_NE(listed.find(id.hex().cStr()), std::string::npos) << id.hex().cStr();
    return whole;
  }
};

TEST_F(CloneScanTest, OfNothing) { EXPECT_EQ(expectWhole(), 0u); }

TEST_F(CloneScanTest, PacksThatShareNothingGoAsTheyAre) {
  pack({"HEAD~10"});
  pack({"HEAD", "^HEAD~10"});
  EXPECT_EQ(expectWhole(), 2u);
}

TEST_F(CloneScanTest, OfPacksThatShareObjectsTheLargestGoesAsItIs) {
  pack({"HEAD~10"});
  pack({"HEAD~4", "^HEAD~15"});
  pack({"HEAD", "^HEAD~4"});
  pack({"HEAD~8", "^HEAD~12"});
  EXPECT_EQ(expectWhole(), 2u);
}

TEST_F(CloneScanTest, HotObjectsThatAPackHasSpoilNoPack) {
  pack({"HEAD"});
  makeHot({"HEAD:file0", "HEAD~3:file1"});
  EXPECT_EQ(expectWhole(), 1u);
}

TEST_F(CloneScanTest, TheSamePackTwice) {
  pack({"HEAD"});
  pack({"HEAD"});
  EXPECT_EQ(expectWhole(), 1u);
}

// Packs of the same objects, whose deltas go this way and that.
TEST_F(CloneScanTest, AnyPiecesOfAHistory) {
  std::mt19937 random(5);
  for (int round = 0; round < 6; ++round) {
    const int newest = static_cast<int>(random() % 12), oldest = newest + 1 + static_cast<int>(random() % 11);
    std::vector<std::string> revisions = {"HEAD~" + std::to_string(newest)};
    if (random() % 4 > 0) revisions.push_back("^HEAD~" + std::to_string(oldest));
    pack(revisions);
    if (round == 0) pack({"HEAD"});   // so that all is connected
    EXPECT_GE(expectWhole(), 1u);
  }
}

}  // namespace
}  // namespace packmoor::gitlayer::test
