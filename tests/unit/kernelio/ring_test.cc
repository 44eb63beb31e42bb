// Goal: the ring keeps buffers until the kernel is done, batches, bounds what is in flight, and
// reports what system calls return. Method: a real ring on files and pipes; pipes keep reads in
// flight for as long as a test wants.
#include "kernelio/ring.h"

#include "support/temp_dir.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace packmoor::kernelio {
namespace {

// Parameter: whether the kernel side is to defer its work to this thread.
class RingTest : public ::testing::TestWithParam<bool> {
 protected:
  ~RingTest() noexcept override {}

  void SetUp() override {
    auto attempt = Ring::create(io_.unixEventPort, GetParam());
    if (attempt.ring.get() == nullptr) GTEST_SKIP() << attempt.reason.cStr();
    ring_ = kj::mv(attempt.ring);
  }

  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(io_.waitScope);
  }
  SharedFd openFile(const char* name, int flags = O_RDWR | O_CREAT) {
    int fd = ::open(folder_.path(name).c_str(), flags | O_CLOEXEC, 0600);
    EXPECT_GE(fd, 0);
    return std::make_shared<const kj::AutoCloseFd>(fd);
  }
  struct Pipe {
    SharedFd out;
    kj::AutoCloseFd in;
    void put(kj::StringPtr text) {
      EXPECT_EQ(::write(in, text.begin(), text.size()), static_cast<ssize_t>(text.size()));
    }
  };
  Pipe makePipe() {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    return Pipe{std::make_shared<const kj::AutoCloseFd>(fds[0]), kj::AutoCloseFd(fds[1])};
  }

  testing::TempDir folder_;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  kj::Own<Ring> ring_;
};

IoBuffer text(kj::StringPtr content) { return IoBuffer::copyOf(content.asBytes()); }

TEST_P(RingTest, WritesAndReads) {
  auto fd = openFile("a");
  EXPECT_EQ(wait(ring_->write(fd, text("hello"), 3, 0)), 5);
  EXPECT_EQ(wait(ring_->write(fd, text("durable"), 4096, RWF_DSYNC)), 7);
  EXPECT_EQ(wait(ring_->fdatasync(fd)), 0);
  EXPECT_EQ(wait(ring_->allocate(fd, 10000)), 0);
  IoBuffer into = IoBuffer::allocate(8);
  EXPECT_EQ(wait(ring_->read(fd, into, 0)), 8);
  EXPECT_EQ(into.begin()[3], 'h');
  EXPECT_EQ(wait(ring_->read(fd, into, 9996)), 4);
  EXPECT_EQ(wait(ring_->read(fd, into, 10000)), 0);
}

TEST_P(RingTest, FailuresAreNegativeErrorNumbers) {
  auto fd = openFile("a");
  auto readOnly = openFile("a", O_RDONLY);
  EXPECT_EQ(wait(ring_->write(readOnly, text("x"), 0, 0)), -EBADF);
  auto pipe = makePipe();
  EXPECT_EQ(wait(ring_->fdatasync(pipe.out)), -EINVAL);
}

TEST_P(RingTest, ManyOperationsAreBatchedAndBounded) {
  constexpr size_t kCount = 2000;
  auto fd = openFile("a");
  kj::Vector<kj::Promise<int32_t>> writes;
  for (size_t i = 0; i < kCount; ++i) {
    writes.add(ring_->write(fd, text(kj::heapString(kj::str(i, "        ").slice(0, 8))), i * 8, 0));
  }
  EXPECT_LE(ring_->stats().inFlight, Ring::kInFlightMax);
  for (int32_t result : wait(kj::joinPromises(writes.releaseAsArray()))) EXPECT_EQ(result, 8);
  IoBuffer all = IoBuffer::allocate(kCount * 8);
  EXPECT_EQ(wait(ring_->read(fd, all, 0)), static_cast<int32_t>(kCount * 8));
  EXPECT_EQ(kj::heapString(all.bytes().asChars().slice(1999 * 8, 1999 * 8 + 4)), "1999");

  RingStats stats = ring_->stats();
  EXPECT_EQ(stats.operations, kCount + 1);
  EXPECT_EQ(stats.completions, kCount + 1);
  EXPECT_EQ(stats.inFlight, 0u);
  EXPECT_EQ(stats.queued, 0u);
  EXPECT_LE(stats.inFlightMax, Ring::kInFlightMax);
  EXPECT_EQ(stats.batchMax, Ring::kBatchMax);
}

