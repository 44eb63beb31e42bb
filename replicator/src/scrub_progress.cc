#include "scrub_progress.h"

#include "kernelio/check.h"

#include <replicator/replicator_records.pb.h>

#include <cstring>
#include <limits>

namespace packmoor::replicator {

namespace {

void encodeCount(const ScrubStatus::Count& count, pb::ScrubProgress& out) {
  auto& entry = *out.add_counts();
  entry.set_found(count.found);
  entry.set_mended(count.mended);
}

ScrubStatus::Count decodeCount(const pb::ScrubProgress& in, int place) {
  if (place >= in.counts_size()) return {};
  return {in.counts(place).found(), in.counts(place).mended()};
}

std::string idText(const Uuid& id) {
  return std::string(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size());
}

bool decodeId(const std::string& text, Uuid& id) {
  if (text.size() != id.bytes.size()) return false;
  std::memcpy(id.bytes.data(), text.data(), text.size());
  return true;
}

void encodeFinding(const ScrubFinding& finding, pb::ScrubProgress::Finding& out) {
  out.set_kind(static_cast<uint32_t>(finding.kind));
  out.set_volume(finding.volume);
  out.set_extent(idText(finding.extent));
  out.set_place(finding.place);
  out.set_what(finding.what);
  out.set_problem(finding.problem);
  out.set_found_ms(finding.foundMs);
  out.set_mended_ms(finding.mendedMs);
  out.set_acknowledged(finding.acknowledged);
}

bool decodeFinding(const pb::ScrubProgress::Finding& in, ScrubFinding& finding) {
  if (in.kind() >= kScrubPhases || !decodeId(in.extent(), finding.extent)) return false;
  finding.kind = static_cast<ScrubPhase>(in.kind());
  finding.volume = in.volume();
  finding.place = in.place();
  finding.what = in.what();
  finding.problem = in.problem();
  finding.foundMs = in.found_ms();
  finding.mendedMs = in.mended_ms();
  finding.acknowledged = in.acknowledged();
  return true;
}

}  // namespace

kj::Array<kj::byte> encodeScrubProgress(const ScrubProgress& progress) {
  const ScrubStatus& status = progress.status;
  pb::ScrubProgress message;
  message.set_paused(status.paused);
  message.set_wanted(progress.wanted);
  message.set_phase(static_cast<uint32_t>(status.phase));
  message.set_bytes_done(status.bytesDone);
  message.set_bytes_total(status.bytesTotal);
  message.set_pass_began_ms(status.passBeganMs);
  message.set_last_pass_ms(status.lastPassMs);
  message.set_since_ms(status.sinceMs);
  message.set_passes(status.passes);
  for (const auto* count : {&status.extents, &status.journal, &status.state}) {
    encodeCount(*count, message);
  }
  for (const ScrubFinding& finding : status.findings) {
    encodeFinding(finding, *message.add_findings());
  }
  message.set_extent(idText(progress.extent));
  message.set_segment(progress.segment);
  message.set_volume(progress.volume);
  message.set_file(progress.file);
  const size_t size = message.ByteSizeLong();
  auto bytes = kj::heapArray<kj::byte>(size + sizeof(Hash128));
  const bool encoded = message.SerializeToArray(bytes.begin(), static_cast<int>(size));
  PACKMOOR_CHECK(encoded, "encoding the scrubber's progress");
  const Hash128 hash = hashBytes(bytes.slice(0, size));
  std::memcpy(bytes.begin() + size, &hash, sizeof hash);
  return bytes;
}

kj::Maybe<ScrubProgress> decodeScrubProgress(kj::ArrayPtr<const kj::byte> bytes) {
  if (bytes.size() < sizeof(Hash128) || bytes.size() > kScrubProgressBytesMax) return nullptr;
  const size_t size = bytes.size() - sizeof(Hash128);
  Hash128 hash;
  std::memcpy(&hash, bytes.begin() + size, sizeof hash);
  pb::ScrubProgress message;
  ScrubProgress progress;
  if (hashBytes(bytes.slice(0, size)) != hash ||
      !message.ParseFromArray(bytes.begin(), static_cast<int>(size)) ||
      message.phase() >= kScrubPhases || !decodeId(message.extent(), progress.extent)) {
    return nullptr;
  }
  ScrubStatus& status = progress.status;
  status.paused = message.paused();
  progress.wanted = message.wanted();
  status.phase = static_cast<ScrubPhase>(message.phase());
  status.bytesDone = message.bytes_done();
  status.bytesTotal = message.bytes_total();
  status.passBeganMs = message.pass_began_ms();
  status.lastPassMs = message.last_pass_ms();
  status.sinceMs = message.since_ms();
  status.passes = message.passes();
  status.extents = decodeCount(message, 0);
  status.journal = decodeCount(message, 1);
  status.state = decodeCount(message, 2);
  for (const auto& in : message.findings()) {
    ScrubFinding finding;
    if (!decodeFinding(in, finding)) return nullptr;
    status.findings.push_back(std::move(finding));
  }
  progress.segment = message.segment();
  progress.volume = message.volume();
  progress.file = message.file();
  return kj::mv(progress);
}

}  // namespace packmoor::replicator
