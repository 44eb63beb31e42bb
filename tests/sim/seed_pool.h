// Runs seeds in several processes, and survives those that abort.
//
// Why: an invariant that breaks ends the process (PACKMOOR_CHECK), and that must count as a finding of
// its seed and not end the search. Workers are forked; they take the next seed from shared memory and
// write one SeedOutcome for each to a pipe. A worker that dies is replaced.
#pragma once

#include "sim_run.h"

#include <atomic>
#include <functional>
#include <vector>

namespace packmoor::replicator {

struct SeedOutcome {
  uint64_t seed = 0, trace = 0;
  uint64_t acknowledged = 0, unknown = 0, rejected = 0, reads = 0, records = 0, messages = 0;
  uint64_t epochs = 0;
  int64_t virtualMs = 0;
  bool found = false;
  bool died = false;            // by a signal, in a check
  char finding[400] = {};       // the first; of a dead worker, what it said
};

struct SeedSearch {
  uint64_t first = 1, count = 1;
  unsigned jobs = 1;
  bool stopAtFinding = false;
  bool safetyOnly = false;      // a run without progress is not a finding
  SimRunOptions options;        // the seed is set for each
};

// Calls `onOutcome` for each seed, in the order in which they end. Returns the number of findings.
uint64_t searchSeeds(const SeedSearch& search,
                     const std::function<void(const SeedOutcome&)>& onOutcome);

}  // namespace packmoor::replicator
