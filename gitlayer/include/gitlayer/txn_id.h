// Transaction ids: 8 bytes of birth index, big-endian, then 8 random bytes (DESIGN rule 20).
//
// Why: a front repeats a transaction under one id until it knows the outcome, and results are
// kept for a bounded stretch of the log. The birth index, the applied index at which the id was
// made, lets the primary refuse an id that is older than what it still remembers.
#pragma once

#include <kernelio/env.h>
#include <replicator/types.h>

namespace packmoor::gitlayer {

inline replicator::TxnId makeTxnId(kernelio::Random& random, replicator::RecordIndex birth) {
  replicator::TxnId id;
  for (unsigned i = 0; i < 8; ++i) {
    id.bytes[i] = static_cast<uint8_t>(birth.value >> (56 - 8 * i));
  }
  random.fill(kj::arrayPtr(id.bytes.data() + 8, 8));
  return id;
}

inline replicator::RecordIndex birthOf(const replicator::TxnId& id) {
  uint64_t value = 0;
  for (unsigned i = 0; i < 8; ++i) value = value << 8 | id.bytes[i];
  return replicator::RecordIndex(value);
}

}  // namespace packmoor::gitlayer
