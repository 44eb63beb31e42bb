// One repository "r" on a FakeGitNode with a history made by the test, and requests to its
// upload-pack session.
#pragma once

#include "fake_git_node.h"
#include "gitlayer/pkt_line.h"
#include "gitlayer/upload_pack.h"
#include "receive_harness.h"

#include <kernelio/sim_env.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <set>

namespace packmoor::gitlayer::test {

// An answer with a pack, taken apart.
struct UploadAnswer {
  std::vector<std::string> lines;   // packets before the pack; "0000" and "0001" for themselves
  std::string pack, progress, error;
  std::string raw;
};

class UploadTest : public ::testing::Test {
 protected:
  UploadTest() {
    node_.addRepository("r");
    node_.state("r").info.appendOnly = false;
  }
  ~UploadTest() noexcept override {}

  // ---- History -----------------------------------------------------------------------------

  struct File {
    std::string name;
    ObjectId id;
    bool folder = false;
  };
  ObjectId blob(const std::string& text) { return node_.addObject("r", ObjectType::kBlob, text); }
  // Names sorted as git sorts them; the caller's affair.
  ObjectId tree(const std::vector<File>& files) {
    std::string data;
    for (const File& file : files) {
      data += (file.folder ? "40000 " : "100644 ") + file.name + std::string(1, '\0');
      data.append(reinterpret_cast<const char*>(file.id.bytes.data()), kOidBytes);
    }
    return node_.addObject("r", ObjectType::kTree, data);
  }
  ObjectId commit(const ObjectId& tree, const std::vector<ObjectId>& parents, int64_t date = 0) {
    if (date == 0) date = ++clock_;
    std::string text = "tree " + hex(tree) + "\n";
    for (const ObjectId& parent : parents) text += "parent " + hex(parent) + "\n";
    std::string who = "T <t@example.com> " + std::to_string(date) + " +0000\n";
    text += "author " + who + "committer " + who + "\nchange\n";
    return node_.addObject("r", ObjectType::kCommit, text);
  }
  ObjectId tag(const ObjectId& target, const std::string& name, const char* type = "commit") {
    return node_.addObject("r", ObjectType::kTag,
                           "object " + hex(target) + "\ntype " + type + "\ntag " + name +
                               "\ntagger T <t@example.com> 1700000000 +0000\n\nname\n");
  }
  // A commit with one file "f" of that text.
  ObjectId simple(const std::string& text, const std::vector<ObjectId>& parents = {}) {
    return commit(tree({{"f", blob(text)}}), parents);
  }
  void ref(const std::string& name, const ObjectId& id, const ObjectId& peeled = {}) {
    node_.setRef("r", name, id, peeled);
  }
  // Everything that these reach, themselves included.
  std::vector<ObjectId> reached(std::vector<ObjectId> from) {
    std::set<ObjectId> seen;
    while (!from.empty()) {
      ObjectId id = from.back();
      from.pop_back();
      if (!seen.insert(id).second) continue;
      const FakeObject& object = node_.state("r").objects.at(id);
      const std::string& data = object.data;
      if (object.type == ObjectType::kTree) {
        for (size_t at = 0; at < data.size();) {
          size_t zero = data.find('\0', at);
          if (data.compare(at, 6, "160000") != 0) {
            from.push_back(ObjectId::fromBytes(data.data() + zero + 1));
          }
          at = zero + 1 + kOidBytes;
        }
      } else if (object.type != ObjectType::kBlob) {
        for (size_t at = 0; at < data.size() && data[at] != '\n'; at = data.find('\n', at) + 1) {
          ObjectId linked;
          size_t space = data.find(' ', at);
          std::string key = data.substr(at, space - at);
          if (key != "tree" && key != "parent" && key != "object") continue;
          if (ObjectId::parseHex(data.substr(space + 1, 40), linked)) from.push_back(linked);
        }
      }
    }
    return {seen.begin(), seen.end()};
  }
  static std::string hex(const ObjectId& id) { return id.hex().cStr(); }

  // ---- Requests ----------------------------------------------------------------------------

