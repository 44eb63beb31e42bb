// Goal: git makes one pack of several, says why when it cannot, and leaves nothing behind. Method: the
// real git on real files.
#include "git_pack_stream.h"

#include "gitlayer/pack_format.h"
#include "test_cluster.h"
#include "test_log.h"

#include <support/git_process.h>

#include <gtest/gtest.h>

#include <filesystem>

namespace packmoor::gitlayer::test {
namespace {

class GitPackStreamTest : public ::testing::Test {
 public:
  ~GitPackStreamTest() noexcept override {}

 protected:
  kj::Own<Ground> ground = realGround();
  packmoor::test::TempFolder folder;
  GitPackStream::Request request;

  void SetUp() override {
    ground->add();
    request.folder = folder.path() + "/repack";
  }
  kj::Own<GitPackStream> start() {
    return GitPackStream::start(ground->env(0), request).promise().wait(ground->scope());
  }
  void addPack(packmoor::test::TestGit& git) {
    packmoor::test::writeFile(folder.path() + "/p.pack", git.pack({"HEAD"}));
    git.run({"index-pack", folder.path() + "/p.pack"});
    request.packs.push_back({txnId(1), folder.path() + "/p.pack", folder.path() + "/p.idx"});
  }
};

TEST_F(GitPackStreamTest, SaysWhyGitFails) {
  request.packs.push_back({txnId(1), "/nowhere.pack", "/nowhere.idx"});
  auto stream = start();
  kj::byte buffer[100];
  auto problem = stream->tryRead(buffer, 1, sizeof buffer)
                     .then([](size_t) { return std::string(); },
                           [](kj::Exception&& e) { return std::string(e.getDescription().cStr()); })
                     .wait(ground->scope());
  EXPECT_NE(problem.find("git pack-objects failed while it merged packs"), std::string::npos)
      << problem;
  EXPECT_NE(problem.find("could not find pack"), std::string::npos) << problem;
}

TEST_F(GitPackStreamTest, RemovesWhatACrashLeftAndItsOwn) {
  packmoor::test::TestGit git;
  git.commit("a", "content");
  addPack(git);
  std::filesystem::create_directories(request.folder + "/objects/pack");
  packmoor::test::writeFile(request.folder + "/objects/pack/pack-old.idx", "left over");
  {
    auto stream = start();
    stream->whenWriting().promise().wait(ground->scope());
    EXPECT_FALSE(std::filesystem::exists(request.folder + "/objects/pack/pack-old.idx"));
    kj::byte head[12];
    EXPECT_EQ(stream->tryRead(head, sizeof head, sizeof head).wait(ground->scope()), sizeof head);
    uint32_t count = 0;
    EXPECT_EQ(decodePackHeader(head, count), Decoded::kDone);
    EXPECT_EQ(count, 3u);
  }   // dropped before its end
  EXPECT_FALSE(std::filesystem::exists(request.folder));
}

}  // namespace
}  // namespace packmoor::gitlayer::test
