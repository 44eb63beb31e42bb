#include "describe.h"

#include <cstring>

namespace packmoor::rpc {
namespace {

// What follows the last `marker`, or the whole text.
std::string afterLast(const std::string& text, const char* marker) {
  const auto found = text.rfind(marker);
  return found == std::string::npos ? text : text.substr(found + strlen(marker));
}

}  // namespace

std::string describeCause(const kj::Exception& exception) {
  std::string text(kj::str(exception.getDescription()).cStr());
  const auto tls = text.rfind("error:");
  if (tls != std::string::npos) {
    text = afterLast(text.substr(tls), ":");
  } else if (text.find("; reason = ") != std::string::npos) {
    text = afterLast(text, "; reason = ");
  } else {
    text = afterLast(text, "): ");
  }
  while (!text.empty() && (text.back() == '.' || text.back() == '\n')) text.pop_back();
  return text;
}

}  // namespace packmoor::rpc
