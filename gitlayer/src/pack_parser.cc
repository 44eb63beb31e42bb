#include "pack_parser.h"

#include "object_hasher.h"

#include <kernelio/check.h>

#include <libdeflate.h>
#include <zlib.h>

#include <cstring>
#include <optional>

namespace packmoor::gitlayer {

namespace {

constexpr size_t kDiscardBytes = 64u << 10;
// No zlib stream is longer inflated than this many times its own length (and a little).
constexpr uint64_t kInflationMax = 1032;
constexpr const char* kCollisionAttack = "SHA-1 appears to be part of a collision attack";

// The longest stream that zlib makes of `bytes` bytes with any of its settings (deflateBound),
// and a little more.
size_t streamBytesBound(size_t bytes) { return bytes + bytes / 8 + bytes / 64 + 64; }

}  // namespace

std::string tooLargeToHold(uint64_t offset, uint64_t bytesMax) {
  return kj::str("object at offset ", offset, " must lie in memory to be read and is larger than ",
                 bytesMax, " bytes (git.held_object_max)").cStr();
}

struct PackParser::Stream {
  Stream() {
    memset(&zlib, 0, sizeof zlib);
    PACKMOOR_CHECK(inflateInit(&zlib) == Z_OK, "zlib");
  }
  ~Stream() { inflateEnd(&zlib); }

