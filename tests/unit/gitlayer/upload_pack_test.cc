// Goal: what clients of every protocol version are answered, word for word.
// Method: requests as git clients write them, against small histories on a fake node; packs are
// given to the real git.
#include "gitlayer/agent.h"
#include "upload_harness.h"
#include "upload_request.h"

#include <algorithm>

namespace packmoor::gitlayer::test {
namespace {

using Lines = std::vector<std::string>;

const std::string kCapabilities =
    "multi_ack thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not "
    "deepen-relative no-progress include-tag multi_ack_detailed allow-tip-sha1-in-want "
    "allow-reachable-sha1-in-want no-done";
std::string agent() { return "agent=" + std::string(kAgent); }

TEST_F(UploadTest, AdvertisesRefsWithHeadFirstAndPeeledTags) {
  ObjectId one = simple("1"), annotated = tag(one, "v1");
  ref("refs/heads/main", one);
  ref("refs/heads/a", one);
  ref("refs/tags/v1", annotated, one);
  Lines expected = {
      "# service=git-upload-pack", "0000",
      hex(one) + " HEAD" + '\0' + kCapabilities +
          " symref=HEAD:refs/heads/main filter session-id=S object-format=sha1 " + agent(),
      hex(one) + " refs/heads/a", hex(one) + " refs/heads/main", hex(annotated) + " refs/tags/v1",
      hex(one) + " refs/tags/v1^{}", "0000"};
  EXPECT_EQ(advertised(0, true), expected);
  Lines withVersion = expected;
  withVersion.insert(withVersion.begin() + 2, "version 1");
  EXPECT_EQ(advertised(1, true), withVersion);
  Lines bare(expected.begin() + 2, expected.end());
  EXPECT_EQ(advertised(0), bare);
}

TEST_F(UploadTest, AdvertisesAnEmptyRepositoryAndAnUnbornHead) {
  Lines expected = {kZero + std::string(" capabilities^{}") + '\0' + kCapabilities +
                        " filter session-id=S object-format=sha1 " + agent(),
                    "0000"};
  EXPECT_EQ(advertised(0), expected);
  ObjectId one = simple("1");
  ref("refs/heads/other", one);
  expected[0] = hex(one) + " refs/heads/other" + '\0' + kCapabilities +
                " filter session-id=S object-format=sha1 " + agent();
  EXPECT_EQ(advertised(0), expected);
}

TEST_F(UploadTest, AdvertisesCapabilitiesOfProtocol2) {
  Lines expected = {"version 2", agent(), "ls-refs=unborn",
                    "fetch=shallow wait-for-done filter ref-in-want sideband-all", "server-option",
                    "object-format=sha1", "session-id=S", "object-info", "0000"};
  EXPECT_EQ(advertised(2), expected);
}

TEST_F(UploadTest, EverySessionHasAnIdOfItsOwn) {
  for (uint32_t version : {0u, 1u, 2u}) {
    EXPECT_EQ(advertised(version), advertised(version));
    EXPECT_NE(advertisement(version), advertisement(version)) << version;
  }
}

TEST_F(UploadTest, ClientsMayTellTheirSessions) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  CommandV2 command;
  EXPECT_EQ(command.add("session-id=20261129T1-H1-P\x1b"), std::nullopt);
  EXPECT_EQ(command.session, "20261129T1-H1-P?");
  FetchRequest request;
  EXPECT_EQ(request.addLineV0("want " + hex(one) + " session-id=a.b agent=git/2"), std::nullopt);
  EXPECT_EQ(request.session, "a.b");
  EXPECT_EQ(linesOf(serve(2, packets({"command=ls-refs", "session-id=a", "0001", "0000"}))),
            (Lines{hex(one) + " HEAD", hex(one) + " refs/heads/main", "0000"}));
  UploadAnswer answer = parse(serve(0, packets({"want " + hex(one) + " session-id=a", "0000", "done"})));
  EXPECT_EQ(objectsOf(answer.pack).size(), 3u);
}

TEST_F(UploadTest, AdvertisesManyRefsInSlices) {
  ObjectId one = simple("1");
  for (int i = 0; i < 5000; ++i) ref("refs/heads/b" + std::to_string(i), one);
  Lines lines = linesOf(advertisement(0, false));
  ASSERT_EQ(lines.size(), 5001u);
  EXPECT_TRUE(std::is_sorted(lines.begin() + 1, lines.end() - 1));
  Lines listed = linesOf(serve(2, packets({"command=ls-refs", "0001", "ref-prefix refs/heads/b1",
                                           "ref-prefix refs/heads/b", "0000"})));
  EXPECT_EQ(listed.size(), 5001u);
}

TEST_F(UploadTest, ListsRefsOfProtocol2) {
  ObjectId one = simple("1"), annotated = tag(one, "v1");
  ref("refs/heads/main", one);
  ref("refs/heads/topic", one);
  ref("refs/tags/v1", annotated, one);
  auto list = [&](Lines arguments) {
    arguments.insert(arguments.begin(), {"command=ls-refs", "agent=git/2", "object-format=sha1"});
    if (arguments.size() > 3) arguments.insert(arguments.begin() + 3, "0001");
    arguments.push_back("0000");
    return linesOf(serve(2, packets(arguments)));
  };
  EXPECT_EQ(list({}), (Lines{hex(one) + " HEAD", hex(one) + " refs/heads/main",
                             hex(one) + " refs/heads/topic", hex(annotated) + " refs/tags/v1",
                             "0000"}));
  EXPECT_EQ(list({"peel", "symrefs", "ref-prefix HEAD", "ref-prefix refs/tags/"}),
            (Lines{hex(one) + " HEAD symref-target:refs/heads/main",
                   hex(annotated) + " refs/tags/v1 peeled:" + hex(one), "0000"}));
  EXPECT_EQ(list({"ref-prefix refs/heads/t", "ref-prefix main"}),
            (Lines{hex(one) + " refs/heads/topic", "0000"}));
  node_.state("r").info.head = "refs/heads/none";
  EXPECT_EQ(list({"symrefs", "unborn", "ref-prefix HEAD"}),
            (Lines{"unborn HEAD symref-target:refs/heads/none", "0000"}));
  EXPECT_EQ(list({"symrefs", "ref-prefix HEAD"}), (Lines{"0000"}));
}

TEST_F(UploadTest, ClonesByProtocol2InPiecesOfAnySize) {
  ObjectId one = simple("1"), two = simple("2", {one}), annotated = tag(two, "v2");
  ref("refs/heads/main", two);
  ref("refs/tags/v2", annotated, two);
  std::string body = fetchV2({"thin-pack", "ofs-delta", "want " + hex(two), "done"});
  for (size_t piece : {size_t(1), size_t(7), SIZE_MAX}) {
    UploadAnswer answer = parse(serve(2, body, piece));
    EXPECT_EQ(answer.lines, (Lines{"packfile", "0000"}));
    EXPECT_NE(answer.progress.find("Enumerating objects: 6, done."), std::string::npos)
        << answer.progress;
    auto objects = objectsOf(answer.pack);
    EXPECT_EQ(objects.size(), 6u);
    EXPECT_EQ(objects[hex(two)], "commit");
  }
  UploadAnswer quiet = parse(serve(2, fetchV2({"no-progress", "include-tag", "ofs-delta",
                                               "want " + hex(two), "done"})));
  EXPECT_EQ(quiet.progress, "");
  EXPECT_EQ(objectsOf(quiet.pack)[hex(annotated)], "tag");
}

TEST_F(UploadTest, NegotiatesByProtocol2) {
  ObjectId one = simple("1"), two = simple("2", {one}), three = simple("3", {two});
  ref("refs/heads/main", three);
  std::string unknown(40, '1');
  // Nothing in common yet.
  UploadAnswer answer = parse(serve(2, fetchV2({"want " + hex(three), "have " + unknown})));
  EXPECT_EQ(answer.lines, (Lines{"acknowledgments", "NAK", "0000"}));
  // Enough in common: the pack follows at once.
  answer = parse(serve(2, fetchV2({"thin-pack", "ofs-delta", "want " + hex(three),
                                   "have " + unknown, "have " + hex(two)})));
  EXPECT_EQ(answer.lines,
            (Lines{"acknowledgments", "ACK " + hex(two), "ready", "0001", "packfile", "0000"}));
  EXPECT_EQ(objectsOf(answer.pack, reached({two})).size(), 3u);
  // "done" ends it whatever is in common.
  answer = parse(serve(2, fetchV2({"want " + hex(three), "have " + hex(one), "done"})));
  EXPECT_EQ(answer.lines, (Lines{"packfile", "0000"}));
  EXPECT_EQ(objectsOf(answer.pack, reached({one})).size(), 6u);
  // Something in common, but a want that it does not lead to.
  ObjectId other = simple("other");
  ref("refs/heads/other", other);
  answer = parse(serve(2, fetchV2({"want " + hex(three), "want " + hex(other),
                                   "have " + hex(two)})));
  EXPECT_EQ(answer.lines, (Lines{"acknowledgments", "ACK " + hex(two), "0000"}));
}

TEST_F(UploadTest, ServesSeveralCommandsOnOneStream) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  std::string body = packets({"command=ls-refs", "0000"});
  UploadAnswer answer = parse(serve(2, body + body + "0000"));
  EXPECT_EQ(answer.lines.size(), 6u);
}

