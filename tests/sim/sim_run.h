// One run of the simulator: everything that happens follows from its seed.
//
// Phase one: clients work while a SimStorm goes over the nodes; nothing that the SimChecker knows may
// be broken. Phase two: a core that is enough by the rules heals and must answer writes and reads
// within a bound of virtual time; then all heal and must become equal.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace packmoor::replicator {

struct SimRunResult {
  uint64_t trace = 0;                   // the same for the same seed and build
  std::vector<std::string> findings;    // empty: clean
  std::string setting;                  // nodes, quorum, weather
  uint64_t acknowledged = 0, unknown = 0, rejected = 0, reads = 0, records = 0, messages = 0;
  uint64_t epochs = 0;
  int64_t virtualMs = 0;
};

struct SimRunOptions {
  uint64_t seed = 1;
  std::string scenario;                 // the path of a script, which is run instead of a seed
  bool expireEarly = false;             // the planted fault of the state machine
  bool unnoticedRestore = false;        // and of the coordinator
  std::function<void(const std::string&)> story;  // told what happens, when set
};

// How a finding begins that says that nothing goes on.
constexpr const char* kNoProgress = "no progress: ";

// Virtual time that the healed core and then the whole cluster are given.
constexpr int64_t kCoreBoundMs = 20'000, kConvergeBoundMs = 20'000;

SimRunResult simRun(const SimRunOptions& options);

}  // namespace packmoor::replicator