  z_stream zlib;
  LargeBuffer whole;            // of an object that is kept
  kj::Array<kj::byte> discard;  // for what is not: a delta, which is not needed yet, or a large blob
  std::optional<ObjectHasher> hasher;   // of a large blob
  uint64_t produced = 0;
};

PackParser::PackParser(EntrySink& sink, const PackLimits& limits)
    : sink_(sink), limits_(limits), window_(kj::heapArray<kj::byte>(512u << 10)) {}
PackParser::~PackParser() noexcept {}

bool PackParser::refuse(std::string problem) {
  problem_ = std::move(problem);
  state_ = State::kRefused;
  return false;
}

// What stopped the parse may only be that the pack was cut there.
bool PackParser::refuseByCut(const char* otherwise) {
  return refuse(ended_ && rest().size() < kPackTrailerBytes + 16 ? "early EOF" : otherwise);
}

void PackParser::append(kj::ArrayPtr<const kj::byte> bytes) {
  if (window_.size() - filled_ < bytes.size()) {
    size_t held = filled_ - at_;
    sha1_.update(window_.slice(summed_, at_));
    if (window_.size() - held >= bytes.size()) {
      memmove(window_.begin(), window_.begin() + at_, held);
    } else {
      auto larger = kj::heapArray<kj::byte>(kj::max(window_.size() * 2, held + bytes.size()));
      memcpy(larger.begin(), window_.begin() + at_, held);
      window_ = kj::mv(larger);
    }
    windowOffset_ += at_;
    filled_ = held;
    at_ = summed_ = 0;
  }
  memcpy(window_.begin() + filled_, bytes.begin(), bytes.size());
  filled_ += bytes.size();
}

bool PackParser::feed(kj::ArrayPtr<const kj::byte> bytes) {
  if (state_ == State::kRefused) return false;
  if (bytes.size() == 0) return true;
  append(bytes);
  if (windowOffset_ + filled_ > limits_.packBytesMax) {
    return refuse("pack exceeds maximum allowed size");
  }
  return run();
}

bool PackParser::end() {
  ended_ = true;
  if (!run()) return false;
  if (state_ != State::kDone) return refuse("early EOF");
  return true;
}

// Goes on until bytes are missing. False: refused.
bool PackParser::run() {
  for (bool more = true; more;) {
    switch (state_) {
      case State::kHeader: more = header(); break;
      case State::kEntry: more = entry(); break;
      case State::kStream: more = stream(); break;
      case State::kTrailer: more = trailerBytes(); break;
      case State::kDone:
        if (rest().size() > 0) refuse("pack has junk at the end");
        more = false;
        break;
      case State::kRefused: more = false; break;
    }
  }
  return state_ != State::kRefused;
}

bool PackParser::header() {
  uint32_t count = 0;
  switch (decodePackHeader(rest(), count)) {
    case Decoded::kShort: return false;
    case Decoded::kBad:
      return refuse(rest().size() >= 4 && memcmp(rest().begin(), "PACK", 4) == 0
                        ? "pack version unsupported"
                        : "pack signature mismatch");
    case Decoded::kDone: break;
  }
  if (count > limits_.objectsMax) return refuse("pack has too many objects");
  consume(kPackHeaderBytes);
  objectsLeft_ = count;
  sink_.begin(count);
  state_ = count == 0 ? State::kTrailer : State::kEntry;
  return true;
}

bool PackParser::entry() {
  current_.offset = bytesParsed();
  switch (decodeEntryHeader(rest(), current_.header)) {
    case Decoded::kShort: return ended_ ? refuse("early EOF") : false;
    case Decoded::kBad:
      return refuseByCut(
          kj::str("bad object at offset ", current_.offset, ": unknown type").cStr());
    case Decoded::kDone: break;
  }
  uint64_t bytes = current_.header.bytes;
  if (bytes > limits_.objectBytesMax) {
    return refuse(kj::str("object at offset ", current_.offset, " is larger than ",
                          limits_.objectBytesMax, " bytes").cStr());
  }
  if (bytes > kBufferedBytesMax) return beginStream();
  auto stream = rest().slice(current_.header.headerBytes, rest().size());
  if (stream.size() < streamBytesBound(bytes) && !ended_) return false;
  if (buffered_.size() < bytes) buffered_ = kj::heapArray<kj::byte>(kj::max(bytes, size_t(4096)));
  size_t consumed = 0;
  auto data = buffered_.slice(0, bytes);
  if (!inflater_.inflate(stream, data, consumed)) return beginStream();
  current_.crc =
      libdeflate_crc32(0, rest().begin(), current_.header.headerBytes + consumed);
  consume(current_.header.headerBytes + consumed);
  return emit(data);
}

bool PackParser::emit(kj::ArrayPtr<const kj::byte> data) {
  if (isDelta(current_.header.type)) data = nullptr;
  if (!sink_.entry(current_, data)) return refuse({});
  return entryEnds();
}

bool PackParser::entryEnds() {
  state_ = --objectsLeft_ == 0 ? State::kTrailer : State::kEntry;
  return true;
}

bool PackParser::beginStream() {
  uint64_t bytes = current_.header.bytes;
  // Nothing is reserved for a size that the rest of the pack could not hold.
  uint64_t packLeft = limits_.packBytesMax - kj::min(limits_.packBytesMax, current_.offset);
  if (ended_) packLeft = rest().size();
  if (bytes / kInflationMax > packLeft) return refuseByCut("inflate returned -3");
  const PackEntryType type = current_.header.type;
  const bool named = type == PackEntryType::kBlob && bytes > kHeapObjectBytesMax &&
                     ObjectHasher::available();
  if (!named && bytes > limits_.heldBytesMax) {
    return refuse(tooLargeToHold(current_.offset, limits_.heldBytesMax));
  }
  stream_ = std::make_unique<Stream>();
  if (named) stream_->hasher.emplace(ObjectType::kBlob, bytes);
  if (named || isDelta(type)) {
    stream_->discard = kj::heapArray<kj::byte>(kDiscardBytes);
  } else {
    stream_->whole = LargeBuffer(bytes, limits_.scratchFolder);
  }
  current_.crc = libdeflate_crc32(0, rest().begin(), current_.header.headerBytes);
  consume(current_.header.headerBytes);
  state_ = State::kStream;
  return true;
}

bool PackParser::stream() {
  Stream& stream = *stream_;
  z_stream& zlib = stream.zlib;
  for (;;) {
    // One byte too many is offered, so that a stream that is too long shows.
    kj::byte extra;
    kj::ArrayPtr<kj::byte> room = kj::arrayPtr(&extra, 1);
    if (stream.produced < current_.header.bytes) {
      room = stream.discard.size() > 0 ? stream.discard.asPtr()
                                       : stream.whole.bytes().slice(stream.produced,
                                                                    stream.whole.size());
    }
    auto in = rest();
    constexpr size_t kStepMax = 1u << 30;  // zlib counts in 32 bits
    zlib.next_in = const_cast<kj::byte*>(in.begin());
    zlib.avail_in = static_cast<uInt>(kj::min(in.size(), kStepMax));
    zlib.next_out = room.begin();
    zlib.avail_out = static_cast<uInt>(kj::min(room.size(), kStepMax));
    int status = inflate(&zlib, Z_NO_FLUSH);
    size_t taken = static_cast<size_t>(zlib.next_in - in.begin());
    const size_t made = static_cast<size_t>(zlib.next_out - room.begin());
    stream.produced += made;
    current_.crc = libdeflate_crc32(current_.crc, in.begin(), taken);
    consume(taken);
    if (stream.produced > current_.header.bytes) {
      return refuse("serious inflate inconsistency");
    }
    if (stream.hasher && !stream.hasher->update(room.slice(0, made))) {
      return refuse(kCollisionAttack);
    }
    if (status == Z_STREAM_END) break;
    if (status != Z_OK && status != Z_BUF_ERROR) {
      return refuseByCut(kj::str("inflate returned ", status).cStr());
    }
    if (rest().size() == 0) return ended_ ? refuse("early EOF") : false;
  }
  if (stream.produced != current_.header.bytes) return refuse("serious inflate inconsistency");
  auto owned = std::move(stream_);
  if (owned->hasher) return emitNamed(*owned->hasher);
  return emit(owned->whole.bytes());
}

bool PackParser::emitNamed(ObjectHasher& hasher) {
  ObjectId id;
  if (!hasher.finish(id)) return refuse(kCollisionAttack);
  if (!sink_.namedBlob(current_, id)) return refuse({});
  return entryEnds();
}

bool PackParser::trailerBytes() {
  if (rest().size() < kPackTrailerBytes) return ended_ ? refuse("early EOF") : false;
  sha1_.update(window_.slice(summed_, at_));
  trailer_ = ObjectId::fromBytes(rest().begin());
  if (sha1_.finish() != trailer_) return refuse("pack is corrupted (SHA1 mismatch)");
  consume(kPackTrailerBytes);
  summed_ = at_;
  state_ = State::kDone;
  return true;
}

void PackParser::consume(size_t bytes) {
  PACKMOOR_CHECK(bytes <= filled_ - at_, "the parser's window", bytes, filled_ - at_);
  at_ += bytes;
}

}  // namespace packmoor::gitlayer
