#include "commands.h"

#include <rpc/control.pb.h>

#include <cstdio>

namespace packmoor::ctl {
namespace {

using control::ScrubChangeRequest;

void printCount(const char* what, const control::ScrubCount& count) {
  std::printf("  %-11s %s found, %s mended\n", what, countText(count.found()).c_str(),
              countText(count.mended()).c_str());
}

std::string percentText(uint64_t done, uint64_t total) {
  return total == 0 ? "" : " (" + std::to_string(done >= total ? 100 : done * 100 / total) + "%)";
}

void printScrub(const control::ScrubStatus& scrub) {
  const bool idle = scrub.phase() == "idle";
  if (scrub.paused()) {
    std::printf("The scrubber is paused%s.\n", idle ? "" : " in the middle of a pass");
  } else if (idle) {
    std::printf("The scrubber waits for its next pass, %s.\n", timeText(scrub.due_ms()).c_str());
  } else {
    std::printf("The scrubber reads: %s.\n", scrub.phase().c_str());
  }
  if (!idle) {
    std::printf("  this pass   %s of %s%s, %s a second, began %s\n",
                bytesText(scrub.bytes_done()).c_str(), bytesText(scrub.bytes_total()).c_str(),
                percentText(scrub.bytes_done(), scrub.bytes_total()).c_str(),
                bytesText(scrub.bytes_per_second()).c_str(),
                timeText(scrub.pass_began_ms()).c_str());
  }
  if (!scrub.waits().empty()) std::printf("  waits       %s\n", plain(scrub.waits()).c_str());
  std::printf("  last pass   %s\n", scrub.last_pass_ms() == 0
                                        ? "none was complete"
                                        : timeText(scrub.last_pass_ms()).c_str());
  printCount("extents", scrub.extents());
  printCount("journal", scrub.journal());
  printCount("state", scrub.state());
  for (const auto& finding : scrub.findings()) {
    std::printf("%s %s: %s\n", finding.mended_ms() > 0 ? "mended" : "STANDS",
                timeText(finding.mended_ms() > 0 ? finding.mended_ms() : finding.found_ms()).c_str(),
                plain(finding.what()).c_str());
    if (!finding.problem().empty()) {
      std::printf("       not mended yet: %s\n", plain(finding.problem()).c_str());
    }
  }
}

int print(const Session& session, const control::Response& response) {
  if (session.json) std::printf("%s", jsonText(response.scrub()).c_str());
  else printScrub(response.scrub());
  // As a check: something stands.
  for (const auto& finding : response.scrub().findings()) {
    if (finding.mended_ms() == 0) return kRefused;
  }
  return kDone;
}

int change(const Session& session, ScrubChangeRequest::Kind kind, const char* done) {
  control::Request request;
  control::Response response;
  request.mutable_scrub_change()->set_kind(kind);
  const int code = session.ask(request, false, response);
  if (code != kDone) return code;
  if (session.json) std::printf("%s", jsonText(response.scrub()).c_str());
  else std::printf("%s\n", done);
  return kDone;
}

}  // namespace

int scrubStatus(const Session& session) {
  control::Request request;
  control::Response response;
  request.mutable_scrub_status();
  const int code = session.ask(request, true, response);
  return code == kDone ? print(session, response) : code;
}

int scrubStart(const Session& session) {
  return change(session, ScrubChangeRequest::KIND_START,
                "A pass begins, or is under way; `packmoorctl scrub status` shows it.");
}

int scrubPause(const Session& session) {
  return change(session, ScrubChangeRequest::KIND_PAUSE,
                "The scrubber is paused until it is resumed, also over restarts.");
}

int scrubResume(const Session& session) {
  return change(session, ScrubChangeRequest::KIND_RESUME, "The scrubber goes on.");
}

int scrubAcknowledge(const Session& session) {
  return change(session, ScrubChangeRequest::KIND_ACKNOWLEDGE,
                "What was mended is not told of any more.");
}

}  // namespace packmoor::ctl
