// JournalReplay: turns a journal's entries, and the gaps between them, into each volume's log.
//
// Why apart: what may be concluded behind a gap is the subtle part of recovery; here it is a pure
// step function over entries, tested and fuzzed without a disk.
//
// Behind a gap a volume is in doubt: entries of it may be lost. What is still known:
//   - A record that follows the log proves that no record before it is lost, and one that
//     follows an earlier record of the log proves a lost truncation. Its promise stays in doubt.
//   - A record that does not follow starts an island: a later run of the log, detached.
//   - A checkpoint at or beyond the island's start makes the lost records needless: the island
//     is the log. So does a replacement or a truncation to a record before the gap.
//   - A snapshot tells promise, checkpoint and last position of every volume: it ends the doubt,
//     or proves the loss.
// At the end a volume in doubt, with an island left over, or without all records above its
// checkpoint, is suspect. Its log is then the run before the first gap that matters.
#pragma once

#include "journal_scan.h"
#include "volume_log.h"

#include <map>
#include <optional>
#include <set>

namespace packmoor::replicator {

struct ReplayedVolume {
  FencePromise promise;
  LogPosition checkpoint;
  VolumeLog log;
  std::optional<VolumeLog> island;
  bool doubt = false;    // since a gap
  bool suspect = false;  // said by a snapshot or by finish()
};

class JournalReplay final : public ScanVisitor {
 public:
  void frame(kj::StringPtr file, uint64_t offset, const format::FrameHeader& header,
             kj::ArrayPtr<const kj::byte> body) override;
  void gap(kj::StringPtr sentence, bool oldest) override;
  void blemish(kj::StringPtr sentence) override;

  // After the last frame: decides who is suspect.
  // Of no volume it is certain that all can be read again.
  void doubtAll();
  void finish();

  std::map<VolumeId, ReplayedVolume> volumes;
  bool mayMissVolumes = false;  // volumes may have been lost of which nothing else is known
  kj::Vector<kj::String> damage;
  uint64_t batches = 0, bytes = 0;

 private:
  struct Place {
    kj::StringPtr file;
    uint64_t segment = 0;
    uint64_t offset = 0;  // of the entry in the segment
  };

  void apply(const format::Entry& entry, const Place& place);
  void record(ReplayedVolume& volume, const format::Entry& entry, const Place& place);
  void endAt(ReplayedVolume& volume, const VolumeId& id, const LogPosition& last,
             const Place& place);
  void checkpoint(ReplayedVolume& volume, const LogPosition& position);
  void facts(const format::Entry& entry, const Place& place);
  void contradiction(ReplayedVolume& volume, const VolumeId& id, const Place& place);

  std::set<VolumeId> listed_;  // by the snapshot being read
  // Gaps in the oldest segment: what a torn reuse of a released segment leaves. They are damage
  // only if something is missing in the end.
  kj::Vector<kj::String> oldestGaps_;
};

// After finish(). Takes the replay's sentences.
RecoveryReport makeReport(const ScanResult& scan, JournalReplay& replay);

}  // namespace packmoor::replicator
