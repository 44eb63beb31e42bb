// Goal: what a client of upload-archive is answered, packet for packet: the archive on band 1, messages on
// band 2, failures on band 3, a keep-alive while it waits. Method: requests as git writes them, against small
// trees on a fake node; what the archives hold is archive_git_test's.
#include "gitlayer/upload_archive.h"

#include "keep_alive.h"
#include "upload_harness.h"

#include <gmock/gmock.h>

namespace packmoor::gitlayer::test {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Words = std::vector<std::string>;

const std::string kAccepted = "0008ACK\n0000";

class UploadArchiveTest : public UploadTest {
 protected:
  UploadArchiveTest() { ref("refs/heads/main", simple("text")); }
  ~UploadArchiveTest() noexcept override {}

  static std::string request(const Words& words) {
    std::string body;
    for (const std::string& word : words) appendPkt(body, "argument " + word + "\n");
    appendFlush(body);
    return body;
  }
  kj::Own<GitSession> open() {
    GitRequest request;
    request.repository = "r";
    request.service = GitService::kUploadArchive;
    auto view = loop_.wait(node_.view("r", false));
    return makeUploadArchiveSession(node_, *queue_, kj::mv(request), kj::mv(KJ_ASSERT_NONNULL(view)));
  }
  std::string answerTo(const std::string& body, size_t piece = SIZE_MAX) {
    StringInput in(body, piece);
    StringOutput out;
    auto session = open();
    loop_.wait(session->advertise(out, false));
    loop_.wait(session->serve(in, out));
    return out.text;
  }
  // Bands 1 to 3 of an answer that is as it should be.
  struct Bands {
    std::string archive, messages, error;
  };
  Bands bandsOf(const std::string& answer) {
    EXPECT_THAT(answer, StartsWith(kAccepted));
    EXPECT_THAT(answer, EndsWith("0000"));
    const UploadAnswer parsed = parse(answer.substr(std::min(answer.size(), kAccepted.size())));
    return {parsed.pack, parsed.progress, parsed.error};
  }

  kj::Own<PackQueue> queue_ = kj::refcounted<PackQueue>(1);
};

TEST_F(UploadArchiveTest, SendsATarOnBand1) {
  for (size_t piece : {size_t(1), SIZE_MAX}) {
    const Bands bands = bandsOf(answerTo(request({"--format=tar", "main"}), piece));
    EXPECT_EQ(bands.archive.size(), 10240u);
    EXPECT_EQ(bands.archive.substr(0, 17), "pax_global_header");
    EXPECT_EQ(bands.archive.substr(1024, 2), std::string("f\0", 2));
    EXPECT_EQ(bands.archive.substr(1536, 4), "text");
    EXPECT_EQ(bands.messages + bands.error, "");
  }
  EXPECT_EQ(bandsOf(answerTo(request({"-v", "main"}))).messages, "f\n");
  EXPECT_EQ(bandsOf(answerTo(request({"--list"}))).archive, "tar\ntgz\ntar.gz\nzip\n");
}

TEST_F(UploadArchiveTest, SaysOnBand3WhatIsWrong) {
  const std::pair<std::string, std::string> all[] = {
      {request({"nothing"}), "no such ref: nothing"},
      {packets({"command=archive", "0000"}), "'argument' token or flush expected"},
      {"", "'argument' token or flush expected"},
      {"0001", "'argument' token or flush expected"},
      {request(Words(64, "-v")), "Too many options (>63)"},
      {request({"--prefix"}), "option '--prefix' requires a value"},
      {request({"--prefix=" + std::string(5000, 'x'), "main"}), "the prefix is longer than 4096 bytes"},
      {request({"main", std::string(5000, 'x')}), "a pathspec is longer than 4096 bytes"}};
  for (const auto& [body, problem] : all) {
    EXPECT_EQ(bandsOf(answerTo(body)).error, "git upload-archive: " + problem + "\n");
  }
  for (const char* malformed : {"zzzz", "0003", "0010argum"}) {
    EXPECT_THAT(bandsOf(answerTo(malformed)).error, StartsWith("git upload-archive: "));
  }
}

TEST_F(UploadArchiveTest, SaysWhatIsMissingOrTooMuch) {
  ref("refs/heads/lost", commit(tree({{"a", blob("a")}, {"f", ObjectId::fromBytes("no object's own name")}}), {}));
  EXPECT_THAT(bandsOf(answerTo(request({"lost"}))).error, HasSubstr("object is missing from the repository"));
  ObjectId deep = tree({{"f", blob("f")}});
  for (size_t i = 0; i < 2100; ++i) deep = tree({{"d", deep, true}});
  ref("refs/heads/deep", commit(deep, {}));
  EXPECT_THAT(bandsOf(answerTo(request({"deep"}))).error, HasSubstr("folders are nested too deeply"));
  ref("refs/heads/rules", commit(tree({{".gitattributes", blob(std::string(2 << 20, '\n'))}}), {}));
  EXPECT_THAT(bandsOf(answerTo(request({"rules"}))).error, HasSubstr("a .gitattributes is too large"));
}

TEST_F(UploadArchiveTest, HidesWhatFetchesDoNotSee) {
  node_.state("r").info.settings.uploadHidden = {"refs/heads/secret"};
  ref("refs/heads/secret", simple("secret"));
  EXPECT_THAT(bandsOf(answerTo(request({"secret"}))).error, HasSubstr("no such ref: secret"));
}

TEST_F(UploadArchiveTest, KeepsAWaitingClientAlive) {
  auto taken = loop_.wait(queue_->turn("other"));
  StringInput in(request({"main"}));
  StringOutput out;
  auto session = open();
  auto serving = session->serve(in, out).eagerlyEvaluate(nullptr);
  loop_.runFor(2 * kKeepaliveInterval);
  EXPECT_EQ(out.text, kAccepted + std::string(kKeepalivePacket) + std::string(kKeepalivePacket));
  taken = nullptr;
  loop_.wait(kj::mv(serving));
  EXPECT_EQ(bandsOf(out.text).archive.size(), 10240u);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
