#include "kernelio/check.h"

#include <cstdio>
#include <cstdlib>

namespace packmoor::kernelio {

void checkFailed(const char* file, int line, const char* condition,
                 kj::StringPtr details) noexcept {
  std::fprintf(stderr, "packmoor: invariant broken at %s:%d: %s: %s\n", file, line, condition,
               details.cStr());
  std::fflush(stderr);
  std::abort();
}

}  // namespace packmoor::kernelio