TEST_F(UploadTest, ClonesByProtocol0WithEverySideBand) {
  ObjectId one = simple("1"), two = simple("2", {one});
  ref("refs/heads/main", two);
  for (std::string band : {"", " side-band", " side-band-64k"}) {
    UploadAnswer answer = parse(serve(
        0, packets({"want " + hex(two) + " ofs-delta" + band + " agent=git/2", "0000", "done"})));
    EXPECT_EQ(answer.lines, (band.empty() ? Lines{"NAK"} : Lines{"NAK", "0000"}));
    EXPECT_EQ(objectsOf(answer.pack).size(), 6u) << band;
    EXPECT_EQ(answer.progress.empty(), band.empty());
  }
}

TEST_F(UploadTest, NegotiatesByProtocol0) {
  ObjectId one = simple("1"), two = simple("2", {one}), three = simple("3", {two});
  ref("refs/heads/main", three);
  std::string unknown(40, '1'), band = " side-band-64k ofs-delta";
  auto ask = [&](std::string mode, Lines rest) {
    rest.insert(rest.begin(), {"want " + hex(three) + mode + band, "0000"});
    return parse(serve(0, packets(rest)));
  };
  // Plain: the first common commit is acknowledged, and NAK says that there is none.
  EXPECT_EQ(ask("", {"have " + unknown, "0000"}).lines, (Lines{"NAK"}));
  EXPECT_EQ(ask("", {"have " + unknown, "have " + hex(two), "have " + hex(one), "done"}).lines,
            (Lines{"ACK " + hex(two), "0000"}));
  EXPECT_EQ(ask("", {"have " + unknown, "done"}).lines, (Lines{"NAK", "0000"}));
  // multi_ack
  EXPECT_EQ(ask(" multi_ack", {"have " + hex(two), "have " + unknown, "0000"}).lines,
            (Lines{"ACK " + hex(two) + " continue", "ACK " + unknown + " continue", "NAK"}));
  EXPECT_EQ(ask(" multi_ack", {"have " + hex(two), "done"}).lines,
            (Lines{"ACK " + hex(two) + " continue", "ACK " + hex(two), "0000"}));
  // multi_ack_detailed
  EXPECT_EQ(ask(" multi_ack_detailed", {"have " + hex(two), "0000"}).lines,
            (Lines{"ACK " + hex(two) + " common", "ACK " + hex(two) + " ready", "NAK"}));
  EXPECT_EQ(ask(" multi_ack_detailed", {"have " + hex(two), "have " + unknown, "0000"}).lines,
            (Lines{"ACK " + hex(two) + " common", "ACK " + unknown + " ready", "NAK"}));
  EXPECT_EQ(ask(" multi_ack_detailed", {"have " + unknown, "0000"}).lines, (Lines{"NAK"}));
  // no-done: the pack follows without another request.
  UploadAnswer answer = ask(" multi_ack_detailed no-done", {"have " + hex(two), "0000"});
  EXPECT_EQ(answer.lines, (Lines{"ACK " + hex(two) + " common", "ACK " + hex(two) + " ready",
                                 "NAK", "ACK " + hex(two), "0000"}));
  EXPECT_EQ(objectsOf(answer.pack, reached({two})).size(), 3u);
  // Several rounds on one stream.
  answer = ask(" multi_ack_detailed", {"have " + unknown, "0000", "have " + hex(one), "done"});
  EXPECT_EQ(answer.lines, (Lines{"NAK", "ACK " + hex(one) + " common", "ACK " + hex(one), "0000"}));
  EXPECT_EQ(objectsOf(answer.pack, reached({one})).size(), 6u);
}

