#include "scrubber_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

constexpr kj::StringPtr kFile = "scrub"_kj;

Co<kj::Own<Scrubber>> openBody(kj::Own<ScrubberImpl> scrubber) {
  co_await scrubber->load();
  co_return kj::mv(scrubber);
}

}  // namespace

kj::StringPtr phaseName(ScrubPhase phase) {
  switch (phase) {
    case ScrubPhase::kIdle: return "idle"_kj;
    case ScrubPhase::kExtents: return "extents"_kj;
    case ScrubPhase::kJournal: return "journal"_kj;
    case ScrubPhase::kState: return "state"_kj;
  }
  KJ_UNREACHABLE;
}

kj::Promise<kj::Own<Scrubber>> Scrubber::open(ScrubParts parts, ScrubOptions options) {
  return openBody(kj::heap<ScrubberImpl>(parts, options));
}

ScrubberImpl::ScrubberImpl(ScrubParts parts, ScrubOptions options)
    : parts_(parts), options_(options), rate_(parts.env.timer, options.bytesPerSecond),
      pace_([this](uint64_t bytes) { return take(bytes); }) {}

Co<void> ScrubberImpl::load() {
  auto content = co_await kernelio::readWholeFile(parts_.env.disk, kFile, kScrubProgressBytesMax);
  bool known = false;
  KJ_IF_MAYBE(bytes, content) {
    auto decoded = decodeScrubProgress(*bytes);
    KJ_IF_MAYBE(progress, decoded) {
      progress_ = kj::mv(*progress);
      known = true;
    } else {
      KJ_LOG(WARNING, "what the scrubber remembered is damaged; it begins anew");
    }
  }
  if (known) co_return;
  progress_.status.sinceMs = wallMs();
  auto saving = saveNow();
  co_await kj::mv(saving);
}

// ---- Life ---------------------------------------------------------------------------------------

kj::Promise<void> ScrubberImpl::run() {
  return runForever().promise().exclusiveJoin(mendForever());
}

Co<void> ScrubberImpl::runForever() {
  auto ready = outcomeOf(parts_.replicator.whenReady(kReadyMs));
  auto ignored = co_await kj::mv(ready);
  (void)ignored;  // what opens later has its turn later
  for (;;) {
    if (!due()) {
      co_await woken_.waitFor(parts_.env.timer, kTickMs);
      continue;
    }
    auto passing = outcomeOf(pass().promise());
    auto failure = co_await kj::mv(passing);
    KJ_IF_MAYBE(exception, failure) {
      if (!progress_.status.paused) {
        progress_.status.waits = exception->getDescription().cStr();
        KJ_LOG(WARNING, "the scrubber could not go on; it tries again", exception->getDescription());
        co_await woken_.waitFor(parts_.env.timer, kMendPauseMs);
      }
    }
  }
}

Co<void> ScrubberImpl::mendForever() {
  for (;;) {
    // Volumes mend by themselves, and are looked at often; a block is asked for again and again.
    const auto& findings = progress_.status.findings;
    const bool volumesMend = std::any_of(findings.begin(), findings.end(), [](const auto& finding) {
      return finding.mendedMs == 0 && finding.kind != ScrubPhase::kExtents;
    });
    co_await mendWanted_.waitFor(parts_.env.timer, volumesMend ? kTickMs : kMendPauseMs);
    auto mending = outcomeOf(mendAll().promise());
    auto failure = co_await kj::mv(mending);
    KJ_IF_MAYBE(exception, failure) {
      KJ_LOG(WARNING, "what the scrubber found could not be mended; it tries again",
             exception->getDescription());
    }
  }
}

int64_t ScrubberImpl::dueMs() const {
  const ScrubStatus& status = progress_.status;
  return (status.lastPassMs > 0 ? status.lastPassMs : status.sinceMs) + options_.intervalMs;
}

bool ScrubberImpl::due() {
  const ScrubStatus& status = progress_.status;
  if (status.paused) return false;
  return progress_.wanted || status.phase != ScrubPhase::kIdle || wallMs() >= dueMs();
}

kj::Promise<void> ScrubberImpl::take(uint64_t bytes) {
  if (progress_.status.paused) return KJ_EXCEPTION(DISCONNECTED, "the scrubber is paused");
  if (bytes == 0) return kj::READY_NOW;
  told(bytes);
  return rate_.take(bytes);
}

void ScrubberImpl::told(uint64_t bytes) {
  ScrubStatus& status = progress_.status;
  status.bytesDone += bytes;
  status.waits.clear();
  recentBytes_ += bytes;
  const int64_t passedMs = nowMs() - recentMs_;
  if (passedMs < kTickMs) return;
  status.bytesPerSecond = recentBytes_ * 1000 / static_cast<uint64_t>(passedMs);
  recentBytes_ = 0;
  recentMs_ = nowMs();
}

ScrubStatus ScrubberImpl::status() {
  ScrubStatus status = progress_.status;
  status.dueMs = status.phase == ScrubPhase::kIdle ? dueMs() : 0;
  if (status.paused || status.phase == ScrubPhase::kIdle) status.bytesPerSecond = 0;
  return status;
}

// ---- What operators ask -------------------------------------------------------------------------

kj::Promise<void> ScrubberImpl::start() {
  progress_.wanted = progress_.wanted || progress_.status.phase == ScrubPhase::kIdle;
  woken_.notify();
  return saveNow();
}

kj::Promise<void> ScrubberImpl::pause() {
  progress_.status.paused = true;
  return saveNow();
}

kj::Promise<void> ScrubberImpl::resume() {
  progress_.status.paused = false;
  woken_.notify();
  return saveNow();
}

kj::Promise<void> ScrubberImpl::acknowledge() {
  for (ScrubFinding& finding : progress_.status.findings) {
    if (finding.mendedMs > 0) finding.acknowledged = true;
  }
  dropOld();
  return saveNow();
}

// ---- What is remembered -------------------------------------------------------------------------

kj::Promise<void> ScrubberImpl::save() {
  return nowMs() - savedMs_ < kSaveMs ? kj::Promise<void>(kj::READY_NOW) : saveNow();
}

// One write at a time, each of all there is then; it goes on when whoever asked for it is gone. Durable
// when it resolves.
kj::Promise<void> ScrubberImpl::saveNow() {
  savedMs_ = nowMs();
  auto before = saved_.addBranch().catch_([](kj::Exception&&) {});
  saved_ = before.then([this]() {
    auto content = encodeScrubProgress(progress_);
    auto replaced = kernelio::replaceFile(parts_.env.disk, kFile, content);
    return replaced.attach(kj::mv(content));
  }).fork();
  return saved_.addBranch();
}

}  // namespace packmoor::replicator
