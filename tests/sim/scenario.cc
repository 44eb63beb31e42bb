#include "scenario.h"
namespace packmoor::replicator {
int runScenarioFile(const std::string& path, bool trace) { return 2; }
}
