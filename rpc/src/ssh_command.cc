#include "rpc/ssh_command.h"

namespace packmoor::rpc {
namespace {

using gitlayer::GitService;

constexpr size_t kCommandBytesMax = 8u << 10;

// One word of a shell's command line, as git's sq_quote writes it. False: it is not.
bool takeWord(std::string_view& text, std::string& word) {
  bool quoted = false;
  while (!text.empty()) {
    const char c = text.front();
    if (!quoted && c == ' ') break;
    text.remove_prefix(1);
    if (c == '\'') {
      quoted = !quoted;
    } else if (!quoted && c == '\\') {
      if (text.empty()) return false;
      word.push_back(text.front());
      text.remove_prefix(1);
    } else {
      word.push_back(c);
    }
  }
  return !quoted;
}

void skipSpaces(std::string_view& text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
}

// For a person: no control characters, and not without end.
std::string shown(std::string_view text) {
  std::string result(text.substr(0, 60));
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  }
  return result;
}

}  // namespace

SshCommand parseSshCommand(std::string_view text) {
  SshCommand command;
  if (text.size() > kCommandBytesMax) {
    command.problem = "The command is too long.";
    return command;
  }
  const std::string_view whole = text;
  std::string name, path;
  skipSpaces(text);
  bool good = takeWord(text, name);
  if (good && name == "git") {
    skipSpaces(text);
    std::string verb;
    good = takeWord(text, verb);
    name += "-" + verb;
  }
  if (name == "git-receive-pack") {
    command.service = GitService::kReceivePack;
  } else if (name == "git-upload-archive") {
    command.service = GitService::kUploadArchive;
  } else if (name != "git-upload-pack") {
    command.problem = "This account is for git only: it does not run \"" + shown(whole) + "\".";
    return command;
  }
  skipSpaces(text);
  good = good && takeWord(text, path);
  skipSpaces(text);
  if (!good || path.empty() || !text.empty()) {
    command.problem = "The command \"" + shown(whole) + "\" does not name one repository.";
    return command;
  }
  command.repository = std::move(path);
  return command;
}

uint32_t gitProtocolVersion(std::string_view text) {
  uint32_t version = 0;
  while (!text.empty()) {
    const size_t end = text.find(':');
    const std::string_view part = text.substr(0, end);
    if (part == "version=1" && version < 1) version = 1;
    if (part == "version=2") version = 2;
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return version;
}

}  // namespace packmoor::rpc
