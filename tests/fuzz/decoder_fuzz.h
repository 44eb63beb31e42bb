// What fuzzers of decoders share: a decoder may refuse with a KJ exception and nothing else, and what it
// accepts must hold.
#pragma once

#include <kj/exception.h>

#include <cstdlib>
#include <optional>
#include <string_view>

namespace packmoor::fuzz {

// nullopt: it threw.
template <typename Func>
auto attempt(Func func) -> std::optional<decltype(func())> {
  std::optional<decltype(func())> value;
  kj::runCatchingExceptions([&]() { value = func(); });
  return value;
}

// The part of `rest` before `end`, which both are taken off it.
inline std::string_view cutAt(std::string_view& rest, std::string_view end) {
  const size_t at = rest.find(end) == rest.npos ? rest.size() : rest.find(end);
  const std::string_view part = rest.substr(0, at);
  rest.remove_prefix(at + end.size() < rest.size() ? at + end.size() : rest.size());
  return part;
}

inline void require(bool holds) {
  if (!holds) abort();
}

}  // namespace packmoor::fuzz
