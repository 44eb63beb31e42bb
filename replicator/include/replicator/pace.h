// Pace: asked before each read of work that must stay out of the way of others.
//
// It resolves when so many bytes may be read, and rejects when the work is to end. The scrubber
// (scrubber.h) gives it to whoever owns the files that it has checked. Loop: the node's.
#pragma once

#include <kj/async.h>
#include <kj/function.h>

#include <cstdint>

namespace packmoor::replicator {

using Pace = kj::Function<kj::Promise<void>(uint64_t bytes)>;

}  // namespace packmoor::replicator
