#include "git_url.h"

#include <optional>

namespace packmoor::rpc {
namespace {

using gitlayer::GitService;

constexpr size_t kUrlBytesMax = 4096;
constexpr std::string_view kUploadPack = "git-upload-pack", kReceivePack = "git-receive-pack";

int hexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> decode(std::string_view text, bool query) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      int high = hexValue(text[i + 1]), low = hexValue(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (query && c == '+') {
      c = ' ';
    }
    decoded += c;
  }
  return decoded;
}

// The value of a query's parameter; nullopt when absent or not decodable.
std::optional<std::string> parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    size_t end = query.find('&');
    std::string_view pair = query.substr(0, end);
    size_t equals = pair.find('=');
    if (pair.substr(0, equals) == name) {
      return decode(equals == std::string_view::npos ? "" : pair.substr(equals + 1), true);
    }
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return std::nullopt;
}

bool cutSuffix(std::string& text, std::string_view suffix) {
  if (text.size() <= suffix.size() ||
      text.compare(text.size() - suffix.size(), suffix.size(), suffix) != 0) {
    return false;
  }
  text.resize(text.size() - suffix.size());
  return true;
}

GitUrl bad(std::string problem) {
  GitUrl url;
  url.target = GitTarget::kBad;
  url.problem = std::move(problem);
  return url;
}

// A sentence when the path, without its first '/', is not a list of plain parts.
std::string pathProblem(std::string_view path) {
  for (char c : path) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '\\') {
      return "The path of the URL holds a control character or a backslash.";
    }
  }
  while (!path.empty()) {
    size_t end = path.find('/');
    std::string_view part = path.substr(0, end);
    if (part.empty() || part == "." || part == "..") {
      return "The path of the URL must not have an empty, \".\" or \"..\" part.";
    }
    if (end == std::string_view::npos) break;
    path.remove_prefix(end + 1);
    if (path.empty()) return "The path of the URL must not end in '/'.";
  }
  return "";
}

bool isDumb(std::string_view path) {
  return path.ends_with("/HEAD") || path.find("/objects/") != std::string_view::npos;
}

}  // namespace

GitUrl parseGitUrl(std::string_view text) {
  if (text.size() > kUrlBytesMax) return bad("The URL is longer than 4096 bytes.");
  size_t question = text.find('?');
  std::string_view query;
  if (question != std::string_view::npos) {
    query = text.substr(question + 1);
    text = text.substr(0, question);
  }
  if (text.empty() || text[0] != '/') return bad("The URL's path must start with '/'.");
  auto decoded = decode(text.substr(1), false);
  if (!decoded) return bad("The URL's percent-encoding is broken.");
  GitUrl url;
  if (decoded->empty()) {
    url.target = GitTarget::kRoot;
    return url;
  }
  std::string problem = pathProblem(*decoded);
  if (!problem.empty()) return bad(std::move(problem));
  if (*decoded == "health") {
    url.target = GitTarget::kHealth;
  } else if (cutSuffix(*decoded, "/info/refs")) {
    url.repository = std::move(*decoded);
    auto service = parameter(query, "service");
    if (!service) {
      url.target = GitTarget::kDumb;
    } else if (*service == kUploadPack || *service == kReceivePack) {
      url.target = GitTarget::kInfoRefs;
      url.service = *service == kUploadPack ? GitService::kUploadPack : GitService::kReceivePack;
    } else {
      return bad("The service must be git-upload-pack or git-receive-pack.");
    }
  } else if (cutSuffix(*decoded, "/git-upload-pack")) {
    url.target = GitTarget::kService;
    url.repository = std::move(*decoded);
  } else if (cutSuffix(*decoded, "/git-receive-pack")) {
    url.target = GitTarget::kService;
    url.service = GitService::kReceivePack;
    url.repository = std::move(*decoded);
  } else if (isDumb(*decoded)) {
    url.target = GitTarget::kDumb;
  }
  return url;
}

}  // namespace packmoor::rpc
