#include "receive_commands.h"

#include "gitlayer/agent.h"

namespace packmoor::gitlayer {

namespace {

// What the names of a push's refs may take together: so much, and so much for each that there may be.
constexpr size_t kNameBytesFloor = 1u << 20, kNameBytesEach = 256;

bool startsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

}  // namespace

std::string shownText(std::string_view text) {
  constexpr size_t kShownMax = 200;
  std::string result;
  for (char c : text.substr(0, kShownMax)) {
    result.push_back(c >= 0x20 && c < 0x7f ? c : '?');
  }
  if (text.size() > kShownMax) result += "...";
  return result;
}

bool ReceiveCommands::refuse(std::string sentence) {
  refusal_ = std::move(sentence);
  return false;
}

bool ReceiveCommands::parseCapabilities(std::string_view text) {
  while (!text.empty()) {
    size_t space = text.find(' ');
    std::string_view word = text.substr(0, space);
    text.remove_prefix(space == std::string_view::npos ? text.size() : space + 1);
    if (word == "report-status" || word == "report-status-v2") {
      capabilities_.reportStatus = true;
    } else if (word == "side-band-64k") {
      capabilities_.sideBand = true;
    } else if (word == "quiet") {
      capabilities_.quiet = true;
    } else if (word == "atomic") {
      capabilities_.atomic = true;
    } else if (word == "push-options") {
      capabilities_.pushOptions = true;
    } else if (startsWith(word, "session-id=")) {
      capabilities_.session = shownSession(word.substr(word.find('=') + 1));
    } else if (startsWith(word, "object-format=") && word != "object-format=sha1") {
      return refuse("this repository's object format is sha1; " + shownText(word) +
                    " was asked for");
    }
  }
  return true;
}

bool ReceiveCommands::addShallow(std::string_view hex) {
  ObjectId id;
  if (!ObjectId::parseHex(hex, id)) {
    return refuse("protocol error: expected shallow sha, got '" + shownText(hex) + "'");
  }
  if (shallow_.size() == kPushShallowMax) {
    return refuse("a push may name at most " + std::to_string(kPushShallowMax) +
                  " shallow commits");
  }
  shallow_.push_back(id);
  return true;
}

bool ReceiveCommands::add(std::string_view line) {
  constexpr std::string_view kShallow = "shallow ";
  if (startsWith(line, kShallow)) return addShallow(line.substr(kShallow.size()));
  if (first_) {
    size_t nul = line.find('\0');
    if (nul != std::string_view::npos) {
      if (!parseCapabilities(line.substr(nul + 1))) return false;
      line = line.substr(0, nul);
    }
    first_ = false;
  }
  if (line == "push-cert" || startsWith(line, "push-cert ")) {
    return refuse("signed pushes are not supported here");
  }
  if (commands_.size() == commandsMax_) {
    return refuse("a push may change at most " + std::to_string(commandsMax_) +
                  " refs here (git.commands_max, or maxCommands of the repository)");
  }
  constexpr size_t kNameAt = 2 * (kOidHexChars + 1);
  ReceiveCommand command;
  if (line.size() <= kNameAt || line[kOidHexChars] != ' ' || line[kNameAt - 1] != ' ' ||
      !ObjectId::parseHex(line.substr(0, kOidHexChars), command.update.oldId) ||
      !ObjectId::parseHex(line.substr(kOidHexChars + 1, kOidHexChars), command.update.newId)) {
    return refuse("protocol error: expected old/new/ref, got '" + shownText(line) + "'");
  }
  command.update.name = line.substr(kNameAt);
  // Names that are too long are refused one by one, as long as they are few.
  nameBytes_ += command.update.name.size();
  if (nameBytes_ > kNameBytesFloor + size_t{commandsMax_} * kNameBytesEach) {
    return refuse("the names of a push's refs are longer than " + std::to_string(kNameBytesEach) +
                  " bytes on average");
  }
  commands_.push_back(std::move(command));
  return true;
}

bool ReceiveCommands::addPushOption(std::string_view option) {
  if (pushOptions_.size() == kPushOptionsMax || option.size() > kPushOptionBytesMax) {
    return refuse("a push may have at most " + std::to_string(kPushOptionsMax) +
                  " options of at most " + std::to_string(kPushOptionBytesMax) + " bytes");
  }
  pushOptions_.emplace_back(option);
  return true;
}

bool ReceiveCommands::wantsPack() const {
  for (const auto& command : commands_) {
    if (!command.isDelete()) return true;
  }
  return false;
}

}  // namespace packmoor::gitlayer
