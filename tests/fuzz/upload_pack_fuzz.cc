// module: gitlayer
// with: unit/gitlayer/fake_git_node.cc
// Requests to upload-pack over a small history. The first byte gives the protocol's version, the
// size of the pieces that the request comes in, and whether the rest is the stream itself or lines
// to be framed, with 0000, 0001 and 0002 for themselves and @0 to @9 for names of objects.
// Whatever is asked, the answer is framed well, a pack in it is whole, and nothing is thrown.
#include "../unit/gitlayer/fake_git_node.h"

#include "gitlayer/pack_format.h"
#include "gitlayer/pkt_line.h"
#include "gitlayer/upload_pack.h"
#include "sha1_stream.h"

#include <kernelio/check.h>
#include <kernelio/sim_env.h>
#include <kj/debug.h>
#include <support/string_streams.h>

#include <algorithm>

using namespace packmoor;
using namespace packmoor::gitlayer;

namespace {

// Ten objects: blob, tree, four commits with a merge, two tags, and a commit that no ref reaches
// with its tree.
std::vector<ObjectId> fill(gitlayer::test::FakeGitNode& node) {
  node.addRepository("r").info.appendOnly = false;
  ObjectId blob = node.addObject("r", ObjectType::kBlob, "text");
  auto tree = [&](const std::string& name) {
    return node.addObject("r", ObjectType::kTree,
                          "100644 " + name + std::string(1, '\0') +
                              std::string(reinterpret_cast<const char*>(blob.bytes.data()), 20));
  };
  auto commit = [&](const ObjectId& tree, const std::vector<ObjectId>& parents, int date) {
    std::string text = std::string("tree ") + tree.hex().cStr() + "\n";
    for (auto& parent : parents) text += std::string("parent ") + parent.hex().cStr() + "\n";
    std::string who = "T <t> " + std::to_string(date) + " +0000\n";
    return node.addObject("r", ObjectType::kCommit, text + "author " + who + "committer " + who);
  };
  auto tag = [&](const ObjectId& target, const char* type) {
    return node.addObject("r", ObjectType::kTag, std::string("object ") + target.hex().cStr() +
                                                     "\ntype " + type + "\ntag t\n");
  };
  ObjectId first = commit(tree("a"), {}, 1), left = commit(tree("b"), {first}, 2),
           right = commit(tree("c"), {first}, 3), merge = commit(tree("d"), {left, right}, 4),
           lost = commit(tree("e"), {merge}, 5);
  ObjectId named = tag(merge, "commit"), again = tag(named, "tag");
  node.setRef("r", "refs/heads/main", merge);
  node.setRef("r", "refs/heads/left", left);
  node.setRef("r", "refs/tags/again", again, merge);
  node.setRef("r", "refs/tags/blob", blob);
  return {blob, tree("a"), first, left, right, merge, named, again, lost, tree("e")};
}

std::string framed(std::string_view lines, const std::vector<ObjectId>& names) {
  std::string body;
  while (!lines.empty() && body.size() < 100'000) {
    size_t end = std::min(lines.find('\n'), lines.size());
    std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (line == "0000" || line == "0001" || line == "0002") {
      body += line;
      continue;
    }
    std::string text;
    for (size_t i = 0; i < line.size() && text.size() < 60'000; ++i) {
      bool name = line[i] == '@' && i + 1 < line.size() && line[i + 1] >= '0' && line[i + 1] <= '9';
      if (name) {
        text += names[line[++i] - '0'].hex().cStr();
      } else {
        text += line[i];
      }
    }
    appendPkt(body, text + "\n");
  }
  return body;
}

void checkPack(const std::string& pack) {
  auto bytes = kj::StringPtr(pack.c_str(), pack.size()).asBytes();
  PACKMOOR_CHECK(bytes.size() >= kPackHeaderBytes + kPackTrailerBytes);
  uint32_t count = 0;
  PACKMOOR_CHECK(decodePackHeader(bytes, count) == Decoded::kDone);
  Sha1Stream sha1;
  sha1.update(bytes.slice(0, bytes.size() - kPackTrailerBytes));
  PACKMOOR_CHECK(sha1.finish() == ObjectId::fromBytes(bytes.end() - kPackTrailerBytes));
}

// With `bandsAll`, lines before the pack come on band 1 and refusals on band 3.
void checkAnswer(const std::string& answer, bool bandsAll) {
  std::string pack;
  for (size_t at = 0; at < answer.size();) {
    if (answer.compare(at, 4, "PACK") == 0) return checkPack(answer.substr(at));
    PktLength length = parsePktLength(std::string_view(answer).substr(at, 4));
    PACKMOOR_CHECK(length.valid && at + 4 + length.payloadBytes <= answer.size());
    std::string data = answer.substr(at + 4, length.payloadBytes);
    at += 4 + length.payloadBytes;
    if (length.kind == PktKind::kFlush && !pack.empty()) {
      checkPack(pack);
      pack.clear();
    }
    bool isPack = !bandsAll || !pack.empty() || data.compare(0, 5, "\1PACK") == 0;
    if (!data.empty() && data[0] == 1 && isPack) pack += data.substr(1);
    PACKMOOR_CHECK(bandsAll || data.empty() || data[0] != 3, "a sound repository gave an error");
  }
  PACKMOOR_CHECK(pack.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  kernelio::VirtualLoop loop;
  kernelio::SimStorage storage(1);
  kernelio::SimEnv sim(loop, storage, 1);
  gitlayer::test::FakeGitNode node(sim.env());
  std::vector<ObjectId> names = fill(node);
  GitRequest request;
  request.repository = "r";
  request.protocolVersion = data[0] % 3;
  bool lines = (data[0] & 64) == 0;
  size_t piece = (data[0] & 128) == 0 ? SIZE_MAX : 1 + data[0] % 61;
  std::string body(reinterpret_cast<const char*>(data + 1), size - 1);
  if (lines) body = framed(body, names);
  auto view = loop.wait(node.view("r", false));
  auto session = makeUploadPackSession(node, kj::mv(request), kj::mv(KJ_ASSERT_NONNULL(view)));
  testing::StringInput in(body, piece);
  testing::StringOutput out;
  loop.wait(session->serve(in, out));
  checkAnswer(out.text, body.find("sideband-all") != body.npos);
  return 0;
}
