#include "pack_end.h"

#include "gitlayer/pack_format.h"

#include <kj/debug.h>
#include <zlib.h>

#include <cstring>

namespace packmoor::gitlayer {

struct PackEnd::Stream {
  Stream() {
    memset(&zlib, 0, sizeof zlib);
    KJ_REQUIRE(inflateInit(&zlib) == Z_OK, "zlib has no memory");
  }
  ~Stream() noexcept { inflateEnd(&zlib); }
  KJ_DISALLOW_COPY(Stream);

  void begin(uint64_t inflatedBytes) {
    inflateReset(&zlib);
    bytesLeft = inflatedBytes;
  }
  // What of the bytes the stream takes. `ended`: it is over; `bad`: it is none, or a longer one.
  size_t take(kj::ArrayPtr<const kj::byte> bytes, bool& ended, bool& bad) {
    zlib.next_in = const_cast<Bytef*>(bytes.begin());
    zlib.avail_in = static_cast<uInt>(kj::min(bytes.size(), kStepBytes));
    const size_t given = zlib.avail_in;
    do {
      zlib.next_out = thrownAway;
      zlib.avail_out = sizeof thrownAway;
      const int result = inflate(&zlib, Z_NO_FLUSH);
      ended = result == Z_STREAM_END;
      const uint64_t made = sizeof thrownAway - zlib.avail_out;
      bad = made > bytesLeft || (!ended && result != Z_OK && result != Z_BUF_ERROR);
      bytesLeft -= kj::min(made, bytesLeft);
    } while (!ended && !bad && (zlib.avail_in > 0 || zlib.avail_out == 0));
    return given - zlib.avail_in;
  }

  static constexpr size_t kStepBytes = 1u << 20;
  z_stream zlib;
  uint64_t bytesLeft = 0;
  kj::byte thrownAway[32u << 10];
};

PackEnd::PackEnd() : stream_(std::make_unique<Stream>()) {}
PackEnd::~PackEnd() noexcept(false) {}

size_t PackEnd::take(kj::ArrayPtr<const kj::byte> bytes) {
  size_t taken = 0;
  while (taken < bytes.size() && part_ != Part::kEnd) {
    taken += step(bytes.slice(taken, bytes.size()));
  }
  return taken;
}

size_t PackEnd::step(kj::ArrayPtr<const kj::byte> bytes) {
  switch (part_) {
    case Part::kHeader: return stepHeader(bytes);
    case Part::kEntry: return stepEntry(bytes);
    case Part::kData: {
      bool ended = false, bad = false;
      const size_t taken = stream_->take(bytes, ended, bad);
      if (bad) return broken(bytes);
      if (ended) nextEntry();
      return taken;
    }
    case Part::kTrailer: {
      const size_t taken = kj::min(bytes.size(), trailerLeft_);
      trailerLeft_ -= taken;
      if (trailerLeft_ == 0) part_ = Part::kEnd;
      return taken;
    }
    case Part::kEnd: break;
  }
  return 0;
}

size_t PackEnd::give(kj::ArrayPtr<const kj::byte> bytes, size_t wanted) {
  const size_t given = kj::min(bytes.size(), wanted - heldBytes_);
  memcpy(held_ + heldBytes_, bytes.begin(), given);
  heldBytes_ += given;
  return given;
}

size_t PackEnd::stepHeader(kj::ArrayPtr<const kj::byte> bytes) {
  const size_t taken = give(bytes, kPackHeaderBytes);
  uint32_t count = 0;
  const Decoded decoded = decodePackHeader(kj::arrayPtr(held_, heldBytes_), count);
  if (decoded == Decoded::kBad) return broken(bytes);
  if (decoded == Decoded::kShort) return taken;
  entriesLeft_ = uint64_t{count} + 1;
  nextEntry();
  return taken;
}

size_t PackEnd::stepEntry(kj::ArrayPtr<const kj::byte> bytes) {
  const size_t before = heldBytes_;
  give(bytes, kEntryHeaderBytesMax);
  PackEntryHeader header;
  const Decoded decoded = decodeEntryHeader(kj::arrayPtr(held_, heldBytes_), header);
  if (decoded == Decoded::kBad) return broken(bytes);
  if (decoded == Decoded::kShort) return heldBytes_ - before;
  part_ = Part::kData;
  stream_->begin(header.bytes);
  return header.headerBytes - before;
}

void PackEnd::nextEntry() {
  heldBytes_ = 0;
  if (--entriesLeft_ == 0) {
    part_ = Part::kTrailer;
    trailerLeft_ = kPackTrailerBytes;
    return;
  }
  part_ = Part::kEntry;
}

size_t PackEnd::broken(kj::ArrayPtr<const kj::byte> bytes) {
  part_ = Part::kEnd;
  return bytes.size();
}

}  // namespace packmoor::gitlayer
