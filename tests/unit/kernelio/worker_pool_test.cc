// Goal: both worker pools run jobs as worker_pool.h says: values and exceptions come back, what
// has not begun can be dropped, what has begun is waited for.
#include "kernelio/sim_env.h"
#include "kernelio/thread_pool.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <atomic>
#include <future>
#include <thread>

namespace packmoor::kernelio {
namespace {

class ThreadPoolTest : public ::testing::Test {
 protected:
  ~ThreadPoolTest() noexcept override {}

  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(io_.waitScope);
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
};

TEST_F(ThreadPoolTest, CarriesValuesAndExceptionsBack) {
  auto pool = makeThreadPool(io_.unixEventPort, 2);
  EXPECT_EQ(pool->threadCount(), 2u);
  auto here = std::this_thread::get_id();
  auto there = wait(pool->run([]() { return std::this_thread::get_id(); }));
  EXPECT_NE(here, there);
  EXPECT_EQ(*wait(pool->run([]() { return kj::heap<int>(7); })), 7);  // values that only move
  bool ran = false;
  wait(pool->run([&ran]() { ran = true; }));
  EXPECT_TRUE(ran);
  auto failing = pool->run([]() -> int { KJ_FAIL_REQUIRE("a job that fails"); });
  auto failure = kj::runCatchingExceptions([&]() { wait(kj::mv(failing)); });
  EXPECT_TRUE(KJ_ASSERT_NONNULL(failure).getDescription().endsWith("a job that fails"));
}

TEST_F(ThreadPoolTest, RunsManyJobs) {
  auto pool = makeThreadPool(io_.unixEventPort, 4);
  kj::Vector<kj::Promise<int>> jobs;
  for (int i = 0; i < 5000; ++i) jobs.add(pool->run([i]() { return i * 2; }));
  auto results = wait(kj::joinPromises(jobs.releaseAsArray()));
  for (int i = 0; i < 5000; ++i) EXPECT_EQ(results[i], i * 2);
}

TEST_F(ThreadPoolTest, DropsWhatHasNotBegun) {
  auto pool = makeThreadPool(io_.unixEventPort, 1);
  std::promise<void> go, begun;
  auto gate = go.get_future().share();
  auto first = pool->run([&begun, gate]() {
    begun.set_value();
    gate.wait();
  });
  begun.get_future().wait();
  bool ran = false;
  { auto dropped = pool->run([&ran]() { ran = true; }); }
  auto last = pool->run([]() {});
  go.set_value();
  wait(kj::mv(first));
  wait(kj::mv(last));
  EXPECT_FALSE(ran);
}

TEST_F(ThreadPoolTest, ADroppedPromiseDoesNotStopAJobThatHasBegun) {
  std::atomic<bool> done{false};
  {
    auto pool = makeThreadPool(io_.unixEventPort, 1);
    std::promise<void> begun;
    {
      auto dropped = pool->run([&]() {
        begun.set_value();
        std::this_thread::yield();
        done = true;
      });
      begun.get_future().wait();
    }
  }  // the destructor waits
  EXPECT_TRUE(done);
}

TEST_F(ThreadPoolTest, ShuttingDownRejectsWhatIsWaitedFor) {
  auto pool = makeThreadPool(io_.unixEventPort, 1);
  std::promise<void> go, begun;
  auto running = pool->run([&]() {
    begun.set_value();
    go.get_future().wait();
  });
  begun.get_future().wait();
  auto waiting = pool->run([]() {});
  go.set_value();
  pool = nullptr;
  auto failure = kj::runCatchingExceptions([&]() { wait(kj::mv(waiting)); });
  EXPECT_EQ(KJ_ASSERT_NONNULL(failure).getType(), kj::Exception::Type::DISCONNECTED);
}

TEST_F(ThreadPoolTest, TheQueueIsBounded) {
  auto pool = makeThreadPool(io_.unixEventPort, 1);
  std::promise<void> go, begun;
  auto gate = go.get_future().share();
  kj::Vector<kj::Promise<void>> jobs;
  jobs.add(pool->run([&begun, gate]() {
    begun.set_value();
    gate.wait();
  }));
  begun.get_future().wait();
  for (size_t i = 0; i < WorkerPool::kQueueMax; ++i) jobs.add(pool->run([]() {}));
  auto failure = kj::runCatchingExceptions([&]() { wait(pool->run([]() {})); });
  EXPECT_EQ(KJ_ASSERT_NONNULL(failure).getType(), kj::Exception::Type::OVERLOADED);
  go.set_value();
  wait(kj::joinPromises(jobs.releaseAsArray()));
  wait(pool->run([]() {}));
}

TEST(LoopWorkerPool, RunsJobsInOrderOnePerTurn) {
  VirtualLoop loop;
  LoopWorkerPool pool;
  EXPECT_EQ(pool.threadCount(), 0u);
  std::string order;
  auto second = kj::Promise<void>(nullptr);
  auto first = pool.run([&]() { order += 'a'; });
  second = pool.run([&]() { order += 'b'; });
  { auto dropped = pool.run([&]() { order += 'x'; }); }
  auto third = pool.run([&]() { return order.size(); });
  EXPECT_EQ(order, "");
  EXPECT_EQ(loop.wait(kj::mv(third)), 2u);
  EXPECT_EQ(order, "ab");
  auto failing = pool.run([]() { KJ_FAIL_REQUIRE("a job that fails"); });
  EXPECT_TRUE(kj::runCatchingExceptions([&]() { loop.wait(kj::mv(failing)); }) != nullptr);
}

}  // namespace
}  // namespace packmoor::kernelio