TEST_P(RingTest, TheFirstIsSubmittedAtOnceTheRestTogether) {
  auto pipe = makePipe();
  IoBuffer into = IoBuffer::allocate(1);
  kj::Vector<kj::Promise<int32_t>> reads;
  io_.waitScope.poll();
  for (int i = 0; i < 10; ++i) reads.add(ring_->read(pipe.out, into, 0));
  EXPECT_EQ(ring_->stats().inFlight, 1u);
  EXPECT_EQ(ring_->stats().queued, 9u);
  io_.waitScope.poll();
  EXPECT_EQ(ring_->stats().inFlight, 10u);
  EXPECT_EQ(ring_->stats().submits, 2u);
  EXPECT_EQ(ring_->stats().batchMax, 9u);
  pipe.put("0123456789");
  for (int32_t result : wait(kj::joinPromises(reads.releaseAsArray()))) EXPECT_EQ(result, 1);
}

TEST_P(RingTest, CompletionsThatComeAllAtOnceAreAllSeen) {
  // Kernels process only some deferred completions each time they are entered, and signal once.
  constexpr int kCount = Ring::kInFlightMax;
  auto pipe = makePipe();
  kj::Vector<kj::Promise<int32_t>> reads;
  for (int i = 0; i < kCount; ++i) reads.add(ring_->read(pipe.out, IoBuffer::allocate(1), 0));
  io_.waitScope.poll();
  EXPECT_EQ(ring_->stats().inFlight, static_cast<uint64_t>(kCount));
  pipe.put(std::string(kCount, 'x').c_str());
  for (int32_t result : wait(kj::joinPromises(reads.releaseAsArray()))) EXPECT_EQ(result, 1);
}

TEST_P(RingTest, ADroppedPromiseLeavesTheBufferToTheKernel) {
  auto pipe = makePipe();
  std::weak_ptr<const kj::AutoCloseFd> fd = pipe.out;
  IoBuffer seen;
  {
    IoBuffer into = IoBuffer::allocate(5);
    seen = into;
    auto dropped = ring_->read(kj::mv(pipe.out), kj::mv(into), 0);
  }
  EXPECT_FALSE(fd.expired());
  pipe.put("hello");
  while (ring_->stats().inFlight > 0) {
    wait(io_.provider->getTimer().afterDelay(1 * kj::MILLISECONDS));
  }
  EXPECT_EQ(seen.begin()[4], 'o');
  EXPECT_TRUE(fd.expired());
}

TEST_P(RingTest, TheDestructorWaitsForTheKernel) {
  auto fd = openFile("a");
  IoBuffer data = IoBuffer::allocate(1 << 20);
  kj::Vector<kj::Promise<int32_t>> writes;
  for (int i = 0; i < 20; ++i) writes.add(ring_->write(fd, data, uint64_t{1} << 20, RWF_DSYNC));
  ring_ = nullptr;
  for (auto& write : writes) {
    auto failure = kj::runCatchingExceptions([&]() { wait(kj::mv(write)); });
    EXPECT_TRUE(failure != nullptr);
  }
  EXPECT_EQ(fd.use_count(), 1);
}

TEST_P(RingTest, ManyLoopsEachWithItsRing) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t]() {
      auto io = kj::setupAsyncIo();
      auto attempt = Ring::create(io.unixEventPort, GetParam());
      ASSERT_TRUE(attempt.ring.get() != nullptr);
      auto fd = openFile(std::to_string(t).c_str());
      kj::Vector<kj::Promise<int32_t>> writes;
      for (int i = 0; i < 200; ++i) writes.add(attempt.ring->write(fd, text("abc"), i * 3, 0));
      for (int32_t result : kj::joinPromises(writes.releaseAsArray()).wait(io.waitScope)) {
        EXPECT_EQ(result, 3);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_P(RingTest, TheSetupIsTold) {
  std::string setup = ring_->setup().cStr();
  if (!GetParam()) {
    EXPECT_EQ(setup, "plain, restricted");
  }
  EXPECT_NE(setup, "");
}

INSTANTIATE_TEST_SUITE_P(All, RingTest, ::testing::Bool(), [](const auto& info) {
  return info.param ? "defer_taskrun" : "plain";
});

}  // namespace
}  // namespace packmoor::kernelio
