// What the simulation's checks find is a failure of the test.
#include "sim_cluster.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {

void simFailed(const std::string& finding) { ADD_FAILURE() << finding; }

}  // namespace packmoor::replicator
