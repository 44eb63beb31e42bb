// Goal: IoBuffer shares aligned memory and releases it with the last reference.
#include "kernelio/io_buffer.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace packmoor::kernelio {
namespace {

TEST(IoBuffer, IsAlignedAndZeroed) {
  for (size_t bytes : {size_t{1}, size_t{4095}, size_t{4096}, size_t{4097}, size_t{1} << 20}) {
    IoBuffer buffer = IoBuffer::allocate(bytes);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.begin()) % kIoAlignment, 0u);
    for (kj::byte byte : buffer.bytes()) ASSERT_EQ(byte, 0);
  }
}

TEST(IoBuffer, EmptyBuffersHoldNothing) {
  EXPECT_EQ(IoBuffer().size(), 0u);
  EXPECT_EQ(IoBuffer::allocate(0).size(), 0u);
  EXPECT_EQ(IoBuffer::copyOf(nullptr).size(), 0u);
  IoBuffer copy = IoBuffer();
  EXPECT_EQ(copy.slice(0, 0).size(), 0u);
}

TEST(IoBuffer, CopiesShareTheBytes) {
  IoBuffer first = IoBuffer::allocate(8192);
  IoBuffer second = first;
  first.begin()[5] = 7;
  EXPECT_EQ(second.begin(), first.begin());
  first = IoBuffer();
  EXPECT_EQ(second.begin()[5], 7);
}

TEST(IoBuffer, MovesLeaveNothingBehind) {
  IoBuffer first = IoBuffer::copyOf(kj::StringPtr("abc").asBytes());
  IoBuffer second = kj::mv(first);
  EXPECT_EQ(first.size(), 0u);
  EXPECT_EQ(second.begin()[2], 'c');
  IoBuffer& same = second;
  second = same;  // assigning to itself keeps the bytes
  EXPECT_EQ(second.begin()[0], 'a');
}

TEST(IoBuffer, ASliceKeepsTheWholeAlive) {
  IoBuffer part;
  {
    IoBuffer whole = IoBuffer::copyOf(kj::StringPtr("hello, disk").asBytes());
    part = whole.slice(7, 4);
  }
  EXPECT_EQ(part.size(), 4u);
  EXPECT_EQ(part.begin()[0], 'd');
  EXPECT_EQ(part.slice(1, 2).begin()[1], 's');
}

TEST(IoBuffer, MayBeReleasedOnAnyThread) {
  IoBuffer buffer = IoBuffer::copyOf(kj::StringPtr("shared").asBytes());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([copy = buffer]() {
      for (int j = 0; j < 1000; ++j) {
        IoBuffer another = copy;
        ASSERT_EQ(another.begin()[0], 's');
      }
    });
  }
  buffer = IoBuffer();
  for (auto& thread : threads) thread.join();
}

TEST(IoBufferDeathTest, ASliceBeyondTheEndEndsTheProcess) {
  IoBuffer buffer = IoBuffer::allocate(10);
  EXPECT_DEATH(buffer.slice(5, 6), "slicing a buffer");
  EXPECT_DEATH(buffer.slice(SIZE_MAX, 2), "slicing a buffer");
}

}  // namespace
}  // namespace packmoor::kernelio
