// Scenarios: scripts that read as prose (tests/scenarios/*.txt). README.md has the sentences.
#pragma once

#include <string>

namespace packmoor::replicator {

// Runs a script; prints the line that fails and why. 0: everything was as expected.
int runScenarioFile(const std::string& path, bool trace);

}  // namespace packmoor::replicator
