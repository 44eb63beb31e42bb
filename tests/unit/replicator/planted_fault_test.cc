// Goal: no planted fault can be switched on in what is shipped. Method: this program is built with the
// replicator as it is shipped, where planted() is a constant.
#include "planted_fault.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

constexpr bool anyPlanted() {
  for (uint8_t i = 0; i <= static_cast<uint8_t>(PlantedFault::kTransactionNotVoided); ++i) {
    if (planted(static_cast<PlantedFault>(i))) return true;
  }
  return false;
}
static_assert(!anyPlanted());

TEST(PlantedFaultTest, NoneIsInTheReplicatorThatIsShipped) { EXPECT_FALSE(anyPlanted()); }

}  // namespace
}  // namespace packmoor::replicator
