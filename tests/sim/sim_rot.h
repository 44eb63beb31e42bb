// What lies on a simulated disk as the journal, batch by batch, so that chosen batches can rot.
//
// Why: whether a bad batch is rot or a torn end depends on what lies behind it and on the marker, which
// comes late (journal_scan.cc). Who lets chosen batches rot must know both, or the journal rightly takes
// them for what a power cut tore.
#pragma once

#include "kernelio/sim_disk.h"

#include <cstdint>
#include <map>
#include <string>

namespace packmoor::replicator {

struct JournalFrame {
  std::string path;
  uint64_t at, bytes;   // header and body
};

// By the sequence of their batches; some may be what recycled segments held before.
std::map<uint64_t, JournalFrame> journalFrames(const kernelio::SimStorage& storage);

uint64_t newestBatch(const kernelio::SimStorage& storage);   // 0: there is none
// The newest of which the marker says that it was acknowledged.
uint64_t markedBatch(const kernelio::SimStorage& storage);

// Of every batch after `sequence`, bits flip in each sector. The node is down. When the marker knows of
// the first of them, that is rot. Returns how many there were.
size_t rotBatchesAfter(kernelio::SimStorage& storage, uint64_t sequence);

}  // namespace packmoor::replicator
