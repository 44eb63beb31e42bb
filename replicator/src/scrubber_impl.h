// ScrubberImpl: see replicator/scrubber.h. scrubber.cc has its life and what it remembers;
// scrub_pass.cc what a pass reads; scrub_mend.cc what becomes of what it finds.
#pragma once

#include "kernelio/co.h"
#include "rate_limit.h"
#include "scrub_progress.h"
#include "tasks.h"

#include <set>

namespace packmoor::replicator {

class ScrubberImpl final : public Scrubber {
 public:
  static constexpr int64_t kTickMs = 1000;
  static constexpr int64_t kSaveMs = 10'000;        // of reading that a crash may have done again
  static constexpr int64_t kMendPauseMs = 10'000;   // between attempts at what stands
  static constexpr int64_t kReadyMs = 60'000;       // so long the volumes have to open

  ScrubberImpl(ScrubParts parts, ScrubOptions options);

  Co<void> load();
  kj::Promise<void> run() override;
  kj::Promise<void> start() override;
  kj::Promise<void> pause() override;
  kj::Promise<void> resume() override;
  kj::Promise<void> acknowledge() override;
  ScrubStatus status() override;

 private:
  // scrubber.cc
  Co<void> runForever();
  Co<void> mendForever();
  kj::Promise<void> save();                         // now and then
  kj::Promise<void> saveNow();
  bool due();
  int64_t dueMs() const;
  kj::Promise<void> take(uint64_t bytes);           // the pace of all reading; rejects when paused
  void told(uint64_t bytes);
  int64_t wallMs() { return parts_.env.clock.nowMs(); }
  int64_t nowMs() { return monotonicMs(parts_.env.timer); }

  // scrub_pass.cc
  Co<void> beginPass();
  Co<void> pass();
  Co<uint64_t> totalBytes();
  Co<void> scrubExtents();
  Co<void> scrubExtent(ExtentInfo extent);
  Co<void> scrubJournal();
  Co<void> scrubState();
  Co<void> scrubVolume(std::string name);
  Co<void> next(ScrubPhase phase);

  // scrub_mend.cc
  void found(ScrubFinding finding, bool mended);
  ScrubStatus::Count& countOf(ScrubPhase kind);
  void mended(ScrubFinding& finding);
  void dropOld();
  Co<void> mendAll();
  Co<bool> mendExtent(ExtentId extent, uint64_t place, std::string& problem);
  bool mendJournal(const ScrubFinding& finding, std::string& problem);
  bool mendState(const ScrubFinding& finding, std::string& problem);
  void judgeSegment(uint64_t sequence, const SegmentCheck& check);

  const ScrubParts parts_;
  const ScrubOptions options_;
  RateLimit rate_;
  Pace pace_;
  ScrubProgress progress_;
  kj::ForkedPromise<void> saved_ = kj::Promise<void>(kj::READY_NOW).fork();
  int64_t savedMs_ = 0;
  uint64_t recentBytes_ = 0;                        // of the last second that has passed
  int64_t recentMs_ = 0;
  std::set<uint64_t> harmless_;                     // segments with damage where nothing is needed
  std::set<std::string> lettingGo_;                 // volumes that do
  Signal woken_, mendWanted_;
  Tasks tasks_{"scrubber"};
};

}  // namespace packmoor::replicator