  kj::Own<GitSession> session(uint32_t version) {
    GitRequest request;
    request.repository = "r";
    request.protocolVersion = version;
    auto view = loop_.wait(node_.view("r", false));
    return makeUploadPackSession(node_, kj::mv(request), kj::mv(KJ_ASSERT_NONNULL(view)),
                                 policy_);
  }
  std::string advertisement(uint32_t version, bool banner = true) {
    StringOutput out;
    auto opened = session(version);
    loop_.wait(opened->advertise(out, banner));
    return out.text;
  }
  std::string serve(uint32_t version, const std::string& body, size_t piece = SIZE_MAX) {
    StringInput in(body, piece);
    StringOutput out;
    auto opened = session(version);
    loop_.wait(opened->serve(in, out));
    return out.text;
  }

  // "want ...", "0000", "0001" and so on, as packets.
  static std::string packets(const std::vector<std::string>& lines) {
    std::string body;
    for (const std::string& line : lines) {
      if (line == "0000" || line == "0001" || line == "0002") {
        body += line;
      } else {
        appendPkt(body, line + "\n");
      }
    }
    return body;
  }
  static std::string fetchV2(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"command=fetch", "object-format=sha1", "0001"});
    arguments.push_back("0000");
    return packets(arguments);
  }

  // The packets of an advertisement, with "S" for the session's own id.
  std::vector<std::string> advertised(uint32_t version, bool banner = false) {
    static const std::regex kSession("session-id=packmoor-[0-9a-f]{1,16}");
    auto lines = linesOf(advertisement(version, banner));
    for (std::string& line : lines) line = std::regex_replace(line, kSession, "session-id=S");
    return lines;
  }

  // The packets of an answer, "0000" and the like for themselves.
  std::vector<std::string> linesOf(const std::string& raw) { return parse(raw).lines; }

  UploadAnswer parse(const std::string& raw) {
    UploadAnswer answer;
    answer.raw = raw;
    bool bands = false;
    for (size_t at = 0; at < raw.size();) {
      if (raw.compare(at, 4, "PACK") == 0) {
        answer.pack = raw.substr(at);
        break;
      }
      PktLength length = parsePktLength(std::string_view(raw).substr(at, 4));
      KJ_REQUIRE(length.valid && at + 4 + length.payloadBytes <= raw.size(), raw.c_str() + at);
      std::string data = raw.substr(at + 4, length.payloadBytes);
      if (length.kind != PktKind::kData) {
        answer.lines.push_back(raw.substr(at, 4));
      } else if (bands || (!data.empty() && data[0] <= 3)) {
        bands = true;
        (data[0] == 1 ? answer.pack : data[0] == 2 ? answer.progress : answer.error) +=
            data.substr(1);
      } else {
        if (!data.empty() && data.back() == '\n') data.pop_back();
        answer.lines.push_back(data);
      }
      at += 4 + length.payloadBytes;
    }
    return answer;
  }

  // The objects of a pack that git itself takes, strictly, in a repository with those given.
  std::map<std::string, std::string> objectsOf(const std::string& pack,
                                               const std::vector<ObjectId>& had = {}) {
    packmoor::test::TestGit git;
    for (const ObjectId& id : had) {
      auto& object = node_.state("r").objects.at(id);
      std::string type(objectTypeName(object.type));
      git.run({"hash-object", "-t", type, "-w", "--stdin", "--literally"}, object.data);
    }
    auto result = git.tryRun({"index-pack", "--stdin", "--fix-thin", "--strict"}, pack);
    EXPECT_EQ(result.exitCode, 0) << result.err;
    std::map<std::string, std::string> objects;
    std::string all = git.run({"cat-file", "--batch-all-objects", "--batch-check"});
    for (size_t at = 0; at < all.size();) {
      size_t end = all.find('\n', at);
      std::string line = all.substr(at, end - at);
      at = end + 1;
      ObjectId id;
      ObjectId::parseHex(line.substr(0, 40), id);
      if (std::find(had.begin(), had.end(), id) != had.end()) continue;
      objects[line.substr(0, 40)] = line.substr(41, line.find(' ', 41) - 41);
    }
    return objects;
  }

  kernelio::VirtualLoop loop_;
  kernelio::SimStorage storage_{1};
  kernelio::SimEnv sim_{loop_, storage_, 1};
  FakeGitNode node_{sim_.env()};
  UploadPolicy policy_;
  int64_t clock_ = 1'700'000'000;
};

}  // namespace packmoor::gitlayer::test
