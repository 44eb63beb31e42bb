// PackParser: the first pass over a pack, as its bytes arrive.
//
// Why: entries do not say how long they are; the end of one is found only by inflating it. This
// pass finds every entry, inflates it once, and verifies the pack's trailer, in whatever pieces
// the bytes come. Data is given to a sink and forgotten.
//
// Objects of up to kBufferedBytesMax are inflated at once by libdeflate as soon as enough bytes
// are there for the longest stream that any common encoder makes of them; the others, and
// what that cannot inflate, go through zlib piece by piece.
// Blobs of more than kHeapObjectBytesMax are named piece by piece and never kept, where the processor
// can (ObjectHasher): no size that a pack claims, and nothing that it inflates to, takes memory or room.
// Memory: a window of about 2 MiB, and one object of at most heldBytesMax. Belongs to one thread at a time.
#pragma once

#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"
#include "large_buffer.h"
#include "sha1_stream.h"

#include <memory>
#include <string>

namespace packmoor::gitlayer {

struct ParsedEntry {
  uint64_t offset = 0;
  PackEntryHeader header;
  uint32_t crc = 0;        // CRC-32 of header and stream, as in a pack's index
};

class EntrySink {
 public:
  virtual ~EntrySink() noexcept(false) {}
  virtual void begin(uint32_t objectCount) = 0;
  // `data` is the inflated object, valid during the call; empty for a delta. False ends the
  // parse; the sink then knows why.
  virtual bool entry(const ParsedEntry& entry, kj::ArrayPtr<const kj::byte> data) = 0;
  // A blob too large to be kept for that, which was named on the way.
  virtual bool namedBlob(const ParsedEntry& entry, const ObjectId& id) = 0;
};

struct PackLimits {
  uint64_t packBytesMax = 16ull << 30;
  uint32_t objectsMax = 64'000'000;
  uint64_t objectBytesMax = 16ull << 30;  // of one object, inflated
  // Of one that must lie in memory as a whole: all but blobs that came as they are and are no base.
  uint64_t heldBytesMax = 512ull << 20;
  // What deltas make may be so many times the pack's size, and so much whatever that is.
  uint64_t expansionMax = 2000, expansionFloorBytes = 64ull << 30;
  bool strict = true;                     // refuse what git fsck refuses
  std::string scratchFolder;              // for objects above kHeapObjectBytesMax
};

class ObjectHasher;

// Why an object is refused that would have to be held and may not.
std::string tooLargeToHold(uint64_t offset, uint64_t bytesMax);

class PackParser {
 public:
  PackParser(EntrySink& sink, const PackLimits& limits);
  ~PackParser() noexcept;
  KJ_DISALLOW_COPY(PackParser);

  // The next bytes of the pack. False: refused, see problem() (empty when the sink refused).
  bool feed(kj::ArrayPtr<const kj::byte> bytes);
  // No more bytes follow. True: the pack was whole and its trailer right.
  bool end();

  const std::string& problem() const { return problem_; }
  uint64_t bytesParsed() const { return windowOffset_ + at_; }
  const ObjectId& trailer() const { return trailer_; }

  static constexpr size_t kBufferedBytesMax = 1u << 20;

 private:
  enum class State : uint8_t { kHeader, kEntry, kStream, kTrailer, kDone, kRefused };
  struct Stream;  // zlib's state, for the entry that is being inflated piece by piece

  bool refuse(std::string problem);
  bool refuseByCut(const char* otherwise);
  void append(kj::ArrayPtr<const kj::byte> bytes);
  bool run();
  // False: more bytes are needed, or the pack is refused.
  bool header();
  bool entry();
  bool stream();
  bool trailerBytes();
  bool beginStream();
  bool emit(kj::ArrayPtr<const kj::byte> data);
  bool emitNamed(ObjectHasher& hasher);
  bool entryEnds();
  void consume(size_t bytes);
  kj::ArrayPtr<const kj::byte> rest() const { return window_.slice(at_, filled_); }

  EntrySink& sink_;
  PackLimits limits_;
  State state_ = State::kHeader;
  bool ended_ = false;
  std::string problem_;

  kj::Array<kj::byte> window_;
  size_t at_ = 0, filled_ = 0;     // in the window: parsed so far, filled so far
  size_t summed_ = 0;              // of the window, in sha1_ already
  uint64_t windowOffset_ = 0;      // of the window's first byte in the pack

  uint32_t objectsLeft_ = 0;
  ParsedEntry current_;
  Inflater inflater_;
  kj::Array<kj::byte> buffered_;   // reused for the data of small objects
  std::unique_ptr<Stream> stream_;
  Sha1Stream sha1_;
  ObjectId trailer_;
};

}  // namespace packmoor::gitlayer
