// ReadPolicy: how new what a client fetches must be (DESIGN section 6, Reads).
//
// Why: the default is never stale and needs the primary and W members. Who has just pushed knows the
// push's index, and needs no more than that; who reads from afar, or while the primary is away, may
// prefer what is there, and is told how old it may be.
#pragma once

#include "replicator/types.h"

#include <optional>
#include <string>
#include <string_view>

namespace packmoor::gitlayer {

struct ReadPolicy {
  enum class Kind : uint8_t {
    kLinearizable,   // everything that was acknowledged before the request
    kAtLeast,        // everything up to `index` of `volume`
    kAvailable,      // what this node has
  };
  Kind kind = Kind::kLinearizable;
  std::string volume;
  replicator::RecordIndex index;
};

// "linearizable", "at-least=VOLUME:INDEX" or "available"; nothing else.
std::optional<ReadPolicy> parseReadPolicy(std::string_view text);

}  // namespace packmoor::gitlayer
