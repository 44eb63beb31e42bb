#include "scenario.h"

#include "replicator/outcome.h"
#include "sim_checker.h"

#include <kj/debug.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace packmoor::replicator {

namespace {

using Words = std::vector<std::string>;

constexpr int64_t kWaitMs = 20'000;   // "wait until" gives up after so much virtual time
constexpr int64_t kAnswerMs = 1500;   // a write or a read is given so long

struct ScenarioFailure {
  std::string why;
};

[[noreturn]] void fail(std::string why) { throw ScenarioFailure{std::move(why)}; }

Words wordsOf(std::string line) {
  line = line.substr(0, line.find('#'));
  std::replace(line.begin(), line.end(), ',', ' ');
  std::istringstream in(line);
  Words words;
  for (std::string word; in >> word;) {
    if (word != "and" && word != "or") words.push_back(word);
  }
  return words;
}

class Scenario {
 public:
  explicit Scenario(bool trace) : trace_(trace) {}

  void run(std::istream& in) {
    std::string line;
    while (std::getline(in, line)) {
      ++number_;
      const Words words = wordsOf(line);
      if (words.empty()) continue;
      if (trace_ && cluster_ != nullptr) cluster_->tell("> " + line);
      sentence(words);
      if (checker_ != nullptr) {
        checker_->poll();
        if (checker_->found()) fail(checker_->findings()[0]);
      }
    }
    if (cluster_ == nullptr) fail("a scenario begins with its nodes");
  }
  int line() const { return number_; }
  std::string describe() { return cluster_ == nullptr ? "" : cluster_->describe(); }

 private:
  // ---- Nodes ------------------------------------------------------------------------------------

  size_t node(const std::string& name) {
    if (cluster_ == nullptr) fail("a scenario begins with its nodes");
    if (name.size() != 1 || name[0] < 'a' || static_cast<size_t>(name[0] - 'a') >= cluster_->size()) {
      fail("there is no node " + name);
    }
    return static_cast<size_t>(name[0] - 'a');
  }
  std::vector<size_t> nodes(const Words& words, size_t from) {
    std::vector<size_t> found;
    for (size_t i = from; i < words.size(); ++i) {
      if (words[i] == "all") {
        for (size_t n = 0; n < cluster_->size(); ++n) {
          if (!cluster_->node(n).idle()) found.push_back(n);
        }
      } else {
        found.push_back(node(words[i]));
      }
    }
    return found;
  }
  size_t anyRunning() {
    for (size_t i = 0; i < cluster_->size(); ++i) {
      if (cluster_->node(i).hasVolume()) return i;
    }
    fail("no node runs");
  }

  // "nodes a b c, quorum 2, seed 7"
  void begin(const Words& words) {
    if (cluster_ != nullptr) fail("the nodes are named once");
    size_t count = 0;
    uint32_t quorum = 0;
    uint64_t seed = 1;
    for (size_t i = 1; i < words.size(); ++i) {
      if (words[i] == "quorum") {
        quorum = static_cast<uint32_t>(std::stoul(words.at(++i)));
      } else if (words[i] == "seed") {
        seed = std::stoull(words.at(++i));
      } else if (words[i] == std::string(1, static_cast<char>('a' + count))) {
        ++count;
      } else {
        fail("nodes are named a, b, c ... in this order");
      }
    }
    if (quorum < 1 || quorum > count) fail("the quorum is between 1 and the number of nodes");
    ReplicatorOptions options = SimCluster::testOptions();
    options.proposeTimeoutMs = options.readTimeoutMs = kAnswerMs;
    cluster_ = std::make_unique<SimCluster>(seed, count, options);
    checker_ = std::make_unique<SimChecker>(*cluster_);
    if (trace_) cluster_->story = [](const std::string& text) { std::printf("%s\n", text.c_str()); };
    cluster_->begin(quorum);
  }

  // ---- Writes and reads -----------------------------------------------------------------------

