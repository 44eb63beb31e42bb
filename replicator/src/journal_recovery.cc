#include "journal_impl.h"
#include "journal_replay.h"

#include <cstdlib>

namespace packmoor::replicator {

using kernelio::Env;

namespace {

uint64_t numberOf(kj::StringPtr name) {
  const kj::StringPtr prefix = kSegmentPrefix;
  return std::strtoull(name.slice(prefix.size()).cStr(), nullptr, 10);
}

void checkOptions(const JournalOptions& options) {
  KJ_REQUIRE(options.segmentBytes % format::kFrameAlignment == 0 &&
                 options.segmentBytes >= 8 * format::kFrameAlignment &&
                 options.segmentBytes < UINT32_MAX,
             "A journal's segments are a multiple of 4 KiB, at least 32 KiB, below 4 GiB.",
             options.segmentBytes);
  KJ_REQUIRE(options.segmentsSpare >= 1, "A journal needs at least one spare segment.");
  KJ_REQUIRE(options.batchBytesMax > 0, "A batch of no bytes cannot be.");
}

// What an earlier process had begun to write and given no name.
Co<void> removeUnfinished(Env& env, kj::StringPtr folder) {
  auto names = co_await env.disk.list(folder);
  for (auto& name : names) {
    if (!name.startsWith(kPreparePrefix)) continue;
    co_await env.disk.remove(kj::str(folder, "/", name));
  }
}

Co<SegmentRef> openSegment(Env& env, kj::StringPtr folder, const SegmentFile& found) {
  auto segment = std::make_shared<Segment>();
  segment->name = found.name;
  segment->bytes = found.bytes;
  segment->sequence = found.sequence;
  segment->begins = found.begins;
  segment->file = co_await env.disk.open(kj::str(folder, "/", found.name),
                                         {.write = true, .direct = true});
  co_return segment;
}

// A folder without a journal becomes an empty one. The marker is last: without it, and without
// a frame, there was no journal yet.
Co<format::JournalIdentity> create(Env& env, const JournalOptions& options) {
  format::JournalIdentity identity;
  env.random.fill(kj::arrayPtr(identity.journal.bytes.data(), identity.journal.bytes.size()));
  identity.salt = env.random.next() | 1;
  co_await env.disk.makeFolders(options.folder);
  kj::String parent;
  KJ_IF_MAYBE (slash, options.folder.findLast('/')) {
    parent = kj::heapString(options.folder.slice(0, *slash));
  }
  co_await env.disk.syncDirectory(parent);
  co_await MarkerRing::create(env, kj::heapString(options.folder), identity, options.segmentBytes);
  co_return identity;
}

std::vector<JournalVolumeRef> takeVolumes(JournalReplay& replay) {
  std::vector<JournalVolumeRef> result;
  for (auto& [id, found] : replay.volumes) {
    auto volume = std::make_shared<JournalVolume>();
    volume->id = id;
    volume->log = std::move(found.log);
    volume->released = volume->log.base().index;
    volume->promise = found.promise;
    volume->suspect = found.suspect;
    volume->encodedCheckpoint = volume->durableCheckpoint = found.checkpoint;
    volume->encodedLast = volume->durable = volume->log.last();
    result.push_back(std::move(volume));
  }
  return result;
}

// No segment begins with an intact frame. What lies in the first one can be read now, and not any more
// once another one begins well: it looks as a released one does that was being overwritten.
bool hasLostItsBeginning(const ScanResult& scan) {
  return !scan.segments.empty() && !scan.segments.front().begins;
}

// Sorts the segments into those in use and those to be reused, and decides where to go on:
// behind the last frame; or in a new segment, when what follows is rotten, so that the evidence
// outlives a crash before the first snapshot is durable, and when the last segment is damaged,
// since there a frame may lie out of place, where the next one would go.
Co<void> placeSegments(Env& env, kj::StringPtr folder, const ScanResult& scan,
                       JournalImpl::Start& start) {
  for (auto& found : scan.unused) {
    SegmentRef segment = co_await openSegment(env, folder, found);
    start.pool->add(std::move(segment));
  }
  const bool goOn = !scan.rotAtEnd && scan.chain.resumedFile != scan.chain.file &&
                    !hasLostItsBeginning(scan);
  uint64_t highest = 0;
  for (auto& found : scan.segments) {
    SegmentRef segment = co_await openSegment(env, folder, found);
    // The last process may have died while its last batch was in flight: that was read, but need
    // not be durable yet. From here on it is acknowledged.
    co_await segment->file->sync();
    const std::string name = segment->name;
    highest = std::max(highest, found.sequence);
    start.segments[found.sequence] = std::move(segment);
    if (goOn && name == scan.chain.file) {
      start.segmentSequence = found.sequence;
      start.offset = scan.chain.offset;
    }
  }
  if (start.segmentSequence == 0) {
    start.segmentSequence = highest;
    start.newSegment = true;
    co_return;
  }
  // Segments behind the last frame hold at most a torn frame; they are free.
  while (!start.segments.empty() &&
         std::prev(start.segments.end())->first > start.segmentSequence) {
    auto last = std::prev(start.segments.end());
    start.pool->add(std::move(last->second));
    start.segments.erase(last);
  }
}

Co<Journal::Opened> openBody(Env& env, JournalOptions options, kj::String folder,
                             kj::Function<void(kj::StringPtr)> fatal) {
  options.folder = folder;
  checkOptions(options);
  JournalReplay replay;
  ScanResult scan = co_await scanJournal(env.disk, kj::heapString(folder), replay);
  const bool created = !scan.identity.known();
  if (created) {
    KJ_REQUIRE(!scan.marker.present,
               "The journal has lost its marker and every batch, so this node's identity and all "
               "that it acknowledged is gone. Move its data directory away to let the node join "
               "again as a new member.", folder);
    KJ_REQUIRE(options.create,
               "The journal of this data directory is missing. Put it back, or move the directory "
               "away to let the node join again as a new member.", folder);
    scan.identity = co_await create(env, options);
    scan.marker.newest.counter = format::kMarkerSlots;
  }
  if (hasLostItsBeginning(scan)) replay.doubtAll();
  replay.finish();

  auto journal = kj::heap<JournalImpl>(env, options, kj::mv(fatal));
  JournalImpl::Start start;
  start.identity = scan.identity;
  uint64_t nextNumber = 1;
  for (auto* list : {&scan.segments, &scan.unused}) {
    for (auto& segment : *list) {
      nextNumber = std::max(nextNumber, numberOf(segment.name.c_str()) + 1);
    }
  }
  co_await removeUnfinished(env, folder);
  start.pool = kj::heap<SegmentPool>(
      env, SegmentPoolOptions{folder, options.segmentBytes, options.segmentsSpare}, nextNumber,
      journal->failureHandler());
  co_await placeSegments(env, folder, scan, start);
  const bool markerLost = !created && scan.marker.slotsIntact == 0;
  if (!markerLost) {
    start.marker = co_await MarkerRing::open(env, kj::heapString(folder), scan.identity,
                                             options.segmentBytes, scan.marker.newest.counter);
  }
  // Never a sequence that any frame or marker has had beyond the last one.
  start.batchSequence = scan.chain.sequence + 1;
  if (scan.rotAtEnd) {
    start.batchSequence = std::max({start.batchSequence, scan.chain.sequenceHighest + 1,
                                    scan.marker.newest.batchSequence + 1});
  }
  start.previousHash = scan.chain.hash;
  start.mayMissVolumes = replay.mayMissVolumes;
  RecoveryReport report = makeReport(scan, replay);
  report.created = created;
  start.volumes = takeVolumes(replay);
  co_await journal->start(kj::mv(start));
  if (markerLost) {
    co_await MarkerRing::create(env, kj::heapString(folder), scan.identity, options.segmentBytes);
    auto marker = co_await MarkerRing::open(env, kj::heapString(folder), scan.identity,
                                            options.segmentBytes, format::kMarkerSlots);
    journal->setMarker(kj::mv(marker));
  }
  co_return Journal::Opened{kj::mv(journal), kj::mv(report)};
}

}  // namespace

kj::Promise<Journal::Opened> Journal::open(Env& env, JournalOptions options,
                                           kj::Function<void(kj::StringPtr)> fatal) {
  auto folder = kj::heapString(options.folder);
  return openBody(env, options, kj::mv(folder), kj::mv(fatal));
}

}  // namespace packmoor::replicator
