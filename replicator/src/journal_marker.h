// MarkerRing: remembers the newest acknowledged batch, so that recovery can tell a tail that was
// torn from one that has rotted away. Layout in journal_format.h.
#pragma once

#include "kernelio/co.h"
#include "kernelio/env.h"
#include "replicator/journal_format.h"

namespace packmoor::replicator {

class MarkerRing {
 public:
  // Creates the file with all slots durable under its final name. Its presence is what makes a
  // folder a journal, so it is made last.
  static Co<void> create(kernelio::Env& env, kj::String folder, format::JournalIdentity identity,
                         uint64_t segmentBytes);
  // `counter`: of the newest slot found by the scan.
  static Co<kj::Own<MarkerRing>> open(kernelio::Env& env, kj::String folder,
                                      format::JournalIdentity identity, uint64_t segmentBytes,
                                      uint64_t counter);

  MarkerRing(kernelio::Env& env, kj::Own<kernelio::File> file, format::JournalIdentity identity,
             uint64_t segmentBytes, uint64_t counter)
      : env_(env), file_(kj::mv(file)), identity_(identity), segmentBytes_(segmentBytes),
        counter_(counter) {}

  // One write at a time.
  kj::Promise<void> write(uint64_t batchSequence, bool closed);

 private:
  kernelio::Env& env_;
  kj::Own<kernelio::File> file_;
  format::JournalIdentity identity_;
  uint64_t segmentBytes_, counter_;
};

}  // namespace packmoor::replicator
