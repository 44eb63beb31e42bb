#include "journal_replay.h"

#include "kernelio/check.h"

namespace packmoor::replicator {

using format::Entry;
using format::EntryKind;
using format::FrameHeader;

void JournalReplay::frame(kj::StringPtr file, uint64_t offset, const FrameHeader& header,
                          kj::ArrayPtr<const kj::byte> body) {
  ++batches;
  bytes += format::frameBytes(header.bodyBytes);
  const bool snapshot = (header.flags & format::kFrameSnapshot) != 0;
  bool inFacts = snapshot;
  listed_.clear();
  auto endFacts = [&]() {
    inFacts = false;
    std::erase_if(volumes, [&](auto& item) { return listed_.count(item.first) == 0; });
    mayMissVolumes = (header.flags & format::kFrameMayMissVolumes) != 0;
  };

  size_t at = 0;
  for (uint32_t i = 0; i < header.entryCount; ++i) {
    Entry entry = format::parseEntry(body, at);
    const Place place{file, header.segmentSequence,
                      offset + sizeof(FrameHeader) + entry.offset};
    if (entry.kind == EntryKind::kFacts) {
      KJ_REQUIRE(inFacts, "A journal batch has facts outside of a snapshot.", file, offset);
      facts(entry, place);
      continue;
    }
    if (inFacts) endFacts();
    apply(entry, place);
  }
  if (inFacts) endFacts();
  KJ_REQUIRE(at == body.size(), "A journal batch has bytes behind its last entry.", file, offset);
}

void JournalReplay::gap(kj::StringPtr sentence, bool oldest) {
  (oldest ? oldestGaps_ : damage).add(kj::heapString(sentence));
  mayMissVolumes = true;
  for (auto& [id, volume] : volumes) volume.doubt = true;
}

void JournalReplay::blemish(kj::StringPtr sentence) { damage.add(kj::heapString(sentence)); }

void JournalReplay::apply(const Entry& entry, const Place& place) {
  if (entry.kind == EntryKind::kDrop) {
    volumes.erase(entry.volume);
    return;
  }
  auto found = volumes.find(entry.volume);
  if (found == volumes.end()) {
    found = volumes.emplace(entry.volume, ReplayedVolume{}).first;
    found->second.doubt = mayMissVolumes;
  }
  ReplayedVolume& volume = found->second;

  switch (entry.kind) {
    case EntryKind::kRecord:
      record(volume, entry, place);
      break;
    case EntryKind::kTruncate:
      endAt(volume, entry.volume, entry.position, place);
      break;
    case EntryKind::kPromise:
      volume.promise = entry.promise;
      break;
    case EntryKind::kCheckpoint:
      if (entry.replace) {
        volume.island.reset();
        volume.log.reset(entry.position);
      }
      checkpoint(volume, entry.position);
      break;
    case EntryKind::kWhole:
      volume.suspect = false;
      break;
    case EntryKind::kDrop:
    case EntryKind::kFacts:
      break;  // above
  }
}

void JournalReplay::record(ReplayedVolume& volume, const Entry& entry, const Place& place) {
  const LogPosition position{RecordIndex(entry.record.index), Epoch(entry.record.epoch),
                             entry.record.hash};
  const Hash128& previousHash = entry.record.previousHash;
  KJ_REQUIRE(position.index.value > 0, "A journal record has index 0.", place.file, place.offset);
  KJ_REQUIRE(place.segment < UINT32_MAX && place.offset + entry.bytes < UINT32_MAX,
             "A journal segment is larger than this version reads.", place.file);
  const RecordPlace where{static_cast<uint32_t>(place.segment),
                          static_cast<uint32_t>(place.offset), static_cast<uint32_t>(entry.bytes)};

  VolumeLog& tail = volume.island ? *volume.island : volume.log;
  if (tail.follows(position.index, previousHash)) {
    tail.append(position, where);
    return;
  }
  if (!volume.doubt && !volume.island) contradiction(volume, entry.volume, place);

  // It does not follow, so something of this volume is lost before it: a truncation, or records.
  const LogPosition previous{RecordIndex(position.index.value - 1), Epoch(), previousHash};
  for (VolumeLog* log : {&tail, &volume.log}) {
    if (!log->holds(previous)) continue;
    log->truncate(previous.index);
    log->append(position, where);
    if (log == &volume.log) volume.island.reset();
    return;
  }
  volume.island.emplace(previous);
  volume.island->append(position, where);
}

// The log ends at `last` from here on, by a truncation or as a snapshot says.
void JournalReplay::endAt(ReplayedVolume& volume, const VolumeId& id, const LogPosition& last,
                          const Place& place) {
  if (volume.island) {
    if (volume.island->holds(last)) {
      volume.island->truncate(last.index);
      return;
    }
    if (volume.log.holds(last)) {
      volume.island.reset();
      volume.log.truncate(last.index);
      return;
    }
    volume.island->reset(last);
    return;
  }
  if (volume.log.holds(last)) {
    volume.log.truncate(last.index);
    return;
  }
  // A truncation to below the first record kept is told in full by its position.
  if (last.index < volume.log.base().index) {
    volume.log.reset(last);
    return;
  }
  if (!volume.doubt) contradiction(volume, id, place);
  volume.island.emplace(last);
}

void JournalReplay::checkpoint(ReplayedVolume& volume, const LogPosition& position) {
  volume.checkpoint = position;
  if (volume.island && position.index >= volume.island->base().index) {
    // Nothing up to the checkpoint is needed, so the lost records are not. The checkpoint has
    // what the island's base may lack: its epoch.
    VolumeLog island = std::move(*volume.island);
    volume.island.reset();
    if (position.index > island.last().index) {
      island.reset(position);
    } else if (position.index == island.base().index) {
      island.setBase(position);
    } else {
      island.release(position.index);
    }
    volume.log = std::move(island);
  } else if (volume.doubt && position.index > volume.log.last().index) {
    volume.log.reset(position);
  }
}

void JournalReplay::facts(const Entry& entry, const Place& place) {
  listed_.insert(entry.volume);
  auto [found, isNew] = volumes.emplace(entry.volume, ReplayedVolume{});
  ReplayedVolume& volume = found->second;
  if (isNew) {
    volume.log.reset(entry.last);
  } else {
    endAt(volume, entry.volume, entry.last, place);
  }
  checkpoint(volume, entry.checkpoint);
  volume.promise = entry.promise;
  volume.suspect = entry.suspect;
  volume.doubt = false;
}

void JournalReplay::contradiction(ReplayedVolume& volume, const VolumeId& id, const Place& place) {
  damage.add(kj::str("The journal contradicts itself in ", place.file, " at offset ", place.offset,
                     ": the entry does not continue the log of volume ", id, "."));
  volume.doubt = true;
}

void JournalReplay::doubtAll() {
  for (auto& [id, volume] : volumes) volume.doubt = true;
}

void JournalReplay::finish() {
  bool missing = mayMissVolumes;
  for (auto& [id, volume] : volumes) {
    if (volume.doubt) missing = volume.suspect = true;
    if (volume.island) {
      missing = volume.suspect = true;
      damage.add(kj::str("Volume ", id, " has lost its records from ",
                         volume.log.last().index.next(), " to ", volume.island->base().index,
                         " here."));
      volume.island.reset();
    }
    if (volume.log.base().index > volume.checkpoint.index) {
      missing = volume.suspect = true;
      damage.add(kj::str("Volume ", id, " has lost its records from ",
                         volume.checkpoint.index.next(), " to ", volume.log.base().index,
                         " here."));
    }
  }
  if (!missing) return;
  for (auto& sentence : oldestGaps_) damage.add(kj::mv(sentence));
}

RecoveryReport makeReport(const ScanResult& scan, JournalReplay& replay) {
  RecoveryReport report;
  report.journal = scan.identity.journal;
  report.batches = replay.batches;
  report.bytes = replay.bytes;
  report.tornBytes = scan.tornBytes;
  report.mayMissVolumes = replay.mayMissVolumes;
  report.damage = kj::mv(replay.damage);
  for (auto& [id, volume] : replay.volumes) {
    report.volumes[id] = {volume.promise, volume.log.base(), volume.log.last(),
                          volume.checkpoint, volume.suspect};
  }
  return report;
}

}  // namespace packmoor::replicator
