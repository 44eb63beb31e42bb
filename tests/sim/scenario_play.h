// Scenario: one script of tests/scenarios, played sentence by sentence. README.md has the sentences.
//
// What all scenarios need is in scenario.cc; damage, members, losses and the coordinator's past are in
// scenario_damage.cc.
//
// Loop: its cluster's, which it runs.
#pragma once

#include "sim_clients.h"
#include "sim_run.h"

#include <istream>

namespace packmoor::replicator {

using Words = std::vector<std::string>;

struct ScenarioFailure {
  std::string why;
  bool stuck = false;   // nothing was wrong but that nothing went on
};

[[noreturn]] inline void failScenario(std::string why, bool stuck = false) {
  throw ScenarioFailure{std::move(why), stuck};
}

class Scenario final {
 public:
  static constexpr int64_t kWaitMs = 20'000;   // "wait until" gives up after so much virtual time
  static constexpr int64_t kAnswerMs = 1500;   // a write or a read is given so long

  explicit Scenario(const SimRunOptions& options) : options_(options) {}
  ~Scenario() noexcept(false);

  // Throws a ScenarioFailure at the first sentence that does not hold.
  void run(std::istream& in);
  int line() const { return number_; }
  std::string firstFinding();
  std::string describe() { return cluster_ == nullptr ? "" : cluster_->describe(); }
  void addTo(SimRunResult& result);

 private:
  struct Assignment {
    std::string key, value;
    size_t at;
  };

  // Until the condition holds, or something is found.
  template <typename Condition>
  void until(Condition condition, const char* what) {
    cluster_->until([&]() {
      checker_->poll();
      return checker_->found() || condition();
    }, kWaitMs, what);
  }
  void sentence(const Words& words);
  void requireNothingFound();
  // Nodes
  size_t node(const std::string& name);
  std::vector<size_t> nodes(const Words& words, size_t from);
  size_t anyRunning();
  void begin(const Words& words);
  bool leads(size_t n);
  // Writes and reads
  Assignment assignment(const Words& words, size_t from);
  bool write(const Assignment& what);
  void beginWrite(const Assignment& what);
  void writeMany(const Words& words);
  kj::Maybe<std::string> read(size_t at, const std::string& key);
  void load(const Words& words);
  // What happens, and what is expected
  void restart(const Words& words);
  void takeOver(size_t n);
  void wait(const Words& words);
  void expect(const Words& words);
  bool isSo(size_t n, const Words& words);
  // In scenario_damage.cc; false: no such sentence
  bool damage(const Words& words);
  void rotFromMark(size_t n);
  void change(const Words& words);
  kj::Maybe<kj::Exception> acceptLoss(const std::vector<size_t>& kept);
  void require(kj::Maybe<kj::Exception> failure, const char* what);

  const SimRunOptions options_;
  int number_ = 0;
  uint64_t values_ = 0;
  std::map<std::string, std::string> written_;   // what was acknowledged last, by key
  std::map<size_t, uint64_t> marks_;             // of journals: the newest batch, by node
  std::string said_;
  std::unique_ptr<SimCluster> cluster_;
  std::unique_ptr<SimChecker> checker_;
  std::unique_ptr<SimClients> load_;
  std::vector<kj::Promise<void>> begun_;         // writes that nobody waits for
};

}  // namespace packmoor::replicator
