#include "control_frame.h"

#include <kj/debug.h>

namespace packmoor::rpc {

Co<bool> readFrame(kj::AsyncInputStream& in, size_t bytesMax, std::string& frame) {
  uint8_t header[kFrameHeaderBytes];
  auto got = co_await in.tryRead(header, sizeof header, sizeof header);
  if (got == 0) co_return false;
  KJ_REQUIRE(got == sizeof header, "the client closed the connection inside a message");
  size_t bytes = frameBytes(header);
  KJ_REQUIRE(bytes <= bytesMax, "a message is larger than this socket takes", bytes, bytesMax);
  frame.resize(bytes);
  if (bytes > 0) co_await in.read(frame.data(), bytes);
  co_return true;
}

}  // namespace packmoor::rpc
