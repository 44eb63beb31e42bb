// What a pass reads.
#include "scrubber_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

uint64_t blocksOf(const ExtentInfo& extent) {
  return (extent.bytes + kBlockBytes - 1) / kBlockBytes;
}

}  // namespace

Co<void> ScrubberImpl::pass() {
  if (progress_.status.phase == ScrubPhase::kIdle) co_await beginPass();
  if (progress_.status.phase == ScrubPhase::kExtents) {
    co_await scrubExtents();
    co_await next(ScrubPhase::kJournal);
  }
  if (progress_.status.phase == ScrubPhase::kJournal) {
    co_await scrubJournal();
    co_await next(ScrubPhase::kState);
  }
  co_await scrubState();
  progress_.status.lastPassMs = wallMs();
  ++progress_.status.passes;
  co_await next(ScrubPhase::kIdle);
  KJ_LOG(INFO, "a pass of the scrubber is complete", progress_.status.bytesDone,
         wallMs() - progress_.status.passBeganMs);
}

Co<void> ScrubberImpl::beginPass() {
  auto counting = totalBytes();
  const uint64_t total = co_await kj::mv(counting);
  ScrubStatus& status = progress_.status;
  status.bytesDone = 0;
  status.bytesTotal = total;
  status.passBeganMs = wallMs();
  progress_.wanted = false;
  harmless_.clear();
  KJ_LOG(INFO, "a pass of the scrubber begins", total, options_.bytesPerSecond);
  co_await next(ScrubPhase::kExtents);
}

Co<void> ScrubberImpl::next(ScrubPhase phase) {
  progress_.status.phase = phase;
  progress_.extent = ExtentId();
  progress_.segment = 0;
  progress_.volume.clear();
  progress_.file.clear();
  auto saving = saveNow();
  co_await kj::mv(saving);
}

Co<uint64_t> ScrubberImpl::totalBytes() {
  uint64_t total = parts_.extents.statistics().sealedBytes;
  total += parts_.journal.closedSegments().size() * parts_.journal.statistics().segmentBytes;
  std::vector<std::string> names;
  for (Volume* volume : parts_.replicator.volumes()) names.push_back(volume->name());
  for (const std::string& name : names) {
    auto volume = parts_.replicator.findVolume(name.c_str());
    KJ_IF_MAYBE(here, volume) {
      auto listing = here->stateMachine().storedFiles();
      auto files = co_await kj::mv(listing);
      for (const StoredFile& file : files) total += file.bytes;
    }
  }
  co_return total;
}

// ---- Extents ------------------------------------------------------------------------------------

Co<void> ScrubberImpl::scrubExtents() {
  const auto extents = parts_.extents.list();  // by id; what comes meanwhile is of the next pass
  for (const ExtentInfo& extent : extents) {
    if (extent.id < progress_.extent) continue;
    auto scrubbing = scrubExtent(extent);
    co_await kj::mv(scrubbing);
    progress_.extent = extent.id;
    auto saving = save();
    co_await kj::mv(saving);
  }
}

Co<void> ScrubberImpl::scrubExtent(ExtentInfo extent) {
  // The sidecar first: it is what a restart knows of the blocks.
  for (uint64_t i = 0; i <= blocksOf(extent); ++i) {
    const uint64_t place = i == 0 ? kSidecar : i - 1;
    co_await take(i == 0 ? 0 : blockBytesAt(extent.bytes, place));
    auto checking = parts_.extents.check(extent.id, place);
    auto check = co_await kj::mv(checking);
    if (!check.bad) continue;
    ScrubFinding finding;
    finding.kind = ScrubPhase::kExtents;
    finding.extent = extent.id;
    finding.place = place;
    finding.what = check.what;
    finding.problem = check.problem;
    found(std::move(finding), check.repaired);
  }
}

// ---- Journal ------------------------------------------------------------------------------------

Co<void> ScrubberImpl::scrubJournal() {
  const auto sequences = parts_.journal.closedSegments();
  for (const uint64_t sequence : sequences) {
    if (sequence <= progress_.segment) continue;
    auto checking = parts_.journal.checkSegment(sequence, pace_);
    auto check = co_await kj::mv(checking);
    judgeSegment(sequence, check);
    progress_.segment = sequence;
    auto saving = save();
    co_await kj::mv(saving);
  }
}

// ---- State --------------------------------------------------------------------------------------

Co<void> ScrubberImpl::scrubState() {
  std::vector<std::string> names;
  for (Volume* volume : parts_.replicator.volumes()) names.push_back(volume->name());
  for (const std::string& name : names) {
    if (name < progress_.volume) continue;
    if (name > progress_.volume) progress_.file.clear();
    progress_.volume = name;
    auto scrubbing = scrubVolume(name);
    co_await kj::mv(scrubbing);
  }
}

Co<void> ScrubberImpl::scrubVolume(std::string name) {
  auto volume = parts_.replicator.findVolume(name.c_str());
  KJ_IF_MAYBE(here, volume) {
    StateMachine& machine = here->stateMachine();
    if (!machine.damage().empty()) co_return;  // it is being replaced
    auto listing = machine.storedFiles();
    auto files = co_await kj::mv(listing);
    std::sort(files.begin(), files.end(),
              [](const StoredFile& a, const StoredFile& b) { return a.name < b.name; });
    for (const StoredFile& file : files) {
      if (file.name <= progress_.file) continue;
      auto verifying = machine.verifyStored(file.name, pace_);
      co_await kj::mv(verifying);
      progress_.file = file.name;
      const std::string damage = machine.damage();
      if (!damage.empty()) {
        ScrubFinding finding;
        finding.kind = ScrubPhase::kState;
        finding.volume = name;
        finding.what = "Of volume " + name + ", " + damage + ".";
        found(std::move(finding), false);
        co_return;
      }
      auto saving = save();
      co_await kj::mv(saving);
    }
  }
}

}  // namespace packmoor::replicator
