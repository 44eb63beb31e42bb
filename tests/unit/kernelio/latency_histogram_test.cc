// LatencyHistogram: every value lies below its bucket's bound and not below the one before, and
// quantiles come out within a bucket's width.
#include "kernelio/latency_histogram.h"

#include <gtest/gtest.h>

namespace packmoor::kernelio {
namespace {

TEST(LatencyHistogramTest, BucketsCoverEveryValueOnce) {
  for (uint64_t us : {0ull, 1ull, 7ull, 8ull, 9ull, 15ull, 16ull, 17ull, 100ull, 255ull, 256ull,
                      1000ull, 65535ull, 1000000ull, 4000000000ull}) {
    const size_t bucket = LatencyHistogram::bucketOf(us);
    EXPECT_LT(us, LatencyHistogram::boundUs(bucket)) << us;
    if (bucket > 0) {
      EXPECT_GE(us, LatencyHistogram::boundUs(bucket - 1)) << us;
    }
  }
  for (size_t i = 1; i < LatencyHistogram::kBucketCount; ++i) {
    EXPECT_EQ(LatencyHistogram::bucketOf(LatencyHistogram::boundUs(i - 1)), i);
  }
}

TEST(LatencyHistogramTest, QuantilesAreWithinABucket) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.quantileUs(0.5), 0u);
  for (uint64_t us = 1; us <= 1000; ++us) histogram.add(us);
  EXPECT_EQ(histogram.total(), 1000u);
  EXPECT_GE(histogram.quantileUs(0.5), 500u);
  EXPECT_LE(histogram.quantileUs(0.5), 577u);  // a bucket there is 64 wide
  EXPECT_GE(histogram.quantileUs(1), 1000u);
}

TEST(LatencyHistogramTest, WhatIsBeyondTheLastBucketCountsThere) {
  LatencyHistogram histogram;
  histogram.add(uint64_t(1) << 40);
  EXPECT_EQ(histogram.count(LatencyHistogram::kBucketCount - 1), 1u);
}

}  // namespace
}  // namespace packmoor::kernelio
