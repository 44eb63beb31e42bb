#include "scenario.h"

#include "replicator/outcome.h"
#include "scenario_play.h"

#include <kj/debug.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace packmoor::replicator {

namespace {

Words wordsOf(std::string line) {
  line = line.substr(0, line.find('#'));
  std::replace(line.begin(), line.end(), ',', ' ');
  std::istringstream in(line);
  Words words;
  for (std::string word; in >> word;) {
    if (word != "and" && word != "or" && word != "the") words.push_back(word);
  }
  return words;
}

uint64_t numberOf(const std::string& word) {
  try {
    return std::stoull(word);
  } catch (const std::logic_error&) {
    failScenario(word + " is no number");
  }
}

}  // namespace

Scenario::~Scenario() noexcept(false) {}

void Scenario::run(std::istream& in) {
  std::string line;
  while (std::getline(in, line)) {
    ++number_;
    const Words words = wordsOf(line);
    if (words.empty()) continue;
    if (cluster_ != nullptr) cluster_->tell("> " + line);
    try {
      sentence(words);
    } catch (const std::out_of_range&) {
      failScenario("the sentence is not complete");
    } catch (const ScenarioFailure&) {
      requireNothingFound();  // says more, if there is something
      throw;
    }
    requireNothingFound();
  }
  if (cluster_ == nullptr) failScenario("a scenario begins with its nodes");
}

void Scenario::requireNothingFound() {
  if (checker_ == nullptr) return;
  checker_->poll();
  if (checker_->found()) failScenario(checker_->findings()[0]);
}

std::string Scenario::firstFinding() {
  return checker_ == nullptr || !checker_->found() ? std::string() : checker_->findings()[0];
}

void Scenario::addTo(SimRunResult& result) {
  if (cluster_ == nullptr) return;
  result.trace = cluster_->network().traceHash();
  result.messages = cluster_->network().messages();
  result.virtualMs = cluster_->nowMs();
  result.acknowledged = checker_->acknowledgements();
  result.reads = checker_->reads();
  result.records = checker_->records();
}

// ---- Nodes ----------------------------------------------------------------------------------------

size_t Scenario::node(const std::string& name) {
  if (cluster_ == nullptr) failScenario("a scenario begins with its nodes");
  if (name.size() != 1 || name[0] < 'a' || static_cast<size_t>(name[0] - 'a') >= cluster_->size()) {
    failScenario("there is no node " + name);
  }
  return static_cast<size_t>(name[0] - 'a');
}

std::vector<size_t> Scenario::nodes(const Words& words, size_t from) {
  std::vector<size_t> found;
  for (size_t i = from; i < words.size(); ++i) {
    if (words[i] != "all") {
      found.push_back(node(words[i]));
      continue;
    }
    for (size_t n = 0; n < cluster_->size(); ++n) {
      if (!cluster_->node(n).idle()) found.push_back(n);
    }
  }
  return found;
}

size_t Scenario::anyRunning() {
  for (size_t i = 0; i < cluster_->size(); ++i) {
    if (cluster_->node(i).hasVolume()) return i;
  }
  failScenario("no node runs");
}

