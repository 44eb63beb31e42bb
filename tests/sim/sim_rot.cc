#include "sim_rot.h"

#include "replicator/journal_format.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace packmoor::replicator {

namespace {
constexpr size_t kSegmentsMax = 64;     // that are looked for
constexpr char kMarker[] = "journal/marker";
}  // namespace

std::map<uint64_t, JournalFrame> journalFrames(const kernelio::SimStorage& storage) {
  std::map<uint64_t, JournalFrame> frames;
  for (size_t n = 0; n < kSegmentsMax; ++n) {
    char path[40];
    std::snprintf(path, sizeof path, "journal/segment-%06zu", n);
    auto content = storage.content(path);
    KJ_IF_MAYBE(bytes, content) {
      for (uint64_t at = 0; at + sizeof(format::FrameHeader) <= bytes->size();
           at += format::kFrameAlignment) {
        format::FrameHeader header;
        std::memcpy(&header, bytes->begin() + at, sizeof header);
        if (header.magic != format::kFrameMagic ||
            header.bodyBytes > bytes->size() - at - sizeof header) {
          continue;
        }
        frames[header.batchSequence] = {path, at, sizeof header + header.bodyBytes};
      }
    }
  }
  return frames;
}

uint64_t newestBatch(const kernelio::SimStorage& storage) {
  const auto frames = journalFrames(storage);
  return frames.empty() ? 0 : frames.rbegin()->first;
}

uint64_t markedBatch(const kernelio::SimStorage& storage) {
  uint64_t newest = 0;
  auto content = storage.content(kMarker);
  KJ_IF_MAYBE(bytes, content) {
    for (size_t at = 0; at + format::kMarkerSlotBytes <= bytes->size();
         at += format::kMarkerSlotBytes) {
      format::MarkerSlot slot;
      if (!format::parseMarker(bytes->slice(at, at + format::kMarkerSlotBytes), slot)) continue;
      newest = std::max<uint64_t>(newest, slot.batchSequence);
    }
  }
  return newest;
}

size_t rotBatchesAfter(kernelio::SimStorage& storage, uint64_t sequence) {
  const auto frames = journalFrames(storage);
  size_t batches = 0;
  for (auto it = frames.upper_bound(sequence); it != frames.end(); ++it, ++batches) {
    storage.rot(it->second.path.c_str(), it->second.at, it->second.bytes);
  }
  return batches;
}

}  // namespace packmoor::replicator
