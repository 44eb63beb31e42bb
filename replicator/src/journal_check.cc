// A closed segment read again, for whoever looks for rot before a restart does (scrubber.h).
#include "journal_impl.h"
#include "journal_scan.h"

#include <algorithm>
#include <cstring>

namespace packmoor::replicator {

using format::FrameHeader;

namespace {

constexpr size_t kCheckReadBytes = 256u << 10;

struct Range {
  uint64_t from = 0, to = 0;
};

// Which of a segment's bytes are intact batches, by the rule of recovery, and what the scan says of
// the others.
class IntactFrames final : public ScanVisitor {
 public:
  void frame(kj::StringPtr file, uint64_t offset, const FrameHeader& header,
             kj::ArrayPtr<const kj::byte> body) override {
    auto failure = kj::runCatchingExceptions([&]() {
      size_t at = 0;
      for (uint32_t i = 0; i < header.entryCount; ++i) {
        const auto entry = format::parseEntry(body, at);
        if (entry.kind != format::EntryKind::kRecord) continue;
        KJ_REQUIRE(format::toRecord(entry)->hash == entry.record.hash,
                   "a record has another hash than it says", entry.record.index);
      }
      KJ_REQUIRE(at == body.size(), "there are bytes behind the last entry");
    });
    KJ_IF_MAYBE(exception, failure) {
      problems.push_back(kj::str("A batch in ", file, " at offset ", offset,
                                 " cannot be read: ", exception->getDescription()).cStr());
      return;
    }
    ++batches;
    last = header.headerHash;
    const uint64_t end = offset + format::frameBytes(header.bodyBytes);
    if (!intact.empty() && intact.back().to == offset) {
      intact.back().to = end;
    } else {
      intact.push_back({offset, end});
    }
  }
  void gap(kj::StringPtr, bool) override {}   // what is not intact tells it
  void blemish(kj::StringPtr sentence) override { problems.push_back(sentence.cStr()); }

  std::vector<Range> intact;
  std::vector<std::string> problems;
  uint64_t batches = 0;
  Hash128 last;
};

struct SegmentBytes {
  kj::Array<kj::byte> bytes;
  kj::Vector<kernelio::ByteRange> bad;
};

}  // namespace

std::vector<uint64_t> JournalImpl::closedSegments() {
  std::vector<uint64_t> closed;
  for (auto& [sequence, segment] : segments_) {
    if (segment != active_) closed.push_back(sequence);
  }
  return closed;
}

kj::Promise<SegmentCheck> JournalImpl::checkSegment(uint64_t sequence, Pace& pace) {
  return checkBody(sequence, pace);
}

Co<SegmentCheck> JournalImpl::checkBody(uint64_t sequence, Pace& pace) {
  SegmentCheck check;
  auto found = segments_.find(sequence);
  if (found == segments_.end() || found->second == active_) co_return check;
  SegmentRef segment = found->second;  // it is not reused while this holds it
  auto content = std::make_shared<SegmentBytes>();
  content->bytes = kj::heapArray<kj::byte>(segment->bytes);
  std::memset(content->bytes.begin(), 0, content->bytes.size());
  for (uint64_t at = 0; at < segment->bytes; at += kCheckReadBytes) {
    const size_t bytes = std::min<uint64_t>(kCheckReadBytes, segment->bytes - at);
    co_await pace(bytes);
    auto reading = segment->file->readSectors(at, bytes);
    auto read = co_await kj::mv(reading);
    std::memcpy(content->bytes.begin() + at, read.data.begin(), read.data.size());
    for (auto& range : read.bad) content->bad.add(range);
  }
  // The next segment's first batch says which one is the last of this.
  kj::Maybe<Hash128> lastHash;
  auto next = segments_.upper_bound(sequence);
  if (next != segments_.end()) {
    SegmentRef after = next->second;
    auto reading = after->file->readSectors(0, format::kFrameAlignment);
    auto first = co_await kj::mv(reading);
    FrameHeader header;
    if (first.bad.size() == 0 && format::parseHeader(first.data.bytes(), identity_, header) &&
        header.segmentSequence == after->sequence) {
      lastHash = header.previousHash;
    }
  }
  auto scanning = env_.workers.run([content, segment, identity = identity_]() {
    IntactFrames frames;
    FrameChain chain;
    SegmentScanner scanner(chain, identity, frames);
    scanner.scan(segment->name.c_str(), segment->sequence, content->bytes, content->bad);
    return frames;
  });
  auto frames = co_await kj::mv(scanning);
  auto inUse = segments_.find(sequence);
  if (inUse == segments_.end() || inUse->second != segment) co_return check;  // needed no more
  check.bytes = segment->bytes;
  check.batches = frames.batches;
  check.damage = std::move(frames.problems);

  uint64_t at = 0;
  auto bad = [&](uint64_t to) {
    check.damage.push_back(kj::str("The journal is damaged in ", segment->name.c_str(),
                                   " from offset ", at, " to ", to, ".").cStr());
  };
  for (const Range& range : frames.intact) {
    if (range.from > at) bad(range.from);
    at = range.to;
  }
  KJ_IF_MAYBE(hash, lastHash) {
    if (frames.batches == 0 || frames.last != *hash) bad(segment->bytes);
  }
  auto isIntact = [&](const RecordPlace& place) {
    auto range = std::upper_bound(frames.intact.begin(), frames.intact.end(), place.offset,
                                  [](uint64_t offset, const Range& r) { return offset < r.to; });
    return range != frames.intact.end() && range->from <= place.offset &&
           uint64_t{place.offset} + place.bytes <= range->to;
  };
  for (auto& [id, volume] : volumes_) {
    for (RecordIndex index = volume->log.firstIn(sequence);
         index <= volume->log.last().index && volume->log.place(index).segment == sequence;
         index = index.next()) {
      if (!isIntact(volume->log.place(index))) check.volumes[id] = index;
    }
  }
  co_return check;
}

}  // namespace packmoor::replicator
