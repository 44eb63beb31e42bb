// packmoor-sim: runs the replicator's simulator. See README.md, or --help.
#include "planted_faults.h"
#include "scenario.h"
#include "seed_pool.h"
#include "sim_cluster.h"

#include <CLI/CLI.hpp>
#include <kj/debug.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <map>
#include <random>
#include <set>

namespace packmoor::replicator {

void simFailed(const std::string& finding) { throw std::runtime_error(finding); }

namespace {

struct Arguments {
  uint64_t seeds = 1, seed = 1;
  unsigned jobs = 1;
  uint64_t random = 0;
  bool safetyOnly = false;
  bool trace = false, hashes = false, faults = false, determinism = false;
  std::string fault;
  std::vector<std::string> scenarios;
};

double secondsSince(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

std::string replay(uint64_t seed, const std::string& fault) {
  return "tools/dev sim --seed " + std::to_string(seed) +
         (fault.empty() ? "" : " --fault " + fault) + " --trace";
}

SimRunOptions optionsFor(const std::string& fault) {
  SimRunOptions options;
  if (fault.empty()) return options;
  const PlantedFaultInfo* info = findPlantedFault(fault);
  if (info == nullptr) throw std::runtime_error("There is no planted fault \"" + fault + "\".");
  plantedFault = info->fault;
  options.expireEarly = fault == "expire-early";
  options.unnoticedRestore = fault == "coordinator-restored";
  return options;
}

void printLine(const std::string& line) { std::printf("%s\n", line.c_str()); }

// One seed in this process, told in words.
int tellOne(const Arguments& arguments) {
  SimRunOptions options = optionsFor(arguments.fault);
  options.seed = arguments.seed;
  options.story = printLine;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const SimRunResult result = simRun(options);
  std::printf("seed %" PRIu64 ": %s\n", arguments.seed, result.setting.c_str());
  std::printf("%" PRIu64 " acknowledged, %" PRIu64 " unknown, %" PRIu64 " rejected, %" PRIu64
              " reads, %" PRIu64 " records, %" PRIu64 " epochs, %" PRIu64 " messages, %" PRId64
              " ms, trace %016" PRIx64 "\n",
              result.acknowledged, result.unknown, result.rejected, result.reads, result.records,
              result.epochs, result.messages, result.virtualMs, result.trace);
  for (const std::string& finding : result.findings) std::printf("FOUND: %s\n", finding.c_str());
  return result.findings.empty() ? 0 : 1;
}

int runSeeds(const Arguments& arguments) {
  SeedSearch search;
  search.first = arguments.seed;
  search.count = arguments.seeds;
  search.jobs = arguments.jobs;
  search.safetyOnly = arguments.safetyOnly;
  search.options = optionsFor(arguments.fault);
  SeedOutcome sum;
  uint64_t runs = 0, told = 0;
  const auto since = std::chrono::steady_clock::now();
  const uint64_t findings = searchSeeds(search, [&](const SeedOutcome& outcome) {
    ++runs;
    sum.trace ^= outcome.trace;
    sum.acknowledged += outcome.acknowledged;
    sum.unknown += outcome.unknown;
    sum.reads += outcome.reads;
    sum.epochs += outcome.epochs;
    sum.virtualMs += outcome.virtualMs;
    if (arguments.hashes) {
      std::printf("seed %" PRIu64 " trace %016" PRIx64 "\n", outcome.seed, outcome.trace);
    }
    if (outcome.found && ++told <= 20) {
      std::printf("FAILED seed %" PRIu64 ": %s\n    %s\n", outcome.seed, outcome.finding,
                  replay(outcome.seed, arguments.fault).c_str());
      std::fflush(stdout);
    }
  });
  const double seconds = secondsSince(since);
  std::printf("%" PRIu64 " seeds from %" PRIu64 " in %.1f s (%.1f a second): %" PRIu64
              " acknowledged, %" PRIu64 " unknown, %" PRIu64 " reads, %" PRIu64 " epochs, %" PRId64
              " s of virtual time. %" PRIu64 " failed.\n",
              runs, arguments.seed, seconds, static_cast<double>(runs) / seconds, sum.acknowledged,
              sum.unknown, sum.reads, sum.epochs, sum.virtualMs / 1000, findings);
  return findings == 0 ? 0 : 1;
}

// Invariant 12. The second time in this process and backwards, so that what ran before must not matter.
int runTwice(const Arguments& arguments) {
  SeedSearch search;
  search.first = arguments.seed;
  search.count = arguments.seeds;
  search.jobs = arguments.jobs;
  search.options = optionsFor(arguments.fault);
  std::map<uint64_t, uint64_t> traces;
  searchSeeds(search, [&](const SeedOutcome& outcome) { traces[outcome.seed] = outcome.trace; });
  std::set<uint64_t> different;
  int differing = 0;
  for (auto it = traces.rbegin(); it != traces.rend(); ++it) {
    SimRunOptions options = search.options;
    options.seed = it->first;
    const uint64_t again = simRun(options).trace;
    different.insert(again);
    if (again == it->second) continue;
    ++differing;
    std::printf("FAILED seed %" PRIu64 ": trace %016" PRIx64 ", then %016" PRIx64 "\n", it->first,
                it->second, again);
  }
  std::printf("%zu seeds twice, %zu different traces, %d not the same again\n", traces.size(),
              different.size(), differing);
  return differing == 0 && different.size() == traces.size() ? 0 : 1;
}

// Empty: not found. A run that merely gets stuck does not count.
std::string firstFinding(const Arguments& arguments, SeedSearch search) {
  search.jobs = arguments.jobs;
  search.stopAtFinding = search.safetyOnly = true;
  SeedOutcome first;
  searchSeeds(search, [&](const SeedOutcome& outcome) {
    if (outcome.found && (!first.found || outcome.seed < first.seed)) first = outcome;
  });
  if (!first.found) return {};
  return std::to_string(first.seed - search.first + 1) + ": " + first.finding;
}

// Each planted fault, until it is found: by its scenario, and within its number of seeds.
int runFaults(const Arguments& arguments) {
  int missed = 0;
  const auto since = std::chrono::steady_clock::now();
  auto tell = [&](const PlantedFaultInfo& info, const std::string& by, const std::string& found) {
    if (found.empty()) {
      std::printf("MISSED  %-22s %s: %s\n", info.name, by.c_str(), info.what);
      ++missed;
    } else {
      std::printf("found   %-22s %s, %s\n", info.name, by.c_str(), found.c_str());
    }
    std::fflush(stdout);
  };
  for (const PlantedFaultInfo& info : plantedFaults()) {
    if (!arguments.fault.empty() && arguments.fault != info.name) continue;
    SeedSearch search;
    search.options = optionsFor(info.name);
    if (info.scenario != nullptr) {
      SeedSearch script = search;
      script.options.scenario = std::string(PACKMOOR_SCENARIOS "/") + info.scenario + ".txt";
      const std::string found = firstFinding(arguments, script);
      tell(info, std::string("by ") + info.scenario, found.substr(found.find(' ') + 1));
    }
    if (info.seedsMax == 0) continue;
    search.first = arguments.seed;
    search.count = info.seedsMax;
    tell(info, "in " + std::to_string(info.seedsMax) + " seeds", firstFinding(arguments, search));
  }
  std::printf("%d missed, %.1f s\n", missed, secondsSince(since));
  return missed == 0 ? 0 : 1;
}

int runMain(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Runs whole volumes of the replicator under simulated faults; a seed is a run.");
  app.add_option("--seeds", arguments.seeds, "how many seeds");
  app.add_option("--seed", arguments.seed, "the first seed");
  app.add_option("--jobs", arguments.jobs, "processes")->check(CLI::Range(1, 256));
  app.add_option("--random", arguments.random, "so many seeds more, from a random one");
  app.add_option("--scenario", arguments.scenarios, "runs scripts of tests/scenarios instead");
  app.add_option("--fault", arguments.fault, "plants a fault by its name");
  app.add_flag("--faults", arguments.faults,
               "plants each fault in turn, and shows that it is found within its number of seeds");
  app.add_flag("--determinism", arguments.determinism,
               "runs the seeds twice and compares their trace hashes");
  app.add_flag("--trace", arguments.trace, "tells what happens in one seed or scenario");
  app.add_flag("--safety-only", arguments.safetyOnly, "a run without progress is not a failure");
  app.add_flag("--hashes", arguments.hashes, "prints each seed's trace hash");
  CLI11_PARSE(app, argc, argv);
  kj::_::Debug::setLogLevel(kj::LogSeverity::FATAL);
  if (!arguments.scenarios.empty()) {
    SimRunOptions options = optionsFor(arguments.fault);
    if (arguments.trace) options.story = printLine;
    int code = 0;
    for (const std::string& path : arguments.scenarios) {
      options.scenario = path;
      code = std::max(code, runScenarioFile(options));
    }
    return code;
  }
  if (arguments.faults) return runFaults(arguments);
  if (arguments.determinism) return runTwice(arguments);
  if (arguments.trace) return tellOne(arguments);
  int code = arguments.seeds == 0 ? 0 : runSeeds(arguments);
  if (arguments.random > 0) {
    arguments.seed = 1'000'000 + std::random_device()() % 1'000'000'000;
    arguments.seeds = arguments.random;
    code = std::max(code, runSeeds(arguments));
  }
  return code;
}

}  // namespace
}  // namespace packmoor::replicator

int main(int argc, char** argv) {
  try {
    return packmoor::replicator::runMain(argc, argv);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "error: %s\n", exception.what());
    return 2;
  }
}