// "nodes a b c, quorum 2"; "members a", "pair", "short logs", "large states" and "seed 7" may follow.
void Scenario::begin(const Words& words) {
  if (cluster_ != nullptr) failScenario("the nodes are named once");
  size_t count = 0, members = 0;
  uint32_t quorum = 0;
  uint64_t seed = 1;
  VolumeTraits traits;
  ReplicatorOptions options = SimCluster::testOptions();
  options.proposeTimeoutMs = options.readTimeoutMs = kAnswerMs;
  KvOptions kv;
  for (size_t i = 1; i < words.size(); ++i) {
    auto isNext = [&](size_t known) {
      return i < words.size() && words[i] == std::string(1, static_cast<char>('a' + known));
    };
    if (words[i] == "quorum") {
      quorum = static_cast<uint32_t>(numberOf(words.at(++i)));
    } else if (words[i] == "seed") {
      seed = numberOf(words.at(++i));
    } else if (words[i] == "pair") {
      traits.pair = true;
      quorum = 2;
    } else if (words[i] == "members") {
      for (++i; isNext(members); ++i) ++members;
      --i;
    } else if (words[i] == "short" && words.at(++i) == "logs") {
      options.logRetainBytes = 4096;
    } else if (words[i] == "large" && words.at(++i) == "states") {
      kv.checkpointBytes = 3'000'000;
      options.transferBytesPerSecond = 1'000'000;
    } else if (isNext(count)) {
      ++count;
    } else {
      failScenario("nodes are named a, b, c ... in this order; it says " + words[i]);
    }
  }
  if (quorum < 1 || quorum > (members > 0 ? members : count)) {
    failScenario("the quorum is between 1 and the number of members");
  }
  cluster_ = std::make_unique<SimCluster>(seed, count, options);
  cluster_->kvOptions = kv;
  cluster_->story = options_.story;
  cluster_->coordinator().unnoticed = options_.unnoticedRestore;
  checker_ = std::make_unique<SimChecker>(*cluster_);
  cluster_->begin(quorum, members, traits);
}

bool Scenario::leads(size_t n) {
  if (!cluster_->node(n).hasVolume() || cluster_->primary() != &cluster_->node(n)) return false;
  return cluster_->node(n).volume().status().role == VolumeRole::kPrimary;
}

// ---- Writes and reads -------------------------------------------------------------------------------

// "KEY = VALUE [at NODE]", or "KEY [at NODE]": a value of its own.
Scenario::Assignment Scenario::assignment(const Words& words, size_t from) {
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

bool Scenario::write(const Assignment& what) {
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

// "begin to write x = 3 at a": nobody waits for the answer; the checker judges it when it comes.
void Scenario::beginWrite(const Assignment& what) {
  const TxnId txn = cluster_->newTxn();
  const std::string operation = "put " + what.key + " " + what.value;
  SimNode& at = cluster_->node(what.at);
  written_[what.key] = what.value;
  auto answered = outcomeOf(at.front(at.volume().propose(kvProposal(txn, operation))));
  begun_.push_back(answered.then([this, txn](Outcome<ProposeOutcome>&& outcome) {
    if (!outcome.ok()) return;
    checker_->acknowledged(txn, outcome.value->index, textOf(outcome.value->result));
  }).eagerlyEvaluate(nullptr));
}

// "write 300 records [at b]"
void Scenario::writeMany(const Words& words) {
  const uint64_t records = numberOf(words.at(1));
  const size_t at = words.size() > 4 ? node(words[4]) : anyRunning();
  for (uint64_t i = 0; i < records; ++i) {
    const std::string number = std::to_string(i);
    if (!write({"many" + number, number, at})) {
      failScenario("the write was not answered: " + said_, true);
    }
  }
}

// nullptr: no answer.
kj::Maybe<std::string> Scenario::read(size_t at, const std::string& key) {
  if (!cluster_->node(at).hasVolume()) return nullptr;
  const auto began = checker_->readBegins();
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

// "load begins", "load ends": clients at all nodes, whose answers the checker judges.
void Scenario::load(const Words& words) {
  if (words.at(1) == "begins") {
    SimClientOptions options;
    options.extentPerMillion = options.extentReadPerMillion = 0;
    load_ = std::make_unique<SimClients>(*cluster_, *checker_, options);
    return;
  }
  if (words[1] != "ends" || load_ == nullptr) failScenario("a load begins, and then ends");
  load_->stop();
  until([&]() { return load_->ended(); }, "the clients are answered");
}

// ---- Sentences --------------------------------------------------------------------------------------

void Scenario::sentence(const Words& words) {
  const std::string& verb = words[0];
  if (verb == "nodes") return begin(words);
  if (cluster_ == nullptr) failScenario("a scenario begins with its nodes");
  SimNetwork& network = cluster_->network();
  if (verb == "write" && words.size() > 2 && words[2] == "records") {
    writeMany(words);
  } else if (verb == "write") {
    if (!write(assignment(words, 1))) failScenario("the write was not answered: " + said_, true);
  } else if (verb == "begin") {
    beginWrite(assignment(words, 3));
  } else if (verb == "load") {
    load(words);
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
  } else if (verb == "unmute") {
    network.uncut(words.at(1), words.at(3));
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
  } else if (!damage(words)) {
    failScenario("no sentence begins with \"" + verb + "\"");
  }
}

void Scenario::restart(const Words& words) {
  std::vector<size_t> which;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] != "all") {
      which.push_back(node(words[i]));
      continue;
    }
    for (size_t n = 0; n < cluster_->size(); ++n) which.push_back(n);
  }
  for (size_t n : which) cluster_->node(n).boot();
  until([&]() {
    return std::all_of(which.begin(), which.end(), [&](size_t n) {
      SimNode& node = cluster_->node(n);
      return node.up() && (node.hasVolume() || !cluster_->isMember(node));
    });
  }, "the nodes have opened the volume");
}