  // "KEY = VALUE [at NODE]", or "KEY [at NODE]": a value of its own.
  struct Assignment {
    std::string key, value;
    size_t at;
  };
  Assignment assignment(const Words& words, size_t from) {
    Assignment result;
    result.key = words.at(from);
    size_t i = from + 1;
    if (i < words.size() && words[i] == "=") {
      result.value = words.at(i + 1);
      i += 2;
    } else {
      result.value = "v" + std::to_string(++values_);
    }
    result.at = i < words.size() && words[i] == "at" ? node(words.at(i + 1)) : anyRunning();
    return result;
  }
  bool write(const Assignment& what) {
    if (!cluster_->node(what.at).hasVolume()) return false;
    const TxnId txn = cluster_->newTxn();
    const std::string operation = "put " + what.key + " " + what.value;
    auto outcome = cluster_->loop().wait(
        outcomeOf(cluster_->node(what.at).volume().propose(kvProposal(txn, operation))));
    if (!outcome.ok()) {
      said_ = KJ_ASSERT_NONNULL(outcome.exception).getDescription().cStr();
      return false;
    }
    checker_->acknowledged(txn, outcome.value->index, textOf(outcome.value->result));
    written_[what.key] = what.value;
    return true;
  }
  // nullptr: no answer.
  kj::Maybe<std::string> read(size_t at, const std::string& key) {
    if (!cluster_->node(at).hasVolume()) return nullptr;
    const RecordIndex began = checker_->readBegins();
    auto barrier = cluster_->loop().wait(outcomeOf(cluster_->node(at).volume().readBarrier()));
    if (!barrier.ok()) {
      said_ = KJ_ASSERT_NONNULL(barrier.exception).getDescription().cStr();
      return nullptr;
    }
    checker_->readEnds(cluster_->node(at), began, *barrier.value);
    const auto& values = cluster_->node(at).kv().state().values;
    auto value = values.find(key);
    return value == values.end() ? std::string("absent") : value->second;
  }

  // ---- Sentences ----------------------------------------------------------------------------------

  void sentence(const Words& words) {
    const std::string& verb = words[0];
    if (verb == "nodes") return begin(words);
    if (cluster_ == nullptr) fail("a scenario begins with its nodes");
    SimNetwork& network = cluster_->network();
    if (verb == "write") {
      if (!write(assignment(words, 1))) fail("the write was not answered: " + said_);
    } else if (verb == "crash") {
      for (size_t n : nodes(words, 1)) cluster_->node(n).losePower();
    } else if (verb == "kill") {
      for (size_t n : nodes(words, 1)) cluster_->node(n).stop();
    } else if (verb == "restart" || verb == "start") {
      restart(words);
    } else if (verb == "isolate") {
      for (size_t n : nodes(words, 1)) network.isolate(cluster_->node(n).id(), cluster_->nodeIds());
    } else if (verb == "cut") {      // cut a from b: neither hears the other
      network.cut(words.at(1), words.at(3));
      network.cut(words.at(3), words.at(1));
    } else if (verb == "mute") {     // mute a to b: b does not hear a
      network.cut(words.at(1), words.at(3));
    } else if (verb == "clog") {     // clog a to b: it arrives when all is healed
      network.clog(words.at(1), words.at(3));
    } else if (verb == "heal") {
      network.heal();
      cluster_->coordinator().heal();
    } else if (verb == "coordinator") {   // coordinator lost by a
      for (size_t n : nodes(words, 3)) cluster_->coordinator().cutOff(cluster_->node(n).id());
    } else if (verb == "checkpoint") {
      for (size_t n : nodes(words, 1)) cluster_->loop().wait(cluster_->node(n).volume().checkpointNow());
    } else if (verb == "switch") {   // switch to b
      takeOver(node(words.at(2)));
    } else if (verb == "wait") {
      wait(words);
    } else if (verb == "expect") {
      expect(words);
    } else {
      fail("no sentence begins with \"" + verb + "\"");
    }
  }

  void restart(const Words& words) {
    std::vector<size_t> which;
    for (size_t i = 1; i < words.size(); ++i) {
      if (words[i] != "all") {
        which.push_back(node(words[i]));
        continue;
      }
      for (size_t n = 0; n < cluster_->size(); ++n) which.push_back(n);
    }
    for (size_t n : which) cluster_->node(n).boot();
    cluster_->until([&]() {
      return std::all_of(which.begin(), which.end(),
                         [&](size_t n) { return cluster_->node(n).hasVolume(); });
    }, kWaitMs, "the nodes have opened the volume");
  }

