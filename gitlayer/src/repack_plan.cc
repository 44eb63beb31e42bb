#include "repack_plan.h"

#include "record_codec.h"

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

constexpr uint64_t kFactor = 2;

// How many of the packs, by size, have to become one so that the sizes are a geometric progression.
size_t notGeometric(const std::vector<PackRow>& bySize) {
  size_t end = bySize.size();
  while (end > 1 && bySize[end - 1].packBytes >= kFactor * bySize[end - 2].packBytes) --end;
  if (end <= 1) return 0;
  uint64_t total = 0;
  for (size_t i = 0; i < end; ++i) total += bySize[i].packBytes;
  for (; end < bySize.size() && bySize[end].packBytes < kFactor * total; ++end) {
    total += bySize[end].packBytes;
  }
  return end;
}

}  // namespace

std::vector<PackRow> chooseRepack(std::vector<PackRow> packs, const RepackBounds& bounds) {
  std::erase_if(packs, [&](const PackRow& pack) {
    return pack.packBytes > bounds.bytesMax || pack.objectCount > kRepackObjectsMax;
  });
  std::sort(packs.begin(), packs.end(), [](const PackRow& a, const PackRow& b) {
    return a.packBytes != b.packBytes ? a.packBytes < b.packBytes : a.pack < b.pack;
  });
  packs.resize(std::min(notGeometric(packs), kRepackPacksMax));
  uint64_t bytes = 0, objects = 0;
  size_t count = 0;
  for (; count < packs.size(); ++count) {
    bytes += packs[count].packBytes;
    objects += packs[count].objectCount;
    if (bytes > bounds.bytesMax || objects > kRepackObjectsMax) break;
  }
  packs.resize(count);
  if (count < std::max<size_t>(2, bounds.packsMin)) return {};
  std::sort(packs.begin(), packs.end(),
            [](const PackRow& a, const PackRow& b) { return a.pack < b.pack; });
  return packs;
}

}  // namespace packmoor::gitlayer