TEST_F(UploadTest, RefusesWhatRefsDoNotReach) {
  ObjectId one = simple("1"), two = simple("2", {one}), orphan = simple("orphan");
  ref("refs/heads/main", two);
  // A commit that a ref reaches: refs may have moved on since they were shown.
  EXPECT_EQ(parse(serve(2, fetchV2({"want " + hex(one), "done"}))).lines,
            (Lines{"packfile", "0000"}));
  EXPECT_EQ(parse(serve(2, fetchV2({"want " + hex(blob("1")), "done"}))).lines,
            (Lines{"packfile", "0000"}));
  for (const std::string& bad : {hex(orphan), std::string(40, '1'), hex(blob("orphan"))}) {
    Lines expected = {"ERR upload-pack: not our ref " + bad};
    EXPECT_EQ(linesOf(serve(2, fetchV2({"want " + hex(two), "want " + bad, "done"}))), expected);
    EXPECT_EQ(linesOf(serve(0, packets({"want " + bad, "0000", "done"}))), expected);
  }
}

TEST_F(UploadTest, LooksAgainForAWantThatAnotherNodeShowed) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  auto before = node_.state("r").objects;
  ObjectId two = simple("2", {one});
  auto after = node_.state("r").objects;
  node_.state("r").objects = before;
  node_.beforeView = [&](bool fresh) {
    if (!fresh) return;
    node_.state("r").objects = after;
    ref("refs/heads/main", two);
  };
  UploadAnswer answer = parse(serve(2, fetchV2({"want " + hex(two), "done"})));
  EXPECT_EQ(answer.lines, (Lines{"packfile", "0000"}));
  EXPECT_EQ(objectsOf(answer.pack).size(), 6u);
  EXPECT_EQ(node_.freshViews, 1u);
}

