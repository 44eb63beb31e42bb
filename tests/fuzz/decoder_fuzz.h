// What fuzzers of decoders share: a decoder may refuse with a KJ exception and nothing else, and what it
// accepts must hold.
#pragma once

#include <kj/exception.h>

#include <cstdlib>
#include <optional>

namespace packmoor::fuzz {

// nullopt: it threw.
template <typename Func>
auto attempt(Func func) -> std::optional<decltype(func())> {
  std::optional<decltype(func())> value;
  kj::runCatchingExceptions([&]() { value = func(); });
  return value;
}

inline void require(bool holds) {
  if (!holds) abort();
}

}  // namespace packmoor::fuzz
