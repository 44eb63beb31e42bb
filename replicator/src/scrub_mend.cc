// What becomes of what a pass finds.
#include "scrubber_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

ScrubStatus::Count& ScrubberImpl::countOf(ScrubPhase kind) {
  ScrubStatus& status = progress_.status;
  return kind == ScrubPhase::kExtents   ? status.extents
         : kind == ScrubPhase::kJournal ? status.journal
                                        : status.state;
}

void ScrubberImpl::found(ScrubFinding finding, bool isMended) {
  auto& findings = progress_.status.findings;
  // A pass may come by while it is not mended yet.
  for (const ScrubFinding& known : findings) {
    if (known.mendedMs == 0 && known.kind == finding.kind && known.volume == finding.volume &&
        known.extent == finding.extent && known.place == finding.place) {
      return;
    }
  }
  KJ_LOG(WARNING, "the scrubber found damage", finding.what.c_str(), isMended);
  ++countOf(finding.kind).found;
  finding.foundMs = wallMs();
  dropOld();
  if (findings.size() >= kFindingsMax) {
    // The oldest that is mended, else the oldest.
    auto oldest = std::find_if(findings.begin(), findings.end(),
                               [](const ScrubFinding& f) { return f.mendedMs > 0; });
    findings.erase(oldest == findings.end() ? findings.begin() : oldest);
  }
  findings.push_back(std::move(finding));
  if (isMended) {
    mended(findings.back());
  } else {
    mendWanted_.notify();
  }
}

void ScrubberImpl::mended(ScrubFinding& finding) {
  finding.mendedMs = std::max<int64_t>(1, wallMs());
  finding.problem.clear();
  ++countOf(finding.kind).mended;
  KJ_LOG(INFO, "what the scrubber found is mended", finding.what.c_str());
}

void ScrubberImpl::dropOld() {
  const int64_t before = wallMs() - kMendedMs;
  std::erase_if(progress_.status.findings, [before](const ScrubFinding& finding) {
    return finding.mendedMs > 0 && (finding.acknowledged || finding.mendedMs <= before);
  });
}

// What stands is tried again: another member may be there by now.
Co<void> ScrubberImpl::mendAll() {
  dropOld();
  auto standing = progress_.status.findings;   // others may come and go meanwhile
  bool changed = false;
  for (const ScrubFinding& old : standing) {
    if (old.mendedMs > 0) continue;
    std::string problem;
    bool isMended = false;
    if (old.kind == ScrubPhase::kExtents) {
      auto mending = mendExtent(old.extent, old.place, problem);
      isMended = co_await kj::mv(mending);
    } else {
      isMended = old.kind == ScrubPhase::kJournal ? mendJournal(old, problem)
                                                  : mendState(old, problem);
    }
    for (ScrubFinding& finding : progress_.status.findings) {
      if (finding.mendedMs > 0 || finding.foundMs != old.foundMs || finding.what != old.what) continue;
      changed = changed || isMended;
      finding.problem = problem;
      if (isMended) mended(finding);
    }
  }
  if (!changed) co_return;
  auto saving = saveNow();
  co_await kj::mv(saving);
}

Co<bool> ScrubberImpl::mendExtent(ExtentId extent, uint64_t place, std::string& problem) {
  auto checking = parts_.extents.check(extent, place);
  auto check = co_await kj::mv(checking);
  problem = check.problem;
  co_return !check.bad || check.repaired;
}

// Its records are let go, or a checkpoint was installed above them.
bool ScrubberImpl::mendJournal(const ScrubFinding& finding, std::string& problem) {
  auto volume = parts_.replicator.findVolume(finding.volume.c_str());
  KJ_IF_MAYBE(here, volume) {
    const RecordIndex upTo(finding.place);
    if (here->status().base >= upTo) return true;
    problem = kj::str("volume ", finding.volume.c_str(), " has to make a checkpoint above record ",
                      upTo, " first").cStr();
    if (lettingGo_.insert(finding.volume).second) {
      const std::string name = finding.volume;
      auto done = outcomeOf(here->letGoOfDamaged(upTo));
      tasks_.add(done.then([this, name](kj::Maybe<kj::Exception> failure) {
        lettingGo_.erase(name);
        KJ_IF_MAYBE(exception, failure) {
          KJ_LOG(WARNING, "a volume cannot let go of damaged records", name.c_str(),
                 exception->getDescription());
        } else {
          mendWanted_.notify();
        }
      }));
    }
    return false;
  }
  problem = "volume " + finding.volume + " is not open here";
  return false;
}

// The volume does it by itself.
bool ScrubberImpl::mendState(const ScrubFinding& finding, std::string& problem) {
  auto volume = parts_.replicator.findVolume(finding.volume.c_str());
  KJ_IF_MAYBE(here, volume) {
    if (here->stateMachine().damage().empty()) return true;
    const VolumeStatus status = here->status();
    problem = status.repair.step.empty() ? status.repair.damage : status.repair.step;
    return false;
  }
  problem = "volume " + finding.volume + " is not open here";
  return false;
}

void ScrubberImpl::judgeSegment(uint64_t sequence, const SegmentCheck& check) {
  if (check.damage.empty()) return;
  std::string where;
  for (const std::string& sentence : check.damage) where += (where.empty() ? "" : " ") + sentence;
  bool known = false;
  for (auto& [id, upTo] : check.volumes) {
    std::string name = id.text().cStr();
    for (Volume* volume : parts_.replicator.volumes()) {
      if (volume->id() == id) name = volume->name();
    }
    ScrubFinding finding;
    finding.kind = ScrubPhase::kJournal;
    finding.volume = name;
    finding.place = upTo.value;
    finding.what = where + " Records of volume " + name + " up to " +
                   std::to_string(upTo.value) + " lie there.";
    found(std::move(finding), false);
    known = true;
  }
  if (known || !harmless_.insert(sequence).second) return;
  // It goes with its segment.
  KJ_LOG(WARNING, "a damaged part of the journal holds nothing that is needed", where.c_str());
}

}  // namespace packmoor::replicator
