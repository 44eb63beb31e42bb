// Breadth-first search of the protocol model: visits every reachable state within the
// bounds of a run, prints the shortest trace to a broken property, and compares the
// outcome with what the table below expects. A planted fault that is not caught is an
// error, as is a broken property without a fault.
//
// States are kept as 64-bit fingerprints, least over the node permutations that map the
// run's configurations onto themselves. Two states that collide would hide one of them:
// with 10^8 states the chance is about 3 in 10^4.
//
//   checker              every default run, two at a time
//   checker all          the default runs and the large ones
//   checker NAME...      the named runs, with traces in full
//   checker list         names
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>

#include "protocol_model.h"
#include "runs.h"

namespace packmoor::model {
namespace {

struct Symmetry { uint8_t node[kNodesMax]; uint8_t config[16]; };

std::vector<Symmetry> symmetries(const Scenario& sc) {
  std::vector<Symmetry> found;
  std::vector<int> order(sc.nodes);
  std::iota(order.begin(), order.end(), 0);
  do {
    Symmetry p{};
    bool fits = true;
    for (int n = 0; n < kNodesMax; ++n) p.node[n] = n < sc.nodes ? order[n] : n;
    for (int n = 0; n < sc.nodes; ++n)
      fits &= (sc.frozen >> n & 1) == (sc.frozen >> order[n] & 1) &&
              (sc.async >> n & 1) == (sc.async >> order[n] & 1);
    for (size_t c = 0; c < sc.configs.size(); ++c) {
      int mask = 0;
      for (int n = 0; n < sc.nodes; ++n)
        if (sc.configs[c].members >> n & 1) mask |= 1 << order[n];
      size_t d = 0;
      while (d < sc.configs.size() && !(sc.configs[d].members == mask &&
                                        sc.configs[d].quorum == sc.configs[c].quorum)) ++d;
      // The goal singles configuration 1 out.
      if (d == sc.configs.size() || (sc.frozen != 0 && (c == 1) != (d == 1))) { fits = false; break; }
      p.config[c] = d;
    }
    if (fits) found.push_back(p);
  } while (std::next_permutation(order.begin(), order.end()));
  return found;
}

uint64_t hashOf(const State& s) {
  uint64_t words[sizeof(State) / 8];
  std::memcpy(words, &s, sizeof s);
  uint64_t h = 0x9e3779b97f4a7c15u;
  for (uint64_t w : words) {
    __uint128_t m = static_cast<__uint128_t>(h ^ w ^ 0xa0761d6478bd642fu) *
        (0xe7037ed1a0b428dbu + (w << 1 | 1));
    h = (uint64_t(m) ^ uint64_t(m >> 64)) + 0x8ebc6af09c88c6e3u * (h | 1);
    h ^= h >> 29;
  }
  return h == 0 ? 1 : h;
}

uint64_t fingerprint(const Scenario& sc, const std::vector<Symmetry>& group, const State& s) {
  uint64_t least = ~uint64_t(0);
  for (const Symmetry& p : group) {
    State t = s;
    for (int n = 0; n < sc.nodes; ++n) t.node[p.node[n]] = s.node[n];
    for (int e = 1; e <= sc.epochs; ++e) {
      for (int n = 0; n < sc.nodes; ++n) {
        t.report[e][p.node[n]] = s.report[e][n];
        t.ack[e][p.node[n]] = s.ack[e][n];
      }
      // An epoch that is in use has a log, a holder, or is one that a fence may name.
      bool used = s.elog[e] != 0 || s.base[e] != 0 || e == 1;
      if (used) t.primary[e] = p.node[s.primary[e]];
      t.config[e] = p.config[s.config[e]];
      t.accepts[e] = s.accepts[e] & ~0xf;
      for (int n = 0; n < sc.nodes; ++n)
        if (s.accepts[e] >> n & 1) t.accepts[e] |= 1 << p.node[n];
    }
    least = std::min(least, hashOf(t));
  }
  return least;
}

// Open addressing over indexes into `print`; a state's number is its order of discovery.
class Visited {
 public:
  explicit Visited() : slots_(1 << 16, 0) {}
  bool insert(uint64_t print, uint32_t parent) {
    if (print_.size() * 10 > slots_.size() * 7) grow();
    size_t i = place(print);
    if (slots_[i] != 0) return false;
    print_.push_back(print);
    parent_.push_back(parent);
    slots_[i] = print_.size();
    return true;
  }
  uint32_t size() const { return print_.size(); }
  std::vector<uint64_t> pathTo(uint32_t id) const {
    std::vector<uint64_t> path;
    for (; id != 0; id = parent_[id]) path.push_back(print_[id]);
    std::reverse(path.begin(), path.end());
    return path;
  }

