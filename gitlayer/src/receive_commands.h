// What a pushing client asks for: the packets before the pack.
//
// Per packet "<old> <new> <ref>", the first with NUL and the client's capabilities behind
// (gitprotocol-pack(5), "Reference Update Request"). The parser takes any bytes; what the client
// may not ask for at all ends the request with a sentence, what is wrong with one command is
// kept with that command and reported for it.
#pragma once

#include "gitlayer/git_node.h"

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace packmoor::gitlayer {

struct ReceiveCommand {
  RefUpdate update;
  std::string problem;   // the reason of the report's "ng"; empty: none so far
  std::string detail;    // more, for the person at the terminal; may be empty
  bool settled = false;  // reported as done without being ordered
  bool isDelete() const { return update.newId.isZero(); }
};

struct ReceiveCapabilities {
  bool reportStatus = false, sideBand = false, quiet = false, atomic = false, pushOptions = false;
};

class ReceiveCommands {
 public:
  explicit ReceiveCommands(uint32_t commandsMax) : commandsMax_(commandsMax) {}

  // False: the request is refused, see refusal(). `line` is a packet without its newline.
  bool add(std::string_view line);
  // After the flush. Marks what is wrong with single commands; `head` is the branch that HEAD names,
  // which may not be deleted (git's receive.denyDeleteCurrent).
  void finish(std::string_view head);
  // An option of git push -o. False as in add().
  bool addPushOption(std::string_view option);

  const ReceiveCapabilities& capabilities() const { return capabilities_; }
  std::vector<ReceiveCommand>& commands() { return commands_; }
  std::vector<std::string>& pushOptions() { return pushOptions_; }
  bool empty() const { return commands_.empty(); }
  bool wantsPack() const;
  const std::string& refusal() const { return refusal_; }

 private:
  bool refuse(std::string sentence);
  bool parseCapabilities(std::string_view text);

  uint32_t commandsMax_;
  bool first_ = true;
  ReceiveCapabilities capabilities_;
  std::vector<ReceiveCommand> commands_;
  std::vector<std::string> pushOptions_;
  std::string refusal_;
};

constexpr size_t kPushOptionsMax = 64;
constexpr size_t kPushOptionBytesMax = 1024;

}  // namespace packmoor::gitlayer
