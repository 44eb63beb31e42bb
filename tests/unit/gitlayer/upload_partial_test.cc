// Goal: what clients are answered that want a part of a history, and the smaller commands of protocol 2,
// word for word. Method: as upload_pack_test.
#include "gitlayer/pack_format.h"
#include "object_filter.h"
#include "pack_sender.h"
#include "upload_harness.h"

namespace packmoor::gitlayer::test {
namespace {

using Lines = std::vector<std::string>;

class UploadPartialTest : public UploadTest {};

// Hidden refs are not shown, and give nothing to anybody, also where the repository only ever grew.
TEST_F(UploadPartialTest, WhatOnlyHiddenRefsReachIsNotGiven) {
  ObjectId shown = simple("1"), hidden = simple("2", {shown}), below = simple("3");
  ObjectId above = simple("4", {below});
  ref("refs/heads/main", shown);
  ref("refs/hidden/a", hidden);
  ref("refs/hidden/b", above);
  auto& info = node_.state("r").info;
  info.settings.uploadHidden = {"refs/hidden"};
  const std::string listing = packets({"command=ls-refs", "0001", "0000"});
  for (bool appendOnly : {false, true}) {
    info.appendOnly = appendOnly;
    policy_.hiddenTips = false;
    for (uint32_t version : {0u, 1u}) {
      EXPECT_NE(advertisement(version).find("refs/heads/main"), std::string::npos);
      EXPECT_EQ(advertisement(version).find("refs/hidden"), std::string::npos);
    }
    EXPECT_EQ(serve(2, listing).find("refs/hidden"), std::string::npos);
    EXPECT_EQ(objectsOf(parse(serve(2, fetchV2({"want " + hex(shown), "ofs-delta", "done"}))).pack).size(), 3u);
    for (const ObjectId& id : {hidden, above, below}) {
      EXPECT_NE(serve(2, fetchV2({"want " + hex(id), "done"})).find("not our ref"), std::string::npos);
    }
    EXPECT_NE(serve(2, fetchV2({"want-ref refs/hidden/a", "done"})).find("unknown ref"), std::string::npos);
    // uploadpack.allowTipSHA1InWant: their values, and not what these reach.
    policy_.hiddenTips = true;
    EXPECT_EQ(objectsOf(parse(serve(2, fetchV2({"want " + hex(hidden), "done"}))).pack).size(), 6u);
    EXPECT_NE(serve(2, fetchV2({"want " + hex(below), "done"})).find("not our ref"), std::string::npos);
  }
  policy_ = {};
  info.settings.uploadHidden.clear();
  EXPECT_NE(advertisement(0).find("refs/hidden/a"), std::string::npos);
}

TEST_F(UploadPartialTest, TellsWhereHistoryIsCut) {
  ObjectId one = simple("1"), two = simple("2", {one}), three = simple("3", {two});
  ref("refs/heads/main", three);
  UploadAnswer answer =
      parse(serve(2, fetchV2({"want " + hex(three), "deepen 1", "ofs-delta", "done"})));
  EXPECT_EQ(answer.lines, (Lines{"shallow-info", "shallow " + hex(three), "0001", "packfile",
                                 "0000"}));
  // What the parents would be is not there for git to check.
  answer = parse(serve(2, fetchV2({"want " + hex(three), "shallow " + hex(three), "deepen 2",
                                   "have " + hex(three), "done"})));
  EXPECT_EQ(answer.lines, (Lines{"shallow-info", "shallow " + hex(two), "unshallow " + hex(three),
                                 "0001", "packfile", "0000"}));
  // A shallow client that asks for no other cut is told so; cuts that are not here are passed over.
  answer = parse(serve(2, fetchV2({"want " + hex(three), "shallow " + hex(two),
                                   "shallow " + std::string(40, '1'), "have " + hex(two)})));
  EXPECT_EQ(answer.lines, (Lines{"acknowledgments", "ACK " + hex(two), "ready", "0001",
                                 "shallow-info", "0001", "packfile", "0000"}));
  EXPECT_EQ(objectsOf(answer.pack, reached({two})).size(), 3u);
  // Protocol 0: before the haves, and only when another cut is asked for.
  std::string want = "want " + hex(three) + " multi_ack_detailed side-band-64k ofs-delta";
  EXPECT_EQ(linesOf(serve(0, packets({want, "deepen 1", "0000"}))),
            (Lines{"shallow " + hex(three), "0000"}));
  answer = parse(serve(0, packets({want, "deepen 2", "0000", "done"})));
  EXPECT_EQ(answer.lines, (Lines{"shallow " + hex(two), "0000", "NAK", "0000"}));
  answer = parse(serve(1, packets({want, "shallow " + hex(two), "0000", "have " + hex(two),
                                   "done"})));
  EXPECT_EQ(answer.lines, (Lines{"ACK " + hex(two) + " common", "ACK " + hex(two), "0000"}));
}

TEST_F(UploadPartialTest, LeavesOutWhatAFilterSays) {
  ObjectId folder = tree({{"f", blob("below")}});
  ObjectId one = commit(tree({{"d", folder, true}, {"f", blob("above")}}), {});
  ref("refs/heads/main", one);
  ref("refs/tags/sparse", blob("/f\n"));
  auto count = [&](const std::string& filter) {
    UploadAnswer answer = parse(serve(2, fetchV2({"want " + hex(one), "filter " + filter, "done"})));
    uint32_t objects = 0;
    auto bytes = kj::StringPtr(answer.pack.c_str(), answer.pack.size()).asBytes();
    EXPECT_EQ(decodePackHeader(bytes, objects), Decoded::kDone) << answer.raw;
    return objects;
  };
  EXPECT_EQ(count("blob:none"), 3u);
  EXPECT_EQ(count("blob:limit=5"), 3u);
  EXPECT_EQ(count("blob:limit=6"), 5u);
  EXPECT_EQ(count("tree:0"), 1u);
  EXPECT_EQ(count("tree:1"), 2u);
  EXPECT_EQ(count("tree:2"), 4u);
  EXPECT_EQ(count("object:type=tree"), 3u);
  EXPECT_EQ(count("combine:object:type=tree+object:type=blob"), 1u);
  EXPECT_EQ(count("sparse:oid=sparse"), 4u);
  EXPECT_EQ(count("sparse:oid=main:d/f"), 3u);
  // What is wanted itself is sent.
  UploadAnswer answer = parse(serve(2, fetchV2({"want " + hex(folder), "want " + hex(blob("above")),
                                                "filter blob:none", "done"})));
  EXPECT_EQ(answer.lines, (Lines{"packfile", "0000"}));
  EXPECT_NE(answer.progress.find("Enumerating objects: 2, done."), std::string::npos);
  answer = parse(serve(0, packets({"want " + hex(one) + " side-band-64k filter",
                                   "filter blob:none", "0000", "done"})));
  EXPECT_NE(answer.progress.find("Enumerating objects: 3, done."), std::string::npos);
}

TEST_F(UploadPartialTest, RefusesBadFilters) {
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  ref("refs/tags/large", blob(std::string(PathPatterns::kBytesMax + 1, 'x')));
  auto error = [&](Lines filters) {
    filters.insert(filters.begin(), "want " + hex(one));
    filters.push_back("done");
    Lines lines = linesOf(serve(2, fetchV2(filters)));
    return lines.size() == 1 ? lines[0] : "no error";
  };
  const std::string start = "ERR upload-pack: ";
  for (const char* bad : {"blob:some", "blob:limit=", "blob:limit=1x", "blob:limit=-1",
                          "object:type=snow", "combine:blob:none+odd"}) {
    EXPECT_EQ(error({std::string("filter ") + bad}).rfind(start + "invalid filter-spec '", 0), 0u)
        << bad;
  }
  EXPECT_EQ(error({"filter tree:x"}), start + "expected 'tree:<depth>'");
  EXPECT_EQ(error({"filter combine:"}), start + "expected something after combine:");
  EXPECT_EQ(error({"filter sparse:path=x"}),
            start + "sparse:path filters support has been dropped");
  EXPECT_EQ(error({"filter blob:none", "filter tree:1"}),
            start + "multiple filter-specs cannot be combined");
  EXPECT_EQ(error({"filter sparse:oid=none"}), start + "unable to access sparse blob in 'none'");
  EXPECT_EQ(error({"filter sparse:oid=main"}), start + "unable to access sparse blob in 'main'");
  EXPECT_EQ(error({"filter sparse:oid=large"}),
            start + "the sparse blob in 'large' is larger than 262144 bytes");
  std::string many = "filter combine:blob:none";
  for (size_t i = 0; i < ObjectFilter::kPartsMax; ++i) many += "+blob:none";
  EXPECT_EQ(error({many}), start + "too many filters are combined; at most 32 are served");
  std::string deep = "blob:none";
  for (int i = 0; i < 9; ++i) {
    std::string coded = "combine:";
    for (char c : deep) coded += c == '%' ? "%25" : std::string(1, c);
    deep = coded;
  }
  EXPECT_EQ(error({"filter " + deep}), start + "too many filters are combined; at most 32 are served");
  EXPECT_EQ(linesOf(serve(0, packets({"want " + hex(one), "filter blob:none", "0000"}))),
            (Lines{start + "filtering capability not negotiated"}));
}

TEST_F(UploadPartialTest, KeepsToThePolicy) {
  ObjectId one = simple("1"), two = simple("2", {one});
  ref("refs/heads/main", two);
  ObjectId orphan = simple("orphan");
  policy_.wants = UploadPolicy::Wants::kAny;
  EXPECT_EQ(linesOf(serve(2, fetchV2({"want " + hex(orphan), "done"}))),
            (Lines{"packfile", "0000"}));
  policy_.wants = UploadPolicy::Wants::kTips;
  EXPECT_EQ(linesOf(serve(2, fetchV2({"want " + hex(one), "done"}))),
            (Lines{"ERR upload-pack: not our ref " + hex(one)}));
  policy_.filters = false;
  EXPECT_EQ(linesOf(serve(2, fetchV2({"want " + hex(two), "filter blob:none", "done"}))),
            (Lines{"ERR upload-pack: unexpected line 'filter blob:none'"}));
  policy_.refInWant = policy_.sidebandAll = policy_.objectInfo = false;
  EXPECT_EQ(linesOf(advertisement(2))[3], "fetch=shallow wait-for-done");
  for (const char* line : {"want-ref refs/heads/main", "sideband-all"}) {
    EXPECT_EQ(linesOf(serve(2, fetchV2({line, "done"}))),
              (Lines{std::string("ERR upload-pack: unexpected line '") + line + "'"}));
  }
  EXPECT_EQ(linesOf(serve(2, packets({"command=object-info", "0001", "size", "0000"}))),
            (Lines{"ERR invalid command 'object-info'"}));
  std::string first = linesOf(advertisement(0, false))[0];
  EXPECT_EQ(first.find("filter"), first.npos);
  EXPECT_EQ(first.find("in-want"), first.npos);
}

TEST_F(UploadPartialTest, TakesWantsByTheNamesOfRefs) {
  ObjectId one = simple("1"), two = simple("2", {one});
  ref("refs/heads/main", two);
  ref("refs/heads/old", one);
  UploadAnswer answer = parse(serve(2, fetchV2({"want-ref refs/heads/old", "want-ref HEAD",
                                                "server-option=x", "done"})));
  EXPECT_EQ(answer.lines, (Lines{"ERR upload-pack: unexpected line 'server-option=x'"}));
  answer = parse(serve(2, packets({"command=fetch", "server-option=x", "0001",
                                   "want-ref refs/heads/old", "want-ref HEAD", "ofs-delta",
                                   "deepen 1", "done", "0000"})));
  EXPECT_EQ(answer.lines[0], "shallow-info");
  answer = parse(serve(2, fetchV2({"want-ref refs/heads/old", "want-ref HEAD", "done"})));
  EXPECT_EQ(answer.lines, (Lines{"wanted-refs", hex(one) + " refs/heads/old", hex(two) + " HEAD",
                                 "0001", "packfile", "0000"}));
  EXPECT_EQ(objectsOf(answer.pack).size(), 6u);
  auto error = [&](Lines lines) {
    lines.push_back("done");
    return linesOf(serve(2, fetchV2(lines)));
  };
  EXPECT_EQ(error({"want-ref refs/heads/none"}),
            (Lines{"ERR upload-pack: unknown ref 'refs/heads/none'"}));
  EXPECT_EQ(error({"want-ref main"}), (Lines{"ERR upload-pack: unknown ref 'main'"}));
  EXPECT_EQ(error({"want-ref HEAD", "want-ref HEAD"}),
            (Lines{"ERR upload-pack: duplicate want-ref 'HEAD'"}));
}

TEST_F(UploadPartialTest, WaitsForDoneWhenItIsToldTo) {
  ObjectId one = simple("1"), two = simple("2", {one});
  ref("refs/heads/main", two);
  EXPECT_EQ(linesOf(serve(2, fetchV2({"want " + hex(two), "have " + hex(one), "wait-for-done"}))),
            (Lines{"acknowledgments", "ACK " + hex(one), "0000"}));
  // Without wants: to learn what is common.
  EXPECT_EQ(linesOf(serve(2, fetchV2({"have " + hex(one), "have " + std::string(40, '1'),
                                      "wait-for-done"}))),
            (Lines{"acknowledgments", "ACK " + hex(one), "0000"}));
  UploadAnswer answer = parse(serve(2, fetchV2({"want " + hex(two), "have " + hex(one),
                                                "wait-for-done", "done"})));
  EXPECT_EQ(answer.lines, (Lines{"packfile", "0000"}));
}

TEST_F(UploadPartialTest, PutsEverythingOnBandsWhenItIsToldTo) {
  ObjectId one = simple("1"), two = simple("2", {one});
  ref("refs/heads/main", two);
  std::string ask = fetchV2({"sideband-all", "want " + hex(two), "have " + hex(one)});
  std::string list = packets({"command=ls-refs", "0001", "ref-prefix refs/heads/", "0000"});
  std::string raw = serve(2, ask + list);
  std::string start;
  for (const std::string& line : {std::string("acknowledgments"), "ACK " + hex(one),
                                  std::string("ready")}) {
    appendPkt(start, "\1" + line + "\n");
  }
  start += "0001";
  appendPkt(start, "\1packfile\n");
  EXPECT_EQ(raw.substr(0, start.size()), start);
  std::string pack = parse(raw.substr(start.size())).pack;
  EXPECT_EQ(objectsOf(pack, reached({one})).size(), 3u);
  // The next command is answered as usual.
  std::string end;
  appendPkt(end, hex(two) + " refs/heads/main\n");
  EXPECT_EQ(raw.substr(raw.size() - end.size() - 4), end + "0000");
  std::string error;
  appendPkt(error, "\3upload-pack: not our ref " + std::string(40, '1'));
  EXPECT_EQ(serve(2, fetchV2({"sideband-all", "want " + std::string(40, '1'), "done"})), error);
}

TEST_F(UploadPartialTest, TellsTheSizesOfObjects) {
  ObjectId small = blob("text");
  std::string unknown(40, '1');
  auto ask = [&](Lines arguments) {
    arguments.insert(arguments.begin(), {"command=object-info", "0001"});
    arguments.push_back("0000");
    return linesOf(serve(2, packets(arguments)));
  };
  EXPECT_EQ(ask({"size", "oid " + hex(small), "oid " + unknown}),
            (Lines{"size", hex(small) + " 4", unknown + " ", "0000"}));
  EXPECT_EQ(ask({"oid " + hex(small)}), (Lines{hex(small), "0000"}));
  EXPECT_EQ(ask({"size"}), (Lines{"0000"}));
  EXPECT_EQ(ask({"type"}), (Lines{"ERR object-info: unexpected line: 'type'"}));
  EXPECT_EQ(ask({"oid x"}),
            (Lines{"ERR object-info: protocol error, expected to get oid, not 'x'"}));
  Lines many = {"size"};
  for (int i = 0; i < 5000; ++i) many.push_back("oid " + hex(small));
  EXPECT_EQ(ask(many).size(), 5002u);
}

// A client that hangs up while its fetch waits for others.
TEST_F(UploadPartialTest, EndsWhenTheClientGoesAway) {
  class Output final : public kj::AsyncOutputStream {
   public:
    kj::Promise<void> write(const void*, size_t) override { return kj::READY_NOW; }
    kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>>) override {
      return kj::READY_NOW;
    }
    kj::Promise<void> whenWriteDisconnected() override { return kj::mv(gone.promise); }
    kj::PromiseFulfillerPair<void> gone = kj::newPromiseAndFulfiller<void>();
  };
  ObjectId one = simple("1");
  ref("refs/heads/main", one);
  auto queue = kj::refcounted<PackQueue>(1);
  auto turn = loop_.wait(queue->turn("other"));
  GitRequest request;
  request.repository = "r";
  request.protocolVersion = 2;
  auto view = loop_.wait(node_.view("r", false));
  auto session = makeUploadPackSession(node_, *queue, request,
                                       kj::mv(KJ_ASSERT_NONNULL(view)));
  testing::StringInput in(fetchV2({"want " + hex(one), "done"}));
  Output out;
  auto serving = session->serve(in, out);
  while (queue->waiting() == 0) loop_.wait(sim_.env().timer.afterDelay(kj::MILLISECONDS));
  out.gone.fulfiller->fulfill();
  auto failure = loop_.wait(failureOf(kj::mv(serving)));
  auto& exception = KJ_ASSERT_NONNULL(failure);
  EXPECT_EQ(exception.getType(), kj::Exception::Type::DISCONNECTED);
  // Between two requests a client may go.
  auto another = loop_.wait(node_.view("r", false));
  session = makeUploadPackSession(node_, *queue, request, kj::mv(KJ_ASSERT_NONNULL(another)));
  testing::StringInput idle("");
  idle.neverEnds = true;
  Output last;
  auto waiting = session->serve(idle, last);
  last.gone.fulfiller->fulfill();
  loop_.wait(kj::mv(waiting));
  // It does not take the next turn.
  auto next = queue->turn("next");
  turn = nullptr;
  loop_.wait(kj::mv(next));
}

TEST_F(UploadPartialTest, MovesOnlyCutsThatRefsReach) {
  ObjectId one = simple("1"), secret = simple("secret"), orphan = simple("orphan", {secret});
  ref("refs/heads/main", one);
  for (const char* how : {"deepen 2147483647", "deepen 5"}) {
    UploadAnswer answer = parse(serve(2, fetchV2({"want " + hex(one), "shallow " + hex(orphan),
                                                  "deepen-relative", how, "done"})));
    EXPECT_EQ(answer.lines, (Lines{"shallow-info", "0001", "packfile", "0000"}));
    EXPECT_EQ(objectsOf(answer.pack).size(), 3u);
  }
}

}  // namespace
}  // namespace packmoor::gitlayer::test
