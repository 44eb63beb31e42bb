#include "rpc/ssh_keys.h"

#include <algorithm>

namespace packmoor::rpc {
namespace {

constexpr size_t kUserBytesMax = 64;

std::string_view takeWord(std::string_view& line) {
  constexpr std::string_view kBlanks = " \t\r";
  line.remove_prefix(std::min(line.find_first_not_of(kBlanks), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(kBlanks));
  line.remove_prefix(word.size());
  return word;
}

bool isKeyType(std::string_view type) {
  return !type.empty() && std::all_of(type.begin(), type.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '@' || c == '.';
  });
}

bool isBase64(std::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '=';
  });
}

// A word for the shell that sshd starts, within an option in double quotes. There, \" is the only escape.
std::string quoted(std::string_view text) {
  std::string result = "'";
  for (char c : text) {
    if (c == '\'') {
      result += "'\\''";
    } else if (c == '"') {
      result += "\\\"";
    } else {
      result.push_back(c);
    }
  }
  return result + "'";
}

}  // namespace

bool isSshUser(std::string_view name) {
  if (name.empty() || name.size() > kUserBytesMax || name.front() == '-') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '@' || c == '-';
  });
}

SshKeyMatch findSshKey(std::string_view file, std::string_view type, std::string_view key) {
  SshKeyMatch match;
  for (size_t number = 1; !file.empty(); ++number) {
    std::string_view line = file.substr(0, file.find('\n'));
    file.remove_prefix(std::min(line.size() + 1, file.size()));
    const std::string_view user = takeWord(line);
    if (user.empty() || user.front() == '#') continue;
    const std::string_view itsType = takeWord(line), itsKey = takeWord(line);
    if (!isSshUser(user) || !isKeyType(itsType) || !isBase64(itsKey)) {
      match.problems.push_back("Line " + std::to_string(number) +
                               " is not USER TYPE KEY [COMMENT], and is skipped.");
    } else if (itsType == type && itsKey == key) {
      match.users.emplace_back(user);
    }
  }
  return match;
}

std::string authorizedKeyLine(std::string_view program, std::string_view socket, std::string_view user,
                              std::string_view type, std::string_view key) {
  std::string line = "restrict,command=\"" + quoted(program) + " --socket " + quoted(socket) +
                     " --user " + quoted(user) + "\" ";
  line.append(type).append(" ").append(key).append("\n");
  return line;
}

}  // namespace packmoor::rpc
