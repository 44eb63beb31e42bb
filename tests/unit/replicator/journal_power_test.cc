// Goal: whatever instant the power goes, what was acknowledged is read back in order, nothing is
// invented, promises are kept and the log goes on. Method: a random workload on a simulated disk
// with small segments; power is cut at every write boundary, during and after the write, then again
// in the life that recovers; each recovered state is compared with a model.
#include "journal_model.h"

#include <cstdlib>

namespace packmoor::replicator {
namespace {

using kernelio::PowerCut;
using kernelio::SimStorage;
using kernelio::VirtualLoop;

struct Life {
  size_t calls = 0;
  uint64_t cutAt = 0;  // boundary counted from the life's beginning; 0: none
  PowerCut when = PowerCut::kDuring;
  uint64_t seed = 1;
};

class JournalPowerTest : public testing::Test {
 protected:
  // Opens, compares, works, ends. True: it came to its end with power.
  bool live(SimStorage& storage, JournalModel& model, const Life& life) {
    if (life.cutAt > 0) storage.cutPowerAt(storage.writeBoundaries() + life.cutAt, life.when);
    bool ended = false;
    {
      JournalNode node(loop_, storage, life.seed);
      JournalWorkload workload(node, model, life.seed);
      auto body = [&]() -> kj::Promise<void> {
        return node.openAsync().then([&](Journal::Opened opened) { node.take(kj::mv(opened)); });
      };
      auto run = [&](kj::Promise<void> promise) {
        bool done = false;
        loop_.wait(promise.then([&]() { done = true; }).exclusiveJoin(storage.whenPowerLost()));
        return done;
      };
      if (run(body())) {
        EXPECT_EQ(sentences(node.report()), "");
        if (checkRecovered(node, model, storage) && run(workload.run(life.calls))) {
          ended = run(node.journal().close());
        }
      }
      EXPECT_EQ(node.fatals().size(), 0u);
      boundaries_ = storage.writeBoundaries();
    }
    storage.crash();
    return ended;
  }

  // Comparing reads records, during which the power may go.
  bool checkRecovered(JournalNode& node, JournalModel& model, SimStorage& storage) {
    if (!storage.powered()) return false;
    auto failure = kj::runCatchingExceptions([&]() { model.recovered(node); });
    if (failure == nullptr) return true;
    EXPECT_FALSE(storage.powered()) << KJ_ASSERT_NONNULL(failure).getDescription().cStr();
    return false;
  }

  VirtualLoop loop_{10000 * kj::DAYS};
  uint64_t boundaries_ = 0;
};

TEST_F(JournalPowerTest, EveryWriteBoundary) {
  const char* chosen = std::getenv("PACKMOOR_TEST_SEED");
  const uint64_t firstSeed = chosen == nullptr ? 1 : std::strtoull(chosen, nullptr, 10);
  const uint64_t seeds = chosen == nullptr ? 4 : 1;
  for (uint64_t seed = firstSeed; seed < firstSeed + seeds; ++seed) {
    uint64_t boundaries = 0;
    {
      SimStorage storage(seed);
      JournalModel model;
      ASSERT_TRUE(live(storage, model, {.calls = 250, .seed = seed}));
      boundaries = boundaries_;
      ASSERT_TRUE(live(storage, model, {.calls = 10, .seed = seed + 1}));
    }
    ASSERT_GT(boundaries, 100u);
    for (uint64_t cut = 1; cut <= boundaries; ++cut) {
      for (auto when : {PowerCut::kDuring, PowerCut::kAfter}) {
        SCOPED_TRACE("seed " + std::to_string(seed) + " cut " + std::to_string(cut) +
                     (when == PowerCut::kDuring ? " during" : " after"));
        SimStorage storage(seed * 1000003 + cut);
        JournalModel model;
        ASSERT_FALSE(live(storage, model, {250, cut, when, seed}));
        // Two lives that end soon, often while they recover; then one that ends well.
        live(storage, model, {20, 1 + (cut * 7 + seed) % 12, PowerCut::kDuring, seed + 1});
        live(storage, model, {60, 1 + (cut * 5 + seed) % 40, PowerCut::kDuring, seed + 2});
        ASSERT_TRUE(live(storage, model, {.calls = 15, .seed = seed + 3}));
        ASSERT_TRUE(live(storage, model, {.calls = 0, .seed = seed + 4}));
      }
    }
  }
}

TEST_F(JournalPowerTest, ManyLives) {
  for (uint64_t seed = 100; seed < 130; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    kernelio::SeededRandom random(seed);
    SimStorage storage(seed);
    JournalModel model;
    for (uint64_t life = 0; life < 12; ++life) {
      live(storage, model, {random.below(120), random.below(3) == 0 ? 0 : 1 + random.below(150),
                            random.below(2) == 0 ? PowerCut::kDuring : PowerCut::kAfter,
                            random.next()});
    }
    ASSERT_TRUE(live(storage, model, {.calls = 0, .seed = seed}));
  }
}

}  // namespace
}  // namespace packmoor::replicator
