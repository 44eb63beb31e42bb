// acceptLoop: takes connections from a port for as long as the port works.
//
// Why: KJ's own loops end at the first connection that breaks while it is accepted, and at a
// passing shortage of descriptors. This one goes on: it waits a little after a failure, says so
// once per burst, and gives each connection to `take`, which must not block and must keep its own
// bound on how many it holds.
#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/timer.h>

namespace packmoor::rpc {

constexpr int64_t kAcceptPauseMs = 100;

// Runs until dropped. Borrows port and timer.
kj::Promise<void> acceptLoop(kj::ConnectionReceiver& port, kj::Timer& timer,
                             kj::Function<void(kj::Own<kj::AsyncIoStream>)> take);

}  // namespace packmoor::rpc
