// The real WorkerPool: a fixed number of threads and one queue in order of submission.
//
// Lives on the loop of the given port and must go before it. Its destructor drops what has not
// begun and waits for what has. A job that is dropped before it began is destroyed on the loop's
// thread, any other on its worker. Signals are blocked in the workers.
#pragma once

#include "kernelio/worker_pool.h"

#include <kj/async-unix.h>

namespace packmoor::kernelio {

constexpr size_t kWorkerThreadsMax = 256;

// `threads` from 1 to kWorkerThreadsMax. `name` is what debuggers and top show, 15 bytes at most.
kj::Own<WorkerPool> makeThreadPool(kj::UnixEventPort& port, size_t threads,
                                   kj::StringPtr name = "packmoor-work");

}  // namespace packmoor::kernelio
