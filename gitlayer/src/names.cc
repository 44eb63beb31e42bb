// Checks of repository and ref names (git check-ref-format(1)).
#include "gitlayer/repository.h"

#include <kj/string.h>

namespace packmoor::gitlayer {

namespace {

bool startsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}
bool endsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

// Calls back with each part between '/'; stops at the first false and returns it.
template <typename F>
bool allParts(std::string_view text, F good) {
  for (;;) {
    const size_t slash = text.find('/');
    if (!good(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

bool isRepositoryCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

// Rule 4 of git check-ref-format and the characters of rules 5, 8 and 10 that no name may have.
bool isRefCharacter(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (byte <= 0x20 || byte == 0x7f) return false;
  return std::string_view("~^:?*[\\").find(c) == std::string_view::npos;
}

bool isRefPart(std::string_view part) {
  return !part.empty() && part.front() != '.' && !endsWith(part, ".lock");
}

}  // namespace

std::optional<std::string> repositoryNameProblem(std::string_view name) {
  if (name.empty()) return "the repository name is empty";
  if (name.size() > kRepositoryNameBytesMax) {
    return kj::str("the repository name is longer than ", kRepositoryNameBytesMax, " bytes")
        .cStr();
  }
  for (char c : name) {
    if (c != '/' && !isRepositoryCharacter(c)) {
      return "the repository name has a character that is not a letter, a digit, '.', '_', '-' "
             "or '/'";
    }
  }
  std::optional<std::string> problem;
  allParts(name, [&](std::string_view part) {
    if (part.empty()) {
      problem = "the repository name has an empty part (a '/' too many)";
    } else if (part.front() == '.') {
      problem = "a part of the repository name starts with '.'";
    } else if (endsWith(part, ".lock")) {
      problem = "a part of the repository name ends in \".lock\"";
    } else if (endsWith(part, ".git")) {
      problem = "a part of the repository name ends in \".git\"";
    }
    return !problem.has_value();
  });
  return problem;
}

bool isValidRefName(std::string_view name, bool allowHead) {
  if (allowHead && name == "HEAD") return true;
  if (name.size() > kRefNameBytesMax || !startsWith(name, "refs/")) return false;
  if (name.back() == '.') return false;
  if (name.find("..") != std::string_view::npos) return false;
  if (name.find("@{") != std::string_view::npos) return false;
  for (char c : name) {
    if (!isRefCharacter(c)) return false;
  }
  return allParts(name, isRefPart);
}

}  // namespace packmoor::gitlayer
