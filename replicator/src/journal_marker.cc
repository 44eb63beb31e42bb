#include "journal_marker.h"

#include "journal_scan.h"

#include <cstring>

namespace packmoor::replicator {

using format::kMarkerSlotBytes;
using format::kMarkerSlots;
using format::MarkerSlot;
using kernelio::IoBuffer;
using kernelio::WriteMode;

namespace {

void fillSlot(kj::byte* at, kernelio::Env& env, const format::JournalIdentity& identity,
              uint64_t segmentBytes, uint64_t counter, uint64_t batchSequence, bool closed) {
  MarkerSlot slot{};
  slot.flags = closed ? format::kMarkerClosed : 0;
  slot.journal = identity.journal;
  slot.salt = identity.salt;
  slot.counter = counter;
  slot.batchSequence = batchSequence;
  slot.segmentBytes = segmentBytes;
  slot.wallMs = env.clock.nowMs();
  format::sealMarker(slot);
  std::memcpy(at, &slot, sizeof slot);
}

}  // namespace

Co<void> MarkerRing::create(kernelio::Env& env, kj::String folder,
                            format::JournalIdentity identity, uint64_t segmentBytes) {
  auto path = kj::str(folder, "/", kMarkerFile);
  auto temporary = kj::str(path, ".new");
  co_await env.disk.remove(temporary);
  {
    auto file =
        co_await env.disk.open(temporary, {.write = true, .create = true, .direct = true});
    auto slots = IoBuffer::allocate(kMarkerSlots * kMarkerSlotBytes);
    for (size_t i = 0; i < kMarkerSlots; ++i) {
      fillSlot(slots.begin() + i * kMarkerSlotBytes, env, identity, segmentBytes, i, 0, false);
    }
    co_await file->write(0, kj::mv(slots), WriteMode::kDurable);
    co_await file->sync();
  }
  co_await env.disk.rename(temporary, path);
  co_await env.disk.syncDirectory(folder);
}

Co<kj::Own<MarkerRing>> MarkerRing::open(kernelio::Env& env, kj::String folder,
                                         format::JournalIdentity identity, uint64_t segmentBytes,
                                         uint64_t counter) {
  auto file = co_await env.disk.open(kj::str(folder, "/", kMarkerFile),
                                     {.write = true, .direct = true});
  co_return kj::heap<MarkerRing>(env, kj::mv(file), identity, segmentBytes, counter);
}

kj::Promise<void> MarkerRing::write(uint64_t batchSequence, bool closed) {
  ++counter_;
  auto data = IoBuffer::allocate(kMarkerSlotBytes);
  fillSlot(data.begin(), env_, identity_, segmentBytes_, counter_, batchSequence, closed);
  return file_->write(counter_ % kMarkerSlots * kMarkerSlotBytes, kj::mv(data),
                      WriteMode::kDurable);
}

}  // namespace packmoor::replicator
