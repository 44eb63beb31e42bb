// ScrubProgress: what the scrubber remembers over restarts, as one small file.
//
// Layout: a ScrubProgress message (schema/replicator_records.proto), then the XXH3-128 of its bytes.
#pragma once

#include "replicator/scrubber.h"

namespace packmoor::replicator {

struct ScrubProgress {
  ScrubStatus status;            // without what is only of this process
  bool wanted = false;           // a pass was asked for
  // How far the phase is. A place of something that is gone is the place behind it.
  ExtentId extent;               // extents: up to before this one
  uint64_t segment = 0;          // journal: up to and including this sequence
  std::string volume, file;      // state: up to and including this file
};

constexpr size_t kScrubProgressBytesMax = 4u << 20;

kj::Array<kj::byte> encodeScrubProgress(const ScrubProgress& progress);
// nullptr: damaged, or of a later version.
kj::Maybe<ScrubProgress> decodeScrubProgress(kj::ArrayPtr<const kj::byte> bytes);

}  // namespace packmoor::replicator
