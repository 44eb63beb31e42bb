// Goal: the daemon's Env is put together from the machine, and bad choices are refused in words.
#include "kernelio/real_env.h"

#include "support/temp_dir.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <algorithm>
#include <ctime>
#include <string>
#include <vector>

namespace packmoor::kernelio {
namespace {

TEST(RealEnv, WorksWithEveryBackend) {
  for (DiskBackend backend : {DiskBackend::kAuto, DiskBackend::kThreads}) {
    testing::TempDir folder;
    auto io = kj::setupAsyncIo();
    auto real = makeRealEnv(io, {.dataFolder = folder.path().c_str(), .backend = backend,
                                 .workerThreads = 3});
    Env& env = real->env();
    EXPECT_EQ(env.workers.threadCount(), 3u);
    EXPECT_EQ(env.disk.root(), folder.path().c_str());
    bool threads = real->ring() == nullptr;
    EXPECT_EQ(env.disk.backend(), threads ? "threads" : "io_uring");
    // Threads without having asked for them is never silent.
    EXPECT_EQ(real->fallbackReason().size() > 0, threads && backend == DiskBackend::kAuto);
    replaceFile(env.disk, "a", kj::StringPtr("b").asBytes()).wait(io.waitScope);
    env.faults.hit("nothing").wait(io.waitScope);
    env.timer.afterDelay(1 * kj::MICROSECONDS).wait(io.waitScope);
    EXPECT_NEAR(env.clock.nowMs() / 1000, std::time(nullptr), 2);
    EXPECT_NE(env.random.next(), env.random.next());
    EXPECT_EQ(env.workers.run([]() { return 5; }).wait(io.waitScope), 5);
  }
}

TEST(RealEnv, RefusesAMissingFolder) {
  auto io = kj::setupAsyncIo();
  auto failure = kj::runCatchingExceptions(
      [&]() { makeRealEnv(io, {.dataFolder = "/nonexistent/packmoor"}); });
  std::string sentence = KJ_ASSERT_NONNULL(failure).getDescription().cStr();
  EXPECT_EQ(sentence,
            "Could not open the folder /nonexistent/packmoor: No such file or directory.");
}

TEST(SystemRandom, FillsBuffersOfAnySize) {
  auto random = makeSystemRandom();
  std::vector<kj::byte> bytes(100'000);
  random->fill(kj::arrayPtr(bytes.data(), bytes.size()));
  EXPECT_GT(std::count_if(bytes.begin(), bytes.end(), [](kj::byte b) { return b >= 128; }), 45'000);
}

}  // namespace
}  // namespace packmoor::kernelio
