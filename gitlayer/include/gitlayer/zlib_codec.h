// Whole-buffer zlib streams by libdeflate.
//
// Why whole buffers: an object's inflated size is known before it is inflated, and libdeflate is
// two to three times as fast as zlib when it may see everything. Streams that do not fit in
// memory are inflated with zlib itself (indexer.h).
//
// An Inflater or Deflater belongs to one thread at a time; keep one and use it often.
#pragma once

#include <kj/array.h>

struct libdeflate_decompressor;
struct libdeflate_compressor;

namespace packmoor::gitlayer {

class Inflater {
 public:
  Inflater();
  ~Inflater() noexcept;
  KJ_DISALLOW_COPY(Inflater);
  // Inflates the zlib stream at the start of `in`, which must yield exactly out.size() bytes.
  // `consumed`: the stream's length. False: damaged, truncated, or of another size.
  bool inflate(kj::ArrayPtr<const kj::byte> in, kj::ArrayPtr<kj::byte> out, size_t& consumed);

 private:
  libdeflate_decompressor* handle_;
};

class Deflater {
 public:
  explicit Deflater(int level = 1);
  ~Deflater() noexcept;
  KJ_DISALLOW_COPY(Deflater);
  kj::Array<const kj::byte> deflate(kj::ArrayPtr<const kj::byte> in);

 private:
  libdeflate_compressor* handle_;
};

}  // namespace packmoor::gitlayer
