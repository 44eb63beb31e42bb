#include "journal_scan.h"

namespace packmoor::replicator {

using format::FrameHeader;
using format::JournalIdentity;
using format::kFrameAlignment;

namespace {

bool overlaps(kj::ArrayPtr<const kernelio::ByteRange> ranges, uint64_t offset, uint64_t bytes) {
  for (auto& range : ranges) {
    if (offset < range.offset + range.bytes && range.offset < offset + bytes) return true;
  }
  return false;
}

}  // namespace

bool SegmentScanner::frameAt(uint64_t offset, FrameHeader& header) const {
  if (offset >= bytes_.size()) return false;
  auto rest = bytes_.slice(offset, bytes_.size());
  if (!format::parseHeader(rest, identity_, header)) return false;
  if (header.segmentSequence != segmentSequence_) return false;
  if (header.bodyBytes > rest.size() - sizeof header) return false;
  if (overlaps(bad_, offset, sizeof header + header.bodyBytes)) return false;
  return format::bodyIsIntact(header, rest.slice(sizeof header, sizeof header + header.bodyBytes));
}

bool SegmentScanner::continues(const FrameHeader& header) const {
  if (!chain_.begun) return true;
  return header.batchSequence == chain_.sequence + 1 && header.previousHash == chain_.hash;
}

void SegmentScanner::accept(uint64_t offset, const FrameHeader& header) {
  if (!chain_.begun) chain_.oldestFile = file_.cStr();
  chain_.begun = true;
  chain_.sequence = header.batchSequence;
  chain_.hash = header.headerHash;
  chain_.file = file_.cStr();
  chain_.offset = offset + format::frameBytes(header.bodyBytes);
  chain_.sequenceHighest = std::max(chain_.sequenceHighest, header.batchSequence);
  const size_t body = offset + sizeof header;
  visitor_.frame(file_, offset, header, bytes_.slice(body, body + header.bodyBytes));
}

void SegmentScanner::mapHeaders() {
  if (mapped_) return;
  mapped_ = true;
  for (uint64_t offset = 0; offset < bytes_.size(); offset += kFrameAlignment) {
    FrameHeader header;
    if (!format::parseHeader(bytes_.slice(offset, bytes_.size()), identity_, header)) continue;
    if (header.segmentSequence != segmentSequence_) continue;
    headers_.emplace(header.batchSequence, offset);
    chain_.sequenceHighest = std::max(chain_.sequenceHighest, header.batchSequence);
  }
}

bool SegmentScanner::resume() {
  mapHeaders();
  // Only what is later: each frame that is accepted moves the chain on, so this ends.
  auto it = chain_.begun ? headers_.upper_bound(chain_.sequence) : headers_.begin();
  for (; it != headers_.end(); ++it) {
    FrameHeader header;
    if (!frameAt(it->second, header)) continue;
    if (!chain_.begun) {
      visitor_.gap(kj::str("The journal's oldest segment, ", file_, ", is damaged at its beginning: "
                           "its first intact batch is ", header.batchSequence, " at offset ",
                           it->second, "."), false);
    } else if (continues(header)) {
      visitor_.blemish(kj::str("Batch ", header.batchSequence, " lies at offset ", it->second,
                               " of ", file_, " and not where it belongs: the disk misplaced it."));
    } else {
      visitor_.gap(kj::str("The journal is damaged in ", chain_.file, " at offset ", chain_.offset,
                           ": the next intact batch after ", chain_.sequence, " is ",
                           header.batchSequence, " in ", file_, " at offset ", it->second, "."),
                   chain_.file == chain_.oldestFile);
    }
    chain_.resumedFile = file_.cStr();
    accept(it->second, header);
    return true;
  }
  return false;
}

void SegmentScanner::scan(kj::StringPtr file, uint64_t segmentSequence,
                          kj::ArrayPtr<const kj::byte> bytes,
                          kj::ArrayPtr<const kernelio::ByteRange> bad) {
  file_ = file;
  segmentSequence_ = segmentSequence;
  bytes_ = bytes;
  bad_ = bad;
  mapped_ = false;
  headers_.clear();

  // The first frame of a segment may follow the last one of the segment before; until one is
  // found here, the place where the next was expected is in that segment.
  uint64_t offset = 0;
  while (true) {
    FrameHeader header;
    if (frameAt(offset, header) && continues(header)) {
      accept(offset, header);
    } else if (!resume()) {
      return;
    }
    offset = chain_.offset;
  }
}

uint64_t identifySegment(kj::ArrayPtr<const kj::byte> bytes, const JournalIdentity& identity,
                         JournalIdentity& found) {
  uint64_t highest = 0;
  for (uint64_t offset = 0; offset < bytes.size(); offset += kFrameAlignment) {
    FrameHeader header;
    if (!format::parseHeader(bytes.slice(offset, bytes.size()), identity, header)) continue;
    if (header.segmentSequence > highest) {
      highest = header.segmentSequence;
      found = {header.journal, header.salt};
    }
  }
  return highest;
}

}  // namespace packmoor::replicator
