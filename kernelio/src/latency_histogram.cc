#include "kernelio/latency_histogram.h"

#include <algorithm>
#include <bit>

namespace packmoor::kernelio {

size_t LatencyHistogram::bucketOf(uint64_t us) {
  if (us < 8) return us;
  const size_t octave = std::bit_width(us) - 4;   // 0: 8 to 15
  const size_t part = (us >> octave) - 8;         // 0 to 7
  return std::min(8 + octave * 8 + part, kBucketCount - 1);
}

uint64_t LatencyHistogram::boundUs(size_t bucket) {
  if (bucket < 8) return bucket + 1;
  const size_t octave = (bucket - 8) / 8, part = (bucket - 8) % 8;
  return (part + 9) << octave;
}

uint64_t LatencyHistogram::total() const {
  uint64_t sum = 0;
  for (uint64_t count : counts_) sum += count;
  return sum;
}

uint64_t LatencyHistogram::quantileUs(double share) const {
  const uint64_t all = total();
  if (all == 0) return 0;
  const auto wanted = static_cast<uint64_t>(share * static_cast<double>(all));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBucketCount; ++i) {
    seen += counts_[i];
    if (seen > wanted || seen == all) return boundUs(i);
  }
  return boundUs(kBucketCount - 1);
}

}  // namespace packmoor::kernelio
