#include "journal_impl.h"

#include <algorithm>

namespace packmoor::replicator {

using format::EntryKind;
using kernelio::IoBuffer;

namespace {
constexpr uint64_t kRunBytesMax = 4u << 20;    // of one disk read, unless one record is larger
constexpr uint64_t kRunHoleMax = 64u << 10;    // bytes of other volumes read along
}  // namespace

// A record to be returned: there already, or at a place in a segment that is kept from reuse.
struct JournalImpl::Wanted {
  RecordIndex index;
  Hash128 hash;
  RecordRef record;
  RecordPlace place;
  SegmentRef segment;
};

kj::Promise<kj::Array<RecordRef>> JournalImpl::read(VolumeId id, RecordIndex first,
                                                    size_t bytesMax) {
  JournalVolume* volume = find(id);
  const LogPosition base = volume == nullptr ? LogPosition() : volume->log.base();
  KJ_REQUIRE(first > base.index,
             "The journal does not hold this record any more; it is below the first one kept.",
             id, first, base.index);
  std::vector<Wanted> wanted;
  if (volume != nullptr) {
    const auto& recent = volume->recent;
    const RecordIndex last = volume->log.last().index;
    size_t bytes = 0;
    for (RecordIndex index = first; index <= last; index = index.next()) {
      Wanted want{index, volume->log.hash(index), nullptr, volume->log.place(index), nullptr};
      if (!recent.empty() && index >= recent.front().record->index) {
        want.record = recent[index.value - recent.front().record->index.value].record;
        bytes += want.record->bytes();
      } else {
        bytes += want.place.bytes;
      }
      if (!wanted.empty() && bytes > bytesMax) break;
      if (want.record == nullptr) {
        auto segment = segments_.find(want.place.segment);
        PACKMOOR_CHECK(segment != segments_.end(), "a record in a segment that is not in use: ",
                       index, " ", want.place.segment);
        want.segment = segment->second;
      }
      wanted.push_back(std::move(want));
    }
  }
  return readBody(id, std::move(wanted));
}

Co<kj::Array<RecordRef>> JournalImpl::readBody(VolumeId id, std::vector<Wanted> wanted) {
  size_t begin = 0;
  while (begin < wanted.size()) {
    if (wanted[begin].record != nullptr) {
      ++begin;
      continue;
    }
    // As many records of one segment as lie close together are one disk read.
    const uint64_t start = wanted[begin].place.offset;
    uint64_t runEnd = start + wanted[begin].place.bytes;
    size_t end = begin + 1;
    for (; end < wanted.size(); ++end) {
      const Wanted& next = wanted[end];
      const uint64_t nextEnd = uint64_t{next.place.offset} + next.place.bytes;
      if (next.record != nullptr || next.segment != wanted[begin].segment) break;
      if (next.place.offset < runEnd || next.place.offset - runEnd > kRunHoleMax) break;
      if (nextEnd - start > kRunBytesMax) break;
      runEnd = nextEnd;
    }
    co_await readRun(id, kj::arrayPtr(wanted.data() + begin, end - begin));
    begin = end;
  }
  auto records = kj::heapArrayBuilder<RecordRef>(wanted.size());
  for (auto& want : wanted) records.add(std::move(want.record));
  co_return records.finish();
}

Co<void> JournalImpl::readRun(const VolumeId& id, kj::ArrayPtr<Wanted> run) {
  Segment& segment = *run[0].segment;
  const uint64_t from = run[0].place.offset / kernelio::kIoAlignment * kernelio::kIoAlignment;
  const uint64_t to = format::roundUp(run.back().place.offset + uint64_t{run.back().place.bytes},
                                      kernelio::kIoAlignment);
  const IoBuffer data = co_await segment.file->read(from, to - from);
  for (Wanted& want : run) {
    const uint64_t at = want.place.offset - from;
    kj::Maybe<kj::Exception> failure = kj::runCatchingExceptions([&]() {
      KJ_REQUIRE(at + want.place.bytes <= data.size(), "the file is too short");
      size_t offset = 0;
      auto entry = format::parseEntry(data.bytes().slice(at, at + want.place.bytes), offset);
      KJ_REQUIRE(entry.kind == EntryKind::kRecord && entry.volume == id, "it is another entry");
      RecordRef record = format::toRecord(entry);
      KJ_REQUIRE(record->index == want.index && record->hash == want.hash,
                 "its checksum does not match");
      want.record = kj::mv(record);
    });
    KJ_IF_MAYBE (exception, failure) {
      kj::throwFatalException(kj::Exception(
          kj::Exception::Type::FAILED, __FILE__, __LINE__,
          kj::str("Record ", want.index, " of volume ", id, " is damaged on disk, in ",
                  segment.name.c_str(), " of the journal at offset ", want.place.offset, ": ",
                  exception->getDescription())));
    }
  }
}

}  // namespace packmoor::replicator
