// What a pushing client asks for: the packets before the pack.
//
// Per packet "<old> <new> <ref>", the first with NUL and the client's capabilities behind, and from a
// shallow clone "shallow <commit>" for each commit whose parents it does not have
// (gitprotocol-pack(5), "Reference Update Request"). The parser takes any bytes; what the client
// may not ask for at all ends the request with a sentence, what is wrong with one command is
// kept with that command and reported for it (receive_policy.h).
#pragma once

#include "gitlayer/git_node.h"

#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

struct ReceiveCommand {
  RefUpdate update;
  std::string problem;   // the reason of the report's "ng"; empty: none so far
  std::string detail;    // more, for the person at the terminal; may be empty
  std::string warning;   // likewise, of what is done all the same
  bool isDelete() const { return update.newId.isZero(); }
};

struct ReceiveCapabilities {
  bool reportStatus = false;  // of either version: without hooks both say the same
  bool sideBand = false, quiet = false, atomic = false, pushOptions = false;
  std::string session;        // the client's session-id, fit for a log; may be empty
};

class ReceiveCommands {
 public:
  explicit ReceiveCommands(uint32_t commandsMax) : commandsMax_(commandsMax) {}

  // False: the request is refused, see refusal(). `line` is a packet without its newline.
  bool add(std::string_view line);
  // An option of git push -o. False as in add().
  bool addPushOption(std::string_view option);

  const ReceiveCapabilities& capabilities() const { return capabilities_; }
  std::vector<ReceiveCommand>& commands() { return commands_; }
  // Commits whose parents the client does not have.
  const std::vector<ObjectId>& shallow() const { return shallow_; }
  std::vector<std::string>& pushOptions() { return pushOptions_; }
  bool empty() const { return commands_.empty(); }
  bool wantsPack() const;
  const std::string& refusal() const { return refusal_; }

 private:
  bool refuse(std::string sentence);
  bool parseCapabilities(std::string_view text);
  bool addShallow(std::string_view hex);

  uint32_t commandsMax_;
  size_t nameBytes_ = 0;   // of all names
  bool first_ = true;
  ReceiveCapabilities capabilities_;
  std::vector<ReceiveCommand> commands_;
  std::vector<ObjectId> shallow_;
  std::vector<std::string> pushOptions_;
  std::string refusal_;
};

// What a client sent, made fit for a terminal and cut to a modest length.
std::string shownText(std::string_view text);

constexpr size_t kPushOptionsMax = 64;
constexpr size_t kPushOptionBytesMax = 1024;
constexpr size_t kPushShallowMax = 100'000;

}  // namespace packmoor::gitlayer