void Scenario::takeOver(size_t n) {
  require(cluster_->loop().wait(outcomeOf(cluster_->node(n).volume().takeOver())), "the switch");
}

void Scenario::require(kj::Maybe<kj::Exception> failure, const char* what) {
  KJ_IF_MAYBE(exception, failure) {
    failScenario(std::string(what) + " failed: " + exception->getDescription().cStr(), true);
  }
}

// "wait 300 ms"; "wait until b or c leads"; "wait until a follows"; "wait until c counts"; "wait until
// c is whole", "wait until c fetches a checkpoint"
void Scenario::wait(const Words& words) {
  if (words.at(1) != "until") {
    cluster_->loop().runFor(static_cast<int64_t>(numberOf(words[1])) * kj::MILLISECONDS);
    return;
  }
  const std::string& what = words.back();
  Words named(words.begin() + 2, words.end() - 1);
  if (what == "leads" || what == "lead") {
    const std::vector<size_t> any = nodes(named, 0);
    until([&]() {
      return std::any_of(any.begin(), any.end(), [&](size_t n) { return leads(n); });
    }, "one of them leads");
  } else if (what == "follow" || what == "follows") {
    const std::vector<size_t> all = nodes(named, 0);
    until([&]() {
      SimNode* primary = cluster_->primary();
      if (primary == nullptr) return false;
      const VolumeStatus status = primary->volume().status();
      return status.committed == status.last &&
             std::all_of(all.begin(), all.end(), [&](size_t n) {
               return cluster_->node(n).hasVolume() &&
                      cluster_->node(n).volume().status().applied == status.last;
             });
    }, "all of them have applied everything");
  } else if (what == "count" || what == "counts") {
    const std::vector<size_t> all = nodes(named, 0);
    until([&]() {
      const VolumeRecord& record = cluster_->coordinator().volumes.at("main");
      return record.phase == VolumePhase::kActive &&
             std::all_of(all.begin(), all.end(), [&](size_t n) {
               return record.current.hasMember(cluster_->node(n).id());
             });
    }, "all of them are counted members");
  } else {
    const size_t n = node(words.at(2));
    until([&]() { return isSo(n, words); }, "it is so");
  }
}

// Of node n: "c is whole", "c is damaged", "c is diverged", "c fetches a checkpoint", "c has fetched a
// checkpoint"
bool Scenario::isSo(size_t n, const Words& words) {
  const std::string& what = words.back();
  SimNode& node = cluster_->node(n);
  if (!node.hasVolume()) return false;
  const VolumeStatus status = node.volume().status();
  if (what == "whole") return !status.repairing;
  if (what == "damaged") return status.repairing;
  if (what == "diverged") return !status.diverged.empty();
  if (what == "checkpoint") {
    const bool has = std::find(words.begin(), words.end(), "has") != words.end();
    return has ? status.transfer.installed > 0 : status.transfer.running;
  }
  failScenario("a node leads, follows, counts, is whole, damaged or diverged, or fetches a checkpoint; "
               "it says " + what);
}

