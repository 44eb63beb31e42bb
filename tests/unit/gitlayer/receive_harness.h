// One repository "r" on a FakeGitNode, and requests to its receive-pack session as git's HTTP
// client makes them.
#pragma once

#include "fake_git_node.h"
#include "gitlayer/pkt_line.h"
#include "gitlayer/receive_pack.h"

#include <kernelio/sim_env.h>
#include <support/string_streams.h>

#include <gtest/gtest.h>

namespace packmoor::gitlayer::test {

using testing::StringInput;
using testing::StringOutput;

// A report as a client understands it.
struct Answer {
  std::string unpack;                         // what follows "unpack "
  std::map<std::string, std::string> refs;    // "ok", or the reason
  std::string progress, error;                // bands 2 and 3
  std::string raw;
};

constexpr const char* kZero = "0000000000000000000000000000000000000000";

class ReceiveTest : public ::testing::Test {
 protected:
  ReceiveTest() { node_.addRepository("r"); }
  ~ReceiveTest() noexcept override {}

  kj::Own<GitSession> session(uint32_t protocolVersion = 0) {
    GitRequest request;
    request.repository = "r";
    request.service = GitService::kReceivePack;
    request.protocolVersion = protocolVersion;
    request.principal = "tester";
    auto view = loop_.wait(node_.view("r", false));
    return makeReceivePackSession(node_, kj::mv(request),
                                  kj::mv(KJ_ASSERT_NONNULL(view)), counters_);
  }

  std::string advertisement(bool banner, uint32_t protocolVersion = 0) {
    StringOutput out;
    loop_.wait(session(protocolVersion)->advertise(out, banner));
    return out.text;
  }

  // Commands "old new name"; the first gets the capabilities.
  static std::string commands(const std::vector<std::string>& lines,
                              const std::string& capabilities = kUsual) {
    std::string body;
    for (size_t i = 0; i < lines.size(); ++i) {
      appendPkt(body, i == 0 ? lines[i] + std::string(1, '\0') + capabilities : lines[i]);
    }
    appendFlush(body);
    return body;
  }

  std::string serve(const std::string& body, size_t piece = SIZE_MAX) {
    StringInput in(body, piece);
    StringOutput out;
    loop_.wait(session()->serve(in, out));
    return out.text;
  }

  Answer push(const std::string& body, size_t piece = SIZE_MAX) {
    return parse(serve(body, piece));
  }

  Answer parse(const std::string& raw) {
    Answer answer;
    answer.raw = raw;
    StringInput in(raw);
    PktReader reader(in);
    std::string status;
    bool bands = false;
    for (;;) {
      Pkt pkt = loop_.wait(reader.read());
      if (pkt.kind != PktKind::kData) break;
      if (!pkt.data.empty() && pkt.data[0] <= 3) {
        bands = true;
        std::string rest(pkt.data.substr(1));
        if (pkt.data[0] == 1) status += rest;
        if (pkt.data[0] == 2) answer.progress += rest;
        if (pkt.data[0] == 3) answer.error += rest;
      } else {
        addStatus(answer, pkt);
      }
    }
    if (bands) {
      StringInput inner(status);
      PktReader innerReader(inner);
      for (;;) {
        Pkt pkt = loop_.wait(innerReader.read());
        if (pkt.kind != PktKind::kData) break;
        addStatus(answer, pkt);
      }
    }
    return answer;
  }

  static void addStatus(Answer& answer, const Pkt& pkt) {
    std::string line(pkt.line());
    if (line.rfind("unpack ", 0) == 0) {
      answer.unpack = line.substr(7);
    } else if (line.rfind("ok ", 0) == 0) {
      answer.refs[line.substr(3)] = "ok";
    } else if (line.rfind("ng ", 0) == 0) {
      size_t space = line.find(' ', 3);
      answer.refs[line.substr(3, space - 3)] = line.substr(space + 1);
    } else {
      answer.error += line;
    }
  }

  std::string refOf(const std::string& name) {
    auto found = node_.state("r").refs.find(name);
    return found == node_.state("r").refs.end() ? "" : std::string(found->second.id.hex().cStr());
  }

  static constexpr const char* kUsual =
      " report-status side-band-64k object-format=sha1 agent=git/2.39.5";

  kernelio::VirtualLoop loop_;
  kernelio::SimStorage storage_{1};
  kernelio::SimEnv sim_{loop_, storage_, 1};
  FakeGitNode node_{sim_.env()};
  ReceiveCounters counters_;
  packmoor::test::TestGit git_;
};

}  // namespace packmoor::gitlayer::test
