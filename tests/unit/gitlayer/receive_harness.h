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
  std::vector<std::string> lines;             // of the report, as they came
  std::string progress, error;                // bands 2 and 3
  std::string raw;
};

constexpr const char* kZero = "0000000000000000000000000000000000000000";

// Calls back with the content of each data packet up to the first flush.
template <typename F>
void forEachPacket(std::string_view text, F each) {
  while (text.size() >= 4) {
    const size_t bytes = std::stoul(std::string(text.substr(0, 4)), nullptr, 16);
    if (bytes < 4) return;
    KJ_REQUIRE(bytes <= text.size(), "a packet that is cut short");
    each(text.substr(4, bytes - 4));
    text.remove_prefix(bytes);
  }
}

inline void addStatus(Answer& answer, std::string_view packet) {
  std::string line(packet.substr(0, packet.find('\n')));
  answer.lines.push_back(line);
  if (line.rfind("unpack ", 0) == 0) {
    answer.unpack = line.substr(7);
  } else if (line.rfind("ok ", 0) == 0) {
    answer.refs[line.substr(3)] = "ok";
  } else if (line.rfind("ng ", 0) == 0) {
    const size_t space = line.find(' ', 3);
    answer.refs[line.substr(3, space - 3)] = line.substr(space + 1);
  } else {
    answer.error += line;
  }
}

inline Answer parseAnswer(const std::string& raw) {
  Answer answer;
  answer.raw = raw;
  std::string status;
  forEachPacket(raw, [&](std::string_view packet) {
    if (packet.empty() || packet[0] > 3) return addStatus(answer, packet);
    (packet[0] == 1 ? status : packet[0] == 2 ? answer.progress : answer.error) += packet.substr(1);
  });
  forEachPacket(status, [&](std::string_view packet) { addStatus(answer, packet); });
  return answer;
}

// Commands "old new name"; the first gets the capabilities. Lines of a shallow client go before them.
inline std::string receiveCommands(const std::vector<std::string>& lines,
                                   const std::string& capabilities) {
  std::string body;
  bool first = true;
  for (const std::string& line : lines) {
    const bool command = line.rfind("shallow ", 0) != 0;
    appendPkt(body, command && first ? line + std::string(1, '\0') + capabilities : line);
    if (command) first = false;
  }
  appendFlush(body);
  return body;
}

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

  static std::string commands(const std::vector<std::string>& lines,
                              const std::string& capabilities = kUsual) {
    return receiveCommands(lines, capabilities);
  }

  std::string serve(const std::string& body, size_t piece = SIZE_MAX) {
    StringInput in(body, piece);
    StringOutput out;
    loop_.wait(session()->serve(in, out));
    return out.text;
  }

  Answer push(const std::string& body, size_t piece = SIZE_MAX) {
    return parseAnswer(serve(body, piece));
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
