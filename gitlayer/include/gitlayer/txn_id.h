// Transaction ids: 6 bytes of birth index, big-endian, then 10 random bytes (DESIGN rule 20).
//
// Why: a front repeats a transaction under one id until it knows the outcome, and results are
// kept for a bounded stretch of the log. The birth index, the applied index at which the id was
// made, lets the primary refuse an id that is older than what it still remembers.
#pragma once

#include <kernelio/env.h>
#include <replicator/types.h>

namespace packmoor::gitlayer {

constexpr size_t kTxnBirthBytes = 6;

inline replicator::TxnId makeTxnId(kernelio::Random& random, replicator::RecordIndex birth) {
  replicator::TxnId id;
  random.fill(kj::arrayPtr(id.bytes.data(), id.bytes.size()));
  for (unsigned i = 0; i < kTxnBirthBytes; ++i) {
    id.bytes[i] = static_cast<uint8_t>(birth.value >> (8 * (kTxnBirthBytes - 1 - i)));
  }
  return id;
}

inline replicator::RecordIndex birthOf(const replicator::TxnId& id) {
  uint64_t value = 0;
  for (unsigned i = 0; i < kTxnBirthBytes; ++i) value = value << 8 | id.bytes[i];
  return replicator::RecordIndex(value);
}

}  // namespace packmoor::gitlayer
