// LatencyHistogram: how long something took, counted in buckets of about 12 % each.
//
// Why: a power of two is too coarse to compare a journal's batch with a bare disk write, and a
// list of all samples grows without bound. Eight buckets to each doubling are enough for both, in a
// fixed array. Up to 8 us the buckets are 1 us wide. Plain value; copy it to take a snapshot.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace packmoor::kernelio {

class LatencyHistogram {
 public:
  static constexpr size_t kBucketCount = 8 + 8 * 29;  // up to 2^32 us; what is above counts there

  void add(uint64_t us) { ++counts_[bucketOf(us)]; }
  uint64_t count(size_t bucket) const { return counts_[bucket]; }
  uint64_t total() const;

  // The first value, in microseconds, above the bucket.
  static uint64_t boundUs(size_t bucket);
  static size_t bucketOf(uint64_t us);

  // The bound of the bucket in which the given share (0 to 1) of all samples is reached; 0: empty.
  uint64_t quantileUs(double share) const;

 private:
  std::array<uint64_t, kBucketCount> counts_{};
};

}  // namespace packmoor::kernelio
