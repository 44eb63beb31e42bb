// PackEnd: finds where a pack ends in a stream that goes on behind it.
//
// Why: over HTTP a pack ends with the request's body. Over ssh the client sends it and waits for the
// report, so that the pack itself must say where it ends: after its count of entries, each of which
// ends where its zlib stream does, and a checksum (gitformat-pack(5)). Nothing is verified here.
//
// Memory: a zlib state and 32 KiB. Thread: one at a time.
#pragma once

#include <kj/array.h>

#include <cstdint>
#include <memory>

namespace packmoor::gitlayer {

class PackEnd {
 public:
  PackEnd();
  ~PackEnd() noexcept(false);
  KJ_DISALLOW_COPY(PackEnd);

  // The next bytes of the stream; how many of them belong to the pack. Bytes that are no pack have no
  // end to be found: they are all taken for it, and it has ended then, for whoever reads it to refuse.
  size_t take(kj::ArrayPtr<const kj::byte> bytes);
  bool ended() const { return part_ == Part::kEnd; }

 private:
  struct Stream;
  enum class Part : uint8_t { kHeader, kEntry, kData, kTrailer, kEnd };
  size_t step(kj::ArrayPtr<const kj::byte> bytes);
  size_t stepHeader(kj::ArrayPtr<const kj::byte> bytes);
  size_t stepEntry(kj::ArrayPtr<const kj::byte> bytes);
  void nextEntry();
  size_t give(kj::ArrayPtr<const kj::byte> bytes, size_t wanted);
  size_t broken(kj::ArrayPtr<const kj::byte> bytes);

  Part part_ = Part::kHeader;
  kj::byte held_[32];          // of a header that came in pieces
  size_t heldBytes_ = 0;
  uint64_t entriesLeft_ = 0;
  size_t trailerLeft_ = 0;
  std::unique_ptr<Stream> stream_;
};

}  // namespace packmoor::gitlayer
