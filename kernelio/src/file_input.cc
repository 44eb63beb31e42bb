#include "kernelio/file_input.h"

#include <kj/debug.h>

#include <unistd.h>

namespace packmoor::kernelio {

kj::Promise<size_t> FileInput::tryRead(void* buffer, size_t minBytes, size_t maxBytes) {
  const size_t wanted = static_cast<size_t>(kj::min(uint64_t{maxBytes}, left_));
  size_t done = 0;
  while (done < wanted && (done < minBytes || done == 0)) {
    ssize_t got = 0;
    KJ_SYSCALL(got = pread(fd_, static_cast<kj::byte*>(buffer) + done, wanted - done,
                           static_cast<off_t>(offset_)));
    KJ_REQUIRE(got > 0, "a file is shorter than it was", offset_, left_);
    skip(static_cast<uint64_t>(got));
    done += static_cast<size_t>(got);
  }
  return done;
}

}  // namespace packmoor::kernelio
