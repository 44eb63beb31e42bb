// The frame of the protocols on unix sockets: a length of 4 bytes, big-endian, and that many bytes.
#pragma once

#include <kernelio/co.h>
#include <kj/async-io.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace packmoor::rpc {

constexpr size_t kFrameHeaderBytes = 4;
constexpr size_t kHelloBytesMax = 64u << 10;

inline size_t frameBytes(const uint8_t header[kFrameHeaderBytes]) {
  return static_cast<size_t>(header[0]) << 24 | static_cast<size_t>(header[1]) << 16 |
         static_cast<size_t>(header[2]) << 8 | static_cast<size_t>(header[3]);
}

// A message with its header in front.
template <typename Message>
std::string frameOf(const Message& message) {
  std::string frame(kFrameHeaderBytes, '\0');
  message.AppendToString(&frame);
  size_t bytes = frame.size() - kFrameHeaderBytes;
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) {
    frame[i] = static_cast<char>(bytes >> (8 * (kFrameHeaderBytes - 1 - i)));
  }
  return frame;
}

// Reads one frame. False: the client closed between frames.
Co<bool> readFrame(kj::AsyncInputStream& in, size_t bytesMax, std::string& frame);

}  // namespace packmoor::rpc