// "expect x on all"; "expect x = 3 on a"; "expect write x at a fails"; "expect read x at a fails";
// "expect a leads"; "expect a does not lead"; "expect quorum 1"; "expect loss of all but a is refused";
// and what isSo() knows.
void Scenario::expect(const Words& words) {
  const std::string& last = words.back();
  if (last == "fails") {
    const Words rest(words.begin() + 1, words.end() - 1);
    const Assignment what = assignment(rest, 1);
    const bool answered = rest.at(0) == "write" ? write(what) : read(what.at, what.key) != nullptr;
    if (answered) failScenario("it was answered");
    return;
  }
  if (last == "refused") {
    const Words kept(words.begin() + 5, words.end() - 2);
    if (acceptLoss(nodes(kept, 0)) == nullptr) failScenario("the loss was accepted");
    return;
  }
  if (last == "leads" || last == "lead") {
    const bool wanted = last == "leads";
    if (leads(node(words.at(1))) != wanted) {
      failScenario(words[1] + (wanted ? " does not lead" : " leads"));
    }
    return;
  }
  if (words.at(1) == "quorum") {
    const uint32_t quorum = cluster_->coordinator().volumes.at("main").current.writeQuorum;
    if (quorum != numberOf(words.at(2))) failScenario("it is " + std::to_string(quorum));
    return;
  }
  auto on = std::find(words.begin(), words.end(), "on");
  if (on == words.end()) {
    if (!isSo(node(words.at(1)), words)) failScenario("it is not so");
    return;
  }
  const std::string& key = words.at(1);
  const std::string wanted = words.at(2) == "=" ? words.at(3) : written_[key];
  for (size_t n : nodes(words, static_cast<size_t>(on - words.begin()) + 1)) {
    auto value = read(n, key);
    KJ_IF_MAYBE(text, value) {
      if (*text != wanted) {
        failScenario(cluster_->node(n).id() + " has " + *text + ", not " + wanted);
      }
    } else {
      failScenario(cluster_->node(n).id() + " does not answer: " + said_, true);
    }
  }
}

// ---- The whole of it ----------------------------------------------------------------------------------

SimRunResult runScenario(const SimRunOptions& options) {
  SimRunResult result;
  std::ifstream in(options.scenario);
  if (!in) {
    result.findings.push_back(options.scenario + " cannot be read");
    return result;
  }
  Scenario scenario(options);
  std::string why;
  bool stuck = false;
  try {
    scenario.run(in);
  } catch (const ScenarioFailure& failure) {
    why = failure.why;
    stuck = failure.stuck;
  } catch (const kj::Exception& exception) {
    why = exception.getDescription().cStr();
  } catch (const std::exception& exception) {  // of SimCluster::until
    why = scenario.firstFinding();   // before it gave up, or that it gave up
    stuck = why.empty() || why.rfind(SimCluster::kNotReached, 0) == 0;
    if (why.empty()) why = exception.what();
  }
  scenario.addTo(result);
  if (!why.empty()) {
    result.findings.push_back((stuck ? kNoProgress : "") + std::string("line ") +
                              std::to_string(scenario.line()) + ": " + why);
    result.setting = scenario.describe();
  }
  return result;
}

int runScenarioFile(const SimRunOptions& options) {
  const SimRunResult result = runScenario(options);
  const char* path = options.scenario.c_str();
  if (result.findings.empty()) {
    std::printf("ok      %s\n", path);
    return 0;
  }
  std::printf("FAILED  %s: %s%s\n", path, result.findings[0].c_str(), result.setting.c_str());
  return 1;
}

}  // namespace packmoor::replicator
