#include "scrub_control.h"

#include "control_reply.h"

namespace packmoor::rpc {
namespace {

void fillCount(const replicator::ScrubStatus::Count& from, control::ScrubCount& to) {
  to.set_found(from.found);
  to.set_mended(from.mended);
}

// False: there is none yet, which the response says.
bool hasScrubber(const NodeView& view, control::Response& response) {
  if (view.scrubber != nullptr) return true;
  fail(response, control::ERROR_UNREACHABLE, "The node is still starting.", "",
       "See `packmoorctl status`.");
  return false;
}

}  // namespace

void fillScrub(const replicator::ScrubStatus& from, int64_t intervalMs, control::ScrubStatus& to) {
  to.set_paused(from.paused);
  to.set_phase(replicator::phaseName(from.phase).cStr());
  to.set_bytes_done(from.bytesDone);
  to.set_bytes_total(from.bytesTotal);
  to.set_bytes_per_second(from.bytesPerSecond);
  to.set_pass_began_ms(from.passBeganMs);
  to.set_last_pass_ms(from.lastPassMs);
  to.set_due_ms(from.dueMs);
  to.set_since_ms(from.sinceMs);
  to.set_interval_ms(static_cast<uint64_t>(intervalMs));
  to.set_passes(from.passes);
  to.set_waits(from.waits);
  fillCount(from.extents, *to.mutable_extents());
  fillCount(from.journal, *to.mutable_journal());
  fillCount(from.state, *to.mutable_state());
  for (const replicator::ScrubFinding& finding : from.findings) {
    control::ScrubFinding& entry = *to.add_findings();
    entry.set_kind(replicator::phaseName(finding.kind).cStr());
    entry.set_volume(finding.volume);
    entry.set_what(finding.what);
    entry.set_problem(finding.problem);
    entry.set_found_ms(finding.foundMs);
    entry.set_mended_ms(finding.mendedMs);
  }
}

Co<void> scrubStatus(const NodeView& view, control::Response& response) {
  if (!hasScrubber(view, response)) co_return;
  fillScrub(view.scrubber->status(), view.config->replication.scrubIntervalMs,
            *response.mutable_scrub());
}

Co<void> scrubChange(const NodeView& view, control::ScrubChangeRequest request,
                     control::Response& response) {
  if (!hasScrubber(view, response)) co_return;
  switch (request.kind()) {
    case control::ScrubChangeRequest::KIND_START: co_await view.scrubber->start(); break;
    case control::ScrubChangeRequest::KIND_PAUSE: co_await view.scrubber->pause(); break;
    case control::ScrubChangeRequest::KIND_RESUME: co_await view.scrubber->resume(); break;
    case control::ScrubChangeRequest::KIND_ACKNOWLEDGE:
      co_await view.scrubber->acknowledge();
      break;
    default:
      fail(response, control::ERROR_BAD_REQUEST, "The daemon does not know what to do with its "
           "scrubber.", "It is of another version than the client.", "");
      co_return;
  }
  auto answering = scrubStatus(view, response);
  co_await kj::mv(answering);
}

}  // namespace packmoor::rpc