TEST_F(UploadTest, RefusesBadRequestsWithASentence) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  auto error = [&](uint32_t version, const std::string& body) {
    Lines lines = linesOf(serve(version, body));
    return lines.size() == 1 && lines[0].rfind("ERR ", 0) == 0 ? lines[0].substr(4)
                                                                : "no error";
  };
  std::string want = "want " + hex(one);
  EXPECT_EQ(error(0, packets({"want 12", "0000"})),
            "upload-pack: protocol error, expected to get object ID, not '12'");
  EXPECT_EQ(error(0, packets({want, "deepen x", "0000"})),
            "upload-pack: Invalid deepen: 'deepen x'");
  EXPECT_EQ(error(0, packets({want, "deepen 1", "deepen-since 5", "0000"})),
            "upload-pack: deepen and deepen-since (or deepen-not) cannot be used together");
  EXPECT_EQ(error(0, packets({want, "shallow 12", "0000"})),
            "upload-pack: invalid shallow line: 'shallow 12'");
  EXPECT_EQ(error(0, packets({want, "0000", "hello"})),
            "upload-pack: expected SHA1 list, got 'hello'");
  EXPECT_EQ(error(0, packets({want})), "upload-pack: the request ended within its wants");
  EXPECT_EQ(error(0, packets({want + " object-format=sha256", "0000"})),
            "upload-pack: object format 'sha256' is not served here, only sha1");
  EXPECT_EQ(error(2, packets({"command=bake", "0000"})), "invalid command 'bake'");
  EXPECT_EQ(error(2, packets({"agent=x", "0000"})), "no command requested");
  EXPECT_EQ(error(2, packets({"command=fetch", "client-option=x", "0000"})),
            "unknown capability 'client-option=x'");
  EXPECT_EQ(error(2, packets({"command=fetch", "object-format=sha256", "0000"})),
            "upload-pack: object format 'sha256' is not served here, only sha1");
  EXPECT_EQ(error(2, fetchV2({want, "deepen 0", "done"})),
            "upload-pack: Invalid deepen: 'deepen 0'");
  EXPECT_EQ(error(2, fetchV2({want, "deepen-since -1", "done"})),
            "upload-pack: Invalid deepen-since: 'deepen-since -1'");
  EXPECT_EQ(error(2, fetchV2({want, "deepen-not gone", "done"})),
            "upload-pack: deepen-not is not the name of one ref: 'gone'");
  EXPECT_EQ(error(2, fetchV2({want, "deepen-since 4000000000", "done"})),
            "upload-pack: no commits selected for shallow requests");
  EXPECT_EQ(error(2, fetchV2({want, "shallow " + hex(blob("1")), "done"})),
            "upload-pack: invalid shallow object " + hex(blob("1")));
  EXPECT_EQ(error(2, fetchV2({want, "dig 1"})), "upload-pack: unexpected line 'dig 1'");
  EXPECT_EQ(error(2, fetchV2({want, "have x"})), "upload-pack: expected SHA1 object, got 'x'");
  EXPECT_EQ(error(2, packets({"command=ls-refs", "0001", "fly", "0000"})),
            "ls-refs: unexpected line 'fly'");
  EXPECT_EQ(error(2, packets({"command=fetch", "0001", want})),
            "fetch: expected flush after arguments");
  EXPECT_NE(error(2, "zzzz"), "no error");
  EXPECT_EQ(serve(2, ""), "");
  EXPECT_EQ(serve(0, ""), "");
  EXPECT_EQ(serve(0, "0000"), "");
}

TEST_F(UploadTest, SaysOnBand3ThatAnObjectIsMissing) {
  ObjectId text = blob("1");
  ObjectId one = commit(tree({{"f", text}}), {});
  ref("refs/heads/main", one);
  node_.state("r").objects.erase(text);
  UploadAnswer answer = parse(serve(2, fetchV2({"want " + hex(one), "done"})));
  EXPECT_NE(answer.error.find("missing"), std::string::npos) << answer.error;
  EXPECT_EQ(answer.lines, (Lines{"packfile", "0000"}));
}

}  // namespace
}  // namespace packmoor::gitlayer::test
