// refs_bench FOLDER --refs N: what one ref costs among N, in a state store on a disk.
//
// Fills a store in FOLDER in batches as large pushes do, makes it durable, opens it anew, and looks refs up
// at random, in a snapshot for each as requests do: first while nothing is in memory, then again; names that
// are not there; and the decision about one update, with its search for conflicting names. Prints one JSON
// object, in microseconds. `tools/dev bench refs` runs it.
#include "record_applier.h"
#include "ref_rules.h"
#include "state_store.h"
#include "state_tables.h"

#include <kernelio/co.h>
#include <kernelio/real_env.h>

#include <kj/async-io.h>
#include <kj/debug.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace packmoor::gitlayer {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kBatchRefs = 100'000;
constexpr size_t kLookups = 20'000;

ObjectId idOf(size_t number) {
  ObjectId id;
  std::mt19937_64 random(number);
  for (auto& byte : id.bytes) byte = static_cast<uint8_t>(random());
  return id;
}

std::string nameOf(size_t number) {
  char name[40];
  std::snprintf(name, sizeof name, "refs/heads/b%07zu", number);
  return name;
}

struct Figures {
  double medianUs = 0, p99Us = 0, worstUs = 0;
};

Figures timed(size_t times, const std::function<void(size_t)>& work) {
  std::vector<double> all;
  all.reserve(times);
  for (size_t i = 0; i < times; ++i) {
    const auto begin = Clock::now();
    work(i);
    all.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  std::sort(all.begin(), all.end());
  return {all[times / 2], all[times * 99 / 100], all.back()};
}

void print(const char* name, const Figures& figures, const char* end) {
  std::printf("\"%s\":{\"medianUs\":%.2f,\"p99Us\":%.2f,\"worstUs\":%.2f}%s", name, figures.medianUs,
              figures.p99Us, figures.worstUs, end);
}

kj::Own<StateStore> open(kernelio::Env& env, kj::WaitScope& scope) {
  return openStateStore(env, "state", {}).wait(scope);
}

void fill(kernelio::Env& env, kj::WaitScope& scope, const RepositoryId& repository, size_t refs) {
  auto store = open(env, scope);
  for (size_t done = 0, index = 1; done < refs; ++index) {
    auto batch = store->newBatch();
    for (const size_t end = std::min(refs, done + kBatchRefs); done < end; ++done) {
      batch->put(refKey(repository, nameOf(done)), encodeRef(idOf(done), {}));
    }
    replicator::LogPosition position;
    position.index = replicator::RecordIndex(index);
    store->write(kj::mv(batch), position);
  }
  store->flush().wait(scope);
}

// An update of one ref, and then one that makes a new ref: with what the rules look at.
void decide(const StateReader& state, const RepositoryId& repository, size_t number) {
  const std::string name = nameOf(number), fresh = "refs/heads/new/" + std::to_string(number);
  std::vector<RefUpdateView> updates(2);
  updates[0].name = name;
  updates[0].oldId = idOf(number);
  updates[0].newId = idOf(number + 1);
  updates[0].forward = true;
  updates[1].name = fresh;
  updates[1].newId = idOf(number);
  const RefDecision decision = decideRefs(StateRefs(state, repository, false), updates, true);
  KJ_REQUIRE(decision.done == 2, "the updates were refused", number);
}

int run(const char* folder, size_t refs) {
  auto io = kj::setupAsyncIo();
  kernelio::RealEnvOptions options;
  options.dataFolder = folder;
  auto real = kernelio::makeRealEnv(io, options);
  RepositoryId repository;
  repository.bytes.fill(7);
  const auto begin = Clock::now();
  fill(real->env(), io.waitScope, repository, refs);
  const double fillSeconds = std::chrono::duration<double>(Clock::now() - begin).count();
  auto store = open(real->env(), io.waitScope);
  std::mt19937_64 random(1);
  std::vector<size_t> numbers(kLookups);
  for (auto& number : numbers) number = random() % refs;
  std::string row;
  auto lookUp = [&](size_t i) {
    const auto state = store->snapshot();
    KJ_REQUIRE(state->get(refKey(repository, nameOf(numbers[i])), row), "a ref is missing", numbers[i]);
  };
  const Figures first = timed(kLookups, lookUp), again = timed(kLookups, lookUp);
  const Figures absent = timed(kLookups, [&](size_t i) {
    const auto state = store->snapshot();
    KJ_REQUIRE(!state->exists(refKey(repository, nameOf(numbers[i]) + "x")), "a ref is there", numbers[i]);
  });
  const Figures decided =
      timed(kLookups, [&](size_t i) { decide(*store->snapshot(), repository, numbers[i]); });
  std::printf("{\"refs\":%zu,\"fillSeconds\":%.3f,", refs, fillSeconds);
  print("first", first, ",");
  print("again", again, ",");
  print("absent", absent, ",");
  print("decide", decided, "}\n");
  return 0;
}

}  // namespace
}  // namespace packmoor::gitlayer

int main(int argc, char** argv) {
  if (argc != 4 || std::string(argv[2]) != "--refs" || std::atol(argv[3]) <= 0) {
    std::fprintf(stderr, "usage: refs_bench FOLDER --refs N\n");
    return 2;
  }
  try {
    return packmoor::gitlayer::run(argv[1], static_cast<size_t>(std::atol(argv[3])));
  } catch (const kj::Exception& exception) {
    std::fprintf(stderr, "refs_bench: %s\n", exception.getDescription().cStr());
    return 1;
  }
}