  void takeOver(size_t n) {
    auto failure = cluster_->loop().wait(outcomeOf(cluster_->node(n).volume().takeOver()));
    KJ_IF_MAYBE(exception, failure) {
      fail(std::string("the switch failed: ") + exception->getDescription().cStr());
    }
  }

  // "wait 300 ms"; "wait until b or c leads"; "wait until a follows"; "wait until nobody leads"
  void wait(const Words& words) {
    if (words.at(1) != "until") {
      cluster_->loop().runFor(std::stoll(words[1]) * kj::MILLISECONDS);
      return;
    }
    const std::string& what = words.back();
    Words named(words.begin() + 2, words.end() - 1);
    if (what == "leads" || what == "lead") {
      const std::vector<size_t> any = nodes(named, 0);
      cluster_->until([&]() {
        return std::any_of(any.begin(), any.end(), [&](size_t n) { return leads(n); });
      }, kWaitMs, "one of them leads");
    } else if (what == "follow" || what == "follows") {
      const std::vector<size_t> all = nodes(named, 0);
      cluster_->until([&]() {
        SimNode* primary = cluster_->primary();
        if (primary == nullptr) return false;
        const VolumeStatus status = primary->volume().status();
        return status.committed == status.last &&
               std::all_of(all.begin(), all.end(), [&](size_t n) {
                 return cluster_->node(n).hasVolume() &&
                        cluster_->node(n).volume().status().applied == status.last;
               });
      }, kWaitMs, "all of them have applied everything");
    } else {
      fail("one waits until nodes lead, or follow");
    }
  }

  bool leads(size_t n) {
    if (!cluster_->node(n).hasVolume() || cluster_->primary() != &cluster_->node(n)) return false;
    return cluster_->node(n).volume().status().role == VolumeRole::kPrimary;
  }

  // "expect x on all"; "expect x = 3 on a"; "expect write x at a fails"; "expect read x at a fails";
  // "expect a leads"; "expect a does not lead"
  void expect(const Words& words) {
    if (words.back() == "fails") {
      const Words rest(words.begin() + 1, words.end() - 1);
      const Assignment what = assignment(rest, 1);
      const bool answered = rest.at(0) == "write" ? write(what) : read(what.at, what.key) != nullptr;
      if (answered) fail("it was answered");
      return;
    }
    if (words.back() == "leads" || words.back() == "lead") {
      const bool wanted = words.back() == "leads";
      if (leads(node(words.at(1))) != wanted) fail(words[1] + (wanted ? " does not lead" : " leads"));
      return;
    }
    auto on = std::find(words.begin(), words.end(), "on");
    if (on == words.end()) fail("what is expected, and on which nodes?");
    const std::string& key = words.at(1);
    const std::string wanted = words.at(2) == "=" ? words.at(3) : written_[key];
    for (size_t n : nodes(words, static_cast<size_t>(on - words.begin()) + 1)) {
      auto value = read(n, key);
      KJ_IF_MAYBE(text, value) {
        if (*text != wanted) fail(cluster_->node(n).id() + " has " + *text + ", not " + wanted);
      } else {
        fail(cluster_->node(n).id() + " does not answer: " + said_);
      }
    }
  }

  const bool trace_;
  int number_ = 0;
  uint64_t values_ = 0;
  std::map<std::string, std::string> written_;   // what was acknowledged last, by key
  std::string said_;
  std::unique_ptr<SimCluster> cluster_;
  std::unique_ptr<SimChecker> checker_;
};

}  // namespace

int runScenarioFile(const std::string& path, bool trace) {
  std::ifstream in(path);
  if (!in) {
    std::printf("%s cannot be read\n", path.c_str());
    return 2;
  }
  Scenario scenario(trace);
  std::string why;
  try {
    scenario.run(in);
  } catch (const ScenarioFailure& failure) {
    why = failure.why;
  } catch (const kj::Exception& exception) {
    why = exception.getDescription().cStr();
  } catch (const std::exception& exception) {
    why = exception.what();
  }
  if (why.empty()) {
    std::printf("ok      %s\n", path.c_str());
    return 0;
  }
  std::printf("FAILED  %s:%d: %s%s\n", path.c_str(), scenario.line(), why.c_str(),
              scenario.describe().c_str());
  return 1;
}

}  // namespace packmoor::replicator
