// Scrubber: reads everything that this node keeps, again and again, and sees that it is still there.
//
// Why: a sector that has gone bad is mended while another member has its content. What nobody reads
// for months is bad on two members before anybody knows.
//
// A pass reads, from the disk itself: the blocks and sidecars of all sealed extents, the journal's
// closed segments that are needed, the files of every volume's stored state. What it finds is mended:
//   extent    a block comes from another member, a sidecar from what is in memory
//   journal   the volumes whose records lie there make a checkpoint above them and let them go; what
//             recovery would find is then needed no more. Nothing is forgotten by this node: rot of
//             records that are applied is no loss of promises (rule 17 is for what a restart finds)
//   state     by the volume, with a checkpoint of another member (StateMachine::damage)
// What cannot be mended stays a finding, and is tried again.
//
// It keeps to `bytesPerSecond`, and does its checksums of segments on the worker pool. Pausing ends
// what it reads; the piece at hand is read again.
//
// Durable, in the file `scrub` of the data directory, replaced whole: how far the pass is, that it is
// paused, when passes were completed, and findings. Damage of that file begins a pass anew.
//
// Owner: the node; dropped before the Replicator. Loop: the node's.
#pragma once

#include "replicator/replicator.h"

namespace packmoor::replicator {

struct ScrubOptions {
  uint64_t bytesPerSecond = 32ull << 20;            // 0: no bound
  int64_t intervalMs = 7ll * 24 * 3600 * 1000;      // from the end of a pass to the next one
};

enum class ScrubPhase : uint8_t { kIdle, kExtents, kJournal, kState };
constexpr size_t kScrubPhases = 4;
kj::StringPtr phaseName(ScrubPhase phase);          // "idle", "extents", "journal", "state"

struct ScrubFinding {
  ScrubPhase kind = ScrubPhase::kIdle;
  std::string volume;                // of journal and state
  ExtentId extent;
  uint64_t place = 0;                // block (UINT64_MAX: the sidecar); journal: the highest record
  std::string what;                  // a sentence: what is damaged, and where
  std::string problem;               // why it is not mended yet; a sentence without its end
  int64_t foundMs = 0, mendedMs = 0; // wall clock; 0: it is not mended
  bool acknowledged = false;         // an operator has seen that it was mended
};

struct ScrubStatus {
  bool paused = false;
  ScrubPhase phase = ScrubPhase::kIdle;
  uint64_t bytesDone = 0, bytesTotal = 0;           // of the pass
  int64_t passBeganMs = 0, lastPassMs = 0;          // wall clock; 0: never
  int64_t dueMs = 0;                                // when the next pass begins by itself
  int64_t sinceMs = 0;                              // since when this node is scrubbed
  uint64_t passes = 0, bytesPerSecond = 0;
  std::string waits;                                // why a pass does not get on; empty: it does
  struct Count {
    uint64_t found = 0, mended = 0;
  };
  Count extents, journal, state;                    // ever
  std::vector<ScrubFinding> findings;               // oldest first; all that stand, and the newest
};

struct ScrubParts {
  kernelio::Env& env;
  Journal& journal;
  ExtentStore& extents;
  Replicator& replicator;
};

class Scrubber {
 public:
  static constexpr size_t kFindingsMax = 256;       // that are remembered one by one
  static constexpr int64_t kMendedMs = 24ll * 3600 * 1000;  // a mended finding is kept so long

  static kj::Promise<kj::Own<Scrubber>> open(ScrubParts parts, ScrubOptions options);
  virtual ~Scrubber() noexcept(false) {}

  virtual kj::Promise<void> run() = 0;              // until dropped; call once
  // A pass begins now, unless one is under way. Each resolves when that is durable.
  virtual kj::Promise<void> start() = 0;
  virtual kj::Promise<void> pause() = 0;            // until resume(), over restarts
  virtual kj::Promise<void> resume() = 0;
  virtual kj::Promise<void> acknowledge() = 0;      // all that is mended
  virtual ScrubStatus status() = 0;
};

}  // namespace packmoor::replicator
