// Goal: a body that comes too slowly ends, and one that is slow for a while does not. Method: a timer that
// the test moves.
#include "http_streams.h"

#include <gtest/gtest.h>

namespace packmoor::rpc {
namespace {

class SlowBody : public ::testing::Test {
 protected:
  ~SlowBody() noexcept override {}

  // Gives `bytes` bytes after each 900 ms, `times` times. False: the body was given up before.
  bool give(size_t bytes, int times) {
    const std::string piece(bytes, 'b');
    for (int i = 0; i < times; ++i) {
      size_t got = 0;
      auto reading = body_.tryRead(buffer_, 1, sizeof buffer_).then([&got](size_t n) { got = n; })
                         .eagerlyEvaluate([](kj::Exception&&) {});
      EXPECT_FALSE(reading.poll(wait_));
      timer_.advanceTo(timer_.now() + 900 * kj::MILLISECONDS);
      if (reading.poll(wait_) && got == 0) return false;
      auto writing = pipe_.out->write(piece.data(), piece.size());
      reading.wait(wait_);
      writing.wait(wait_);
      EXPECT_EQ(got, bytes);
    }
    return true;
  }
  static BodyLimits limits() {
    BodyLimits limits;
    limits.bytesMax = 1'000'000;
    limits.stallTimeout = 1 * kj::SECONDS;
    limits.rateMin = 100;
    return limits;
  }

  kj::EventLoop loop_;
  kj::WaitScope wait_{loop_};
  kj::TimerImpl timer_{kj::origin<kj::TimePoint>()};
  kj::OneWayPipe pipe_ = kj::newOneWayPipe();
  BoundedBody body_{*pipe_.in, timer_, limits()};
  kj::byte buffer_[4096];
};

TEST_F(SlowBody, ATrickleEndsAfterTenStalls) {
  EXPECT_TRUE(give(1, 11));
  EXPECT_FALSE(give(1, 1));
  EXPECT_EQ(body_.problem(), BoundedBody::Problem::kStalled);
}

TEST_F(SlowBody, WhatBroughtEnoughMayBeSlowForALongTime) {
  EXPECT_TRUE(give(4000, 1));
  EXPECT_TRUE(give(1, 50));
  EXPECT_FALSE(give(1, 10));
}

TEST_F(SlowBody, ARateThatIsEnoughGoesOn) {
  EXPECT_TRUE(give(91, 200));
  EXPECT_EQ(body_.problem(), BoundedBody::Problem::kNone);
}

}  // namespace
}  // namespace packmoor::rpc
