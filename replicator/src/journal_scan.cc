#include "journal_scan.h"

#include <algorithm>

namespace packmoor::replicator {

using format::FrameHeader;
using format::JournalIdentity;
using format::kFrameAlignment;
using format::kMarkerSlotBytes;
using format::kMarkerSlots;
using kernelio::Disk;
using kernelio::File;
using kernelio::SectorRead;

namespace {

bool readableAt(const SectorRead& read, uint64_t offset) {
  for (auto& range : read.bad) {
    if (offset >= range.offset && offset < range.offset + range.bytes) return false;
  }
  return true;
}

Co<MarkerState> readMarker(Disk& disk, kj::StringPtr folder) {
  MarkerState state;
  auto path = kj::str(folder, "/", kMarkerFile);
  state.present = co_await disk.exists(path);
  if (!state.present) co_return state;
  auto file = co_await disk.open(path, {});
  SectorRead read = co_await file->readSectors(0, kMarkerSlots * kMarkerSlotBytes);
  for (size_t at = 0; at + kMarkerSlotBytes <= read.data.size(); at += kMarkerSlotBytes) {
    format::MarkerSlot slot;
    auto bytes = kj::ArrayPtr<const kj::byte>(read.data.bytes()).slice(at, at + kMarkerSlotBytes);
    if (!readableAt(read, at) || !format::parseMarker(bytes, slot)) continue;
    ++state.slotsIntact;
    if (state.slotsIntact == 1 || slot.counter > state.newest.counter) state.newest = slot;
  }
  co_return state;
}

// Reads the first sector of a segment, and all of it when that does not say whose it is.
Co<SegmentFile> identify(Disk& disk, kj::StringPtr folder, kj::String name,
                         JournalIdentity& identity) {
  SegmentFile segment;
  segment.name = name.cStr();
  auto file = co_await disk.open(kj::str(folder, "/", name), {});
  segment.bytes = file->size();
  SectorRead first = co_await file->readSectors(0, kFrameAlignment);
  FrameHeader header;
  JournalIdentity found;
  const JournalIdentity wanted = identity;
  if (format::parseHeader(first.data.bytes(), wanted, header)) {
    segment.sequence = header.segmentSequence;
    found = {header.journal, header.salt};
  } else {
    SectorRead all = co_await file->readSectors(0, segment.bytes);
    segment.sequence = identifySegment(all.data.bytes(), wanted, found);
    segment.unreadable = !readableAt(first, 0);
  }
  // Without a marker, what the frames agree on is the journal's identity.
  if (!identity.known() && segment.sequence > 0) identity = found;
  co_return segment;
}


// Whether an intact frame lies at the very beginning: reads it alone.
Co<bool> begins(File& file, const SegmentFile& segment, const JournalIdentity& identity) {
  SectorRead first = co_await file.readSectors(0, kFrameAlignment);
  FrameHeader header;
  if (!readableAt(first, 0) || !format::parseHeader(first.data.bytes(), identity, header)) {
    co_return false;
  }
  const uint64_t bytes = format::frameBytes(header.bodyBytes);
  if (header.segmentSequence != segment.sequence || bytes > segment.bytes) co_return false;
  SectorRead frame = co_await file.readSectors(0, bytes);
  if (frame.bad.size() > 0 || frame.data.size() < bytes) co_return false;
  co_return format::bodyIsIntact(
      header, kj::ArrayPtr<const kj::byte>(frame.data.bytes())
                  .slice(sizeof header, sizeof header + header.bodyBytes));
}

// Sorts the files into those that make up the journal and the others. The journal begins with
// the first segment that has an intact first frame: what comes before has been released and was
// being overwritten, or else recovery will find that records are missing.
Co<void> chooseSegments(Disk& disk, kj::StringPtr folder, std::vector<SegmentFile> found,
                        ScanResult& result) {
  std::sort(found.begin(), found.end(),
            [](auto& a, auto& b) { return a.sequence < b.sequence; });
  bool begun = false;
  for (auto& segment : found) {
    if (segment.sequence > 0 && !begun) {
      auto file = co_await disk.open(kj::str(folder, "/", segment.name), {});
      segment.begins = co_await begins(*file, segment, result.identity);
      begun = segment.begins;
    }
    (begun ? result.segments : result.unused).push_back(segment);
  }
  if (begun) co_return;
  // No segment begins well: read what there is.
  for (auto& segment : found) {
    if (segment.sequence > 0) result.segments.push_back(segment);
  }
  std::erase_if(result.unused, [](auto& segment) { return segment.sequence > 0; });
}

// What follows the last frame: never written, torn, or rotten.
Co<void> judgeEnd(Disk& disk, kj::StringPtr folder, ScanResult& result, ScanVisitor& visitor) {
  FrameChain& chain = result.chain;
  const uint64_t known = result.marker.slotsIntact > 0 ? result.marker.newest.batchSequence : 0;
  auto rot = [&](kj::String why) {
    result.rotAtEnd = true;
    visitor.gap(why, false);
  };
  auto where = chain.file.empty() ? kj::str("its first segment")
                                  : kj::str(chain.file, " at offset ", chain.offset);
  if (result.marker.slotsIntact == 0) {
    rot(kj::str("The journal's marker is lost, so it is not known whether batches are missing "
                "behind ", chain.sequence, " (", where, ")."));
  } else if (known > chain.sequence) {
    rot(kj::str("The journal is damaged in ", where, ": batch ", chain.sequence + 1,
                " is not there, and batches up to ", known, " were acknowledged."));
  } else if (chain.sequenceHighest > chain.sequence + 1) {
    rot(kj::str("The journal is damaged in ", where, ": batch ", chain.sequence + 1,
                " is not there, but batch ", chain.sequenceHighest, " was begun after it."));
  }
  if (chain.file.empty()) co_return;

  for (auto& segment : result.unused) {
    if (segment.unreadable && !result.rotAtEnd) {
      rot(kj::str("The first sector of ", segment.name, " cannot be read; it may have held batch ",
                  chain.sequence + 1, "."));
    }
  }
  if (result.rotAtEnd) co_return;
  auto file = co_await disk.open(kj::str(folder, "/", chain.file), {});
  SectorRead next = co_await file->readSectors(chain.offset, kFrameAlignment);
  FrameHeader header;
  if (format::parseHeader(next.data.bytes(), result.identity, header) &&
      header.batchSequence == chain.sequence + 1) {
    result.tornBytes = format::frameBytes(header.bodyBytes);
    next = co_await file->readSectors(chain.offset, result.tornBytes);
  }
  if (next.bad.size() > 0) {
    result.tornBytes = 0;
    rot(kj::str("The journal cannot be read in ", where, "; batch ", chain.sequence + 1,
                " may have been there."));
  }
}

}  // namespace

Co<ScanResult> scanJournal(Disk& disk, kj::String folder, ScanVisitor& visitor) {
  ScanResult result;
  result.marker = co_await readMarker(disk, folder);
  if (result.marker.slotsIntact > 0) {
    result.identity = {result.marker.newest.journal, result.marker.newest.salt};
  }

  auto names = co_await disk.list(folder);
  std::vector<SegmentFile> found;
  for (auto& name : names) {
    if (!name.startsWith(kSegmentPrefix)) continue;
    auto segment = co_await identify(disk, folder, kj::heapString(name), result.identity);
    found.push_back(segment);
  }
  co_await chooseSegments(disk, folder, std::move(found), result);

  SegmentScanner scanner(result.chain, result.identity, visitor);
  for (auto& segment : result.segments) {
    auto file = co_await disk.open(kj::str(folder, "/", segment.name), {});
    if (!segment.begins) segment.begins = co_await begins(*file, segment, result.identity);
    SectorRead all = co_await file->readSectors(0, segment.bytes);
    scanner.scan(segment.name.c_str(), segment.sequence, all.data.bytes(), all.bad);
  }
  if (result.identity.known()) co_await judgeEnd(disk, folder, result, visitor);
  co_return result;
}

}  // namespace packmoor::replicator