 private:
  std::vector<uint64_t> print_;
  std::vector<uint32_t> parent_, slots_;
  size_t place(uint64_t print) const {
    size_t i = print & (slots_.size() - 1);
    while (slots_[i] != 0 && print_[slots_[i] - 1] != print) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  void grow() {
    std::vector<uint32_t> old(slots_.size() * 2, 0);
    slots_.swap(old);
    for (size_t n = 0; n < print_.size(); ++n) slots_[place(print_[n])] = n + 1;
  }
};

struct Outcome {
  std::string broken;              // empty: every property holds
  std::vector<std::string> trace;
  uint32_t states = 0;
  int depth = 0;
  bool goal = false, cut = false;
  double seconds = 0;
};

// Walks the path again from the start, now with words.
std::vector<std::string> retell(const Scenario& sc, const std::vector<Symmetry>& group,
                                const std::vector<uint64_t>& path, const std::string& last) {
  std::vector<std::string> words;
  State s = initialState(sc);
  for (uint64_t want : path) {
    State next = s;
    std::string step;
    forEachSuccessor(sc, s, true, [&](const State& t, const char*, const std::string& text) {
      if (step.empty() && fingerprint(sc, group, t) == want) { next = t; step = text; }
    });
    words.push_back(step);
    s = next;
  }
  bool told = false;
  forEachSuccessor(sc, s, true, [&](const State& t, const char* broken, const std::string& text) {
    if (!told && broken != nullptr && last == broken) {
      told = true;
      words.push_back(text + "  ==> " + broken);
      words.push_back("   (" + stateText(sc, t) + ")");
    }
  });
  return words;
}

Outcome explore(const Run& run) {
  const Scenario& sc = run.scenario;
  auto began = std::chrono::steady_clock::now();
  std::vector<Symmetry> group = symmetries(sc);
  Outcome out;
  Visited visited;
  std::vector<std::pair<State, uint32_t>> level, next;
  level.push_back({initialState(sc), 0});
  visited.insert(fingerprint(sc, group, level[0].first), 0);
  for (; !level.empty() && out.broken.empty() && !out.cut; level.swap(next)) {
    next.clear();
    for (auto& [s, id] : level) {
      uint32_t parent = id;
      forEachSuccessor(sc, s, false, [&](const State& t, const char* broken, const std::string&) {
        if (!out.broken.empty()) return;
        if (broken != nullptr) {
          out.broken = broken;
          out.trace = retell(sc, group, visited.pathTo(parent), broken);
          return;
        }
        out.goal |= t.goal != 0;
        if (visited.insert(fingerprint(sc, group, t), parent))
          next.push_back({t, visited.size() - 1});
      });
      if (!out.broken.empty()) break;
      if (visited.size() > kStatesMax) { out.cut = true; break; }
    }
    ++out.depth;
  }
  out.states = visited.size();
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return out;
}

bool report(const Run& run, const Outcome& out, bool inFull) {
  bool good = !out.cut &&
      (run.expect == kHolds ? out.broken.empty()
       : run.expect == kBroken ? !out.broken.empty()
       : out.broken.empty() && out.goal == (run.expect == kGoalReached));
  std::string verdict = !out.broken.empty() ? out.broken : "every property holds";
  if (run.expect == kGoalReached || run.expect == kGoalNever)
    verdict += out.goal ? "; the goal is reached" : "; the goal is never reached";
  if (out.cut) verdict = "stopped at the bound on states; nothing broken so far";
  std::printf("%-4s %-28s %10u states  depth %3d  %6.1f s  %s\n", good ? "ok" : "BAD",
              run.scenario.name.c_str(), out.states, out.depth, out.seconds, verdict.c_str());
  if (inFull || !good)
    for (const std::string& line : out.trace) std::printf("       %s\n", line.c_str());
  std::fflush(stdout);
  return good;
}

}  // namespace
}  // namespace packmoor::model

int main(int argc, char** argv) {
  using namespace packmoor::model;
  std::vector<Run> chosen;
  bool named = argc > 1 && std::string(argv[1]) != "all";
  for (Run& run : allRuns()) {
    if (named && std::string(argv[1]) == "list") std::puts(run.scenario.name.c_str());
    bool take = named ? std::find(argv + 1, argv + argc, run.scenario.name) != argv + argc
                      : argc > 1 || !run.large;
    if (take) chosen.push_back(run);
  }
  std::atomic<size_t> nextRun{0};
  std::atomic<bool> good{true};
  std::mutex printing;
  auto work = [&] {
    for (size_t i; (i = nextRun++) < chosen.size();) {
      Outcome out = explore(chosen[i]);
      std::lock_guard<std::mutex> lock(printing);
      if (!report(chosen[i], out, named)) good = false;
    }
  };
  std::thread other(work);
  work();
  other.join();
  return good ? 0 : 1;
}
