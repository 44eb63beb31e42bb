#include "rpc/sentence.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace packmoor::rpc {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  size_t start = 0;
  while (start <= text.size()) {
    size_t end = std::min(text.find("; ", start), text.size());
    parts.push_back(text.substr(start, end - start));
    start = end + 2;
  }
  return parts;
}

// "record.name.c_str()" is "name"; empty when nothing of it is a name.
std::string shortName(std::string name) {
  for (const char* noise : {".c_str()", ".cStr()", "()"}) {
    std::string_view end = noise;
    if (name.size() > end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0) {
      name.resize(name.size() - end.size());
    }
  }
  size_t cut = name.find_last_of(".>:( ");
  if (cut != std::string::npos) name.erase(0, cut + 1);
  while (!name.empty() && name.back() == '_') name.pop_back();
  return name;
}

bool isExpression(const std::string& text) {
  return !text.empty() && text.find_first_of(" ,") == std::string::npos;
}

}  // namespace

std::string sentenceOf(std::string text) {
  text.erase(std::min({text.find("\nstack: "), text.find(" stack: "), text.size()}));
  std::vector<std::string> parts = split(text);
  if (parts.size() > 1 && parts.front().rfind("expected ", 0) == 0) parts.erase(parts.begin());
  std::string result;
  for (const std::string& part : parts) {
    size_t equals = part.find(" = ");
    bool value = !result.empty() && equals != std::string::npos &&
                 isExpression(part.substr(0, equals));
    if (!value) {
      result += (result.empty() ? "" : "; ") + part;
      continue;
    }
    std::string name = shortName(part.substr(0, equals)), content = part.substr(equals + 3);
    if (name == "reason" || name == "reasons" || name == "getDescription" || name.empty()) {
      result += ": " + content;
    } else {
      result += " (" + name + ": " + content + ")";
    }
  }
  if (!result.empty()) {
    result[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(result[0])));
    if (result.back() != '.' && result.back() != '!' && result.back() != '?') result += '.';
  }
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return result;
}

std::string sentenceOf(const kj::Exception& exception) {
  return sentenceOf(std::string(exception.getDescription().cStr()));
}

}  // namespace packmoor::rpc
