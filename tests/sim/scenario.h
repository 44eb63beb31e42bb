// Scenarios: scripts that read as prose (tests/scenarios/*.txt). README.md has the sentences.
#pragma once

#include "sim_run.h"

namespace packmoor::replicator {

// Runs the script that the options name. A finding says which line does not hold and why; it begins with
// kNoProgress when nothing was wrong but that nothing went on.
SimRunResult runScenario(const SimRunOptions& options);

// The same, and prints it. 0: everything was as expected.
int runScenarioFile(const SimRunOptions& options);

}  // namespace packmoor::replicator
