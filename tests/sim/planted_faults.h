// The planted faults by name, with what each one leaves out and within how many seeds it must be
// found (README.md has the same table in words; `packmoor-sim --faults` prints it).
#pragma once

#include "planted_fault.h"

#include <cstdint>
#include <string>
#include <vector>

namespace packmoor::replicator {

struct PlantedFaultInfo {
  const char* name;
  PlantedFault fault;      // kNone: of the simulator's state machine or coordinator
  uint64_t seedsMax;       // found within so many, from seed 1; 0: by a scenario only
  const char* what;
  const char* scenario = nullptr;  // that finds it, too: of tests/scenarios
};

const std::vector<PlantedFaultInfo>& plantedFaults();
const PlantedFaultInfo* findPlantedFault(const std::string& name);

}  // namespace packmoor::replicator
