#include "archive_format.h"

#include <kj/debug.h>
#include <zlib.h>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kBufferBytes = 32u << 10;
constexpr int kWindowBits = 15, kGzipBits = 16, kMemoryLevel = 8, kUnix = 3;

}  // namespace

struct DeflateStream::State {
  z_stream stream{};
  gz_header header{};
  kj::Array<kj::byte> buffer = kj::heapArray<kj::byte>(kBufferBytes);
};

DeflateStream::DeflateStream(int level, Wrapping wrapping) : state_(std::make_unique<State>()) {
  const int bits = wrapping == Wrapping::kGzip ? kWindowBits + kGzipBits : -kWindowBits;
  KJ_REQUIRE(deflateInit2(&state_->stream, level, Z_DEFLATED, bits, kMemoryLevel, Z_DEFAULT_STRATEGY) == Z_OK,
             "zlib has no memory");
  // Neither a name nor a time: equal trees make equal archives.
  state_->header.os = kUnix;
  if (wrapping == Wrapping::kGzip) deflateSetHeader(&state_->stream, &state_->header);
}

DeflateStream::~DeflateStream() noexcept { deflateEnd(&state_->stream); }

size_t DeflateStream::run(PackSink& out, kj::ArrayPtr<const kj::byte> bytes, bool last) {
  z_stream& stream = state_->stream;
  auto& buffer = state_->buffer;
  size_t written = 0;
  stream.next_in = const_cast<kj::byte*>(bytes.begin());
  stream.avail_in = static_cast<uInt>(bytes.size());
  for (;;) {
    stream.next_out = buffer.begin();
    stream.avail_out = static_cast<uInt>(buffer.size());
    const int result = deflate(&stream, last ? Z_FINISH : Z_NO_FLUSH);
    KJ_REQUIRE(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, "zlib cannot compress", result);
    const size_t made = buffer.size() - stream.avail_out;
    if (made > 0) out.write(buffer.slice(0, made));
    written += made;
    if (last ? result == Z_STREAM_END : stream.avail_out > 0) return written;
  }
}

}  // namespace packmoor::gitlayer
