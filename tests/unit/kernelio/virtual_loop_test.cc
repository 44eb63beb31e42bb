// Goal: virtual time, its random numbers and its fault points are exact and repeatable.
#include "kernelio/virtual_loop.h"

#include "kernelio/co.h"
#include "kernelio/sim_env.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace packmoor::kernelio {
namespace {

TEST(VirtualLoop, JumpsToTheNextTimer) {
  VirtualLoop loop;
  std::string order;
  auto late = loop.timer().afterDelay(2 * kj::HOURS).then([&]() { order += 'b'; });
  auto early = loop.timer().afterDelay(1 * kj::HOURS).then([&]() { order += 'a'; });
  loop.wait(late.exclusiveJoin(kj::NEVER_DONE));
  EXPECT_EQ(order, "b");  // nobody ran `early`: promises are lazy
  loop.wait(kj::mv(early));
  EXPECT_EQ(loop.elapsed(), 2 * kj::HOURS);
}

TEST(VirtualLoop, RunForPassesExactlyThatTime) {
  VirtualLoop loop;
  int ticks = 0;
  struct Ticker {
    static Co<void> run(kj::Timer& timer, int& ticks) {
      while (true) {
        co_await timer.afterDelay(10 * kj::MILLISECONDS);
        ++ticks;
      }
    }
  };
  kj::Promise<void> ticker = Ticker::run(loop.timer(), ticks);
  ticker = ticker.eagerlyEvaluate(nullptr);
  loop.runFor(95 * kj::MILLISECONDS);
  EXPECT_EQ(ticks, 9);
  loop.runFor(5 * kj::MILLISECONDS);
  EXPECT_EQ(ticks, 10);
  EXPECT_EQ(loop.elapsed(), 100 * kj::MILLISECONDS);
  loop.settle();
  EXPECT_EQ(ticks, 10);
}

TEST(VirtualLoop, ADeadlockThrows) {
  VirtualLoop loop;
  auto failure =
      kj::runCatchingExceptions([&]() { loop.wait(kj::Promise<void>(kj::NEVER_DONE)); });
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(failure).getDescription().cStr()).find("deadlock"),
            std::string::npos);
  loop.runFor(1 * kj::SECONDS);  // the loop is still good
}

TEST(VirtualLoop, EndlessTimersHitTheTimeLimit) {
  VirtualLoop loop(1 * kj::HOURS);
  struct Ticker {
    static Co<void> run(kj::Timer& timer) {
      while (true) co_await timer.afterDelay(1 * kj::MINUTES);
    }
  };
  kj::Promise<void> ticker = Ticker::run(loop.timer());
  auto failure = kj::runCatchingExceptions([&]() { loop.wait(kj::mv(ticker)); });
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(failure).getDescription().cStr()).find("time limit"),
            std::string::npos);
}

TEST(SeededRandom, IsTheSameEverywhere) {
  SeededRandom random(42);
  EXPECT_EQ(random.next(), 1546998764402558742u);  // the published algorithm's values
  EXPECT_EQ(random.next(), 6990951692964543102u);
  SeededRandom one(7), other(7);
  std::array<kj::byte, 13> a, b;
  one.fill(kj::arrayPtr(a.data(), a.size()));
  other.fill(kj::arrayPtr(b.data(), b.size()));
  EXPECT_EQ(a, b);
  EXPECT_EQ(one.split().next(), other.split().next());
}

TEST(SeededRandom, BelowIsUniformEnoughAndInBounds) {
  SeededRandom random(1);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70000; ++i) ++counts.at(random.below(7));
  for (int count : counts) EXPECT_NEAR(count, 10000, 500);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0u);
  for (int i = 0; i < 100; ++i) EXPECT_LT(random.below(UINT64_MAX), UINT64_MAX);
  int hits = 0;
  for (int i = 0; i < 100000; ++i) hits += random.chance(100'000) ? 1 : 0;
  EXPECT_NEAR(hits, 10000, 500);
  EXPECT_FALSE(random.chance(0));
  EXPECT_TRUE(random.chance(1'000'000));
}

TEST(SimClock, FollowsTheTimerWithASkew) {
  VirtualLoop loop;
  SimClock clock(loop.timer());
  EXPECT_EQ(clock.nowMs(), SimClock::kStartMs);
  loop.runFor(1500 * kj::MILLISECONDS);
  clock.setSkewMs(-500);
  EXPECT_EQ(clock.nowMs(), SimClock::kStartMs + 1000);
}

TEST(SimFaultPoints, DoWhatTheyAreArmedFor) {
  VirtualLoop loop;
  SimFaultPoints faults(loop.timer());
  loop.wait(faults.hit("a"));
  EXPECT_EQ(faults.hits("a"), 1u);
  EXPECT_EQ(faults.hits("never"), 0u);

  faults.delay("a", 3 * kj::SECONDS, 1, 1);
  loop.wait(faults.hit("a"));
  EXPECT_EQ(loop.elapsed(), 0 * kj::SECONDS);
  loop.wait(faults.hit("a"));
  EXPECT_EQ(loop.elapsed(), 3 * kj::SECONDS);
  loop.wait(faults.hit("a"));
  EXPECT_EQ(loop.elapsed(), 3 * kj::SECONDS);

  faults.reject("b", KJ_EXCEPTION(OVERLOADED, "no"));
  for (int i = 0; i < 2; ++i) {
    auto failure = kj::runCatchingExceptions([&]() { loop.wait(faults.hit("b")); });
    EXPECT_EQ(KJ_ASSERT_NONNULL(failure).getType(), kj::Exception::Type::OVERLOADED);
  }
  faults.disarm("b");
  loop.wait(faults.hit("b"));

  faults.hang("c");
  auto watched = faults.whenHit("c");
  auto hanging = faults.hit("c");
  loop.wait(kj::mv(watched));
  loop.settle();
  EXPECT_FALSE(hanging.poll(loop.waitScope()));
  faults.release("c");
  loop.wait(kj::mv(hanging));
  loop.wait(faults.hit("c"));
}

}  // namespace
}  // namespace packmoor::kernelio
