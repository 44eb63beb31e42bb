// PACKMOOR_CHECK: invariants that hold or the process ends.
//
// Why: a broken invariant in a system that acknowledges durability must stop the process in
// release builds too. KJ_ASSERT throws, and an exception can be swallowed on its way up; this
// prints the condition, the place and the given values to standard error and aborts.
// Use it for what only a bug can break; never for bad input or a failing environment.
#pragma once

#include <kj/string.h>

namespace packmoor::kernelio {

// Prints one line and aborts. Never returns; safe on any thread.
[[noreturn]] void checkFailed(const char* file, int line, const char* condition,
                              kj::StringPtr details) noexcept;

}  // namespace packmoor::kernelio

// PACKMOOR_CHECK(condition, "what was being done", value, ...): the values are stringified
// with kj::str only on failure.
#define PACKMOOR_CHECK(condition, ...)                                                   \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      ::packmoor::kernelio::checkFailed(__FILE__, __LINE__, #condition,                  \
                                        ::kj::str("" __VA_OPT__(, ) __VA_ARGS__));       \
    }                                                                                    \
  } while (false)
