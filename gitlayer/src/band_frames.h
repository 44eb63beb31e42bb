// BandFrames: bytes of a pack, wrapped in side-band packets as they come.
//
// A packet: 4 hex digits of its length, the band (1: data), and as many bytes as fit.
#pragma once

#include "gitlayer/pack_builder.h"

#include <kj/vector.h>

namespace packmoor::gitlayer {

class BandFrames final : public PackSink {
 public:
  // `packetBytes`: longest packet with its length; 0: no packets, the bytes as they are.
  BandFrames(size_t packetBytes, size_t reserveBytes) : packetBytes_(packetBytes) {
    bytes_.reserve(reserveBytes);
  }

  void write(kj::ArrayPtr<const kj::byte> bytes) override {
    if (packetBytes_ == 0) {
      bytes_.addAll(bytes);
      return;
    }
    while (bytes.size() > 0) {
      if (!open_) begin();
      size_t room = packetBytes_ - (bytes_.size() - packetBegin_);
      size_t count = bytes.size() < room ? bytes.size() : room;
      bytes_.addAll(bytes.slice(0, count));
      bytes = bytes.slice(count, bytes.size());
      if (count == room) end();
    }
  }

  // All that was written, in whole packets.
  kj::Array<const kj::byte> finish() {
    if (open_) end();
    return bytes_.releaseAsArray();
  }

 private:
  void begin() {
    static constexpr kj::byte kHeader[] = {'0', '0', '0', '0', 1};
    packetBegin_ = bytes_.size();
    bytes_.addAll(kj::arrayPtr(kHeader, sizeof kHeader));
    open_ = true;
  }
  void end() {
    static constexpr char kDigits[] = "0123456789abcdef";
    size_t length = bytes_.size() - packetBegin_;
    for (int i = 0; i < 4; ++i) bytes_[packetBegin_ + i] = kDigits[(length >> (12 - 4 * i)) & 15];
    open_ = false;
  }

  size_t packetBytes_;
  kj::Vector<kj::byte> bytes_;
  size_t packetBegin_ = 0;
  bool open_ = false;
};

}  // namespace packmoor::gitlayer
