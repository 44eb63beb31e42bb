#include "gitlayer/zlib_codec.h"

#include <kernelio/check.h>

#include <libdeflate.h>

namespace packmoor::gitlayer {

Inflater::Inflater() : handle_(libdeflate_alloc_decompressor()) {
  PACKMOOR_CHECK(handle_ != nullptr, "out of memory");
}
Inflater::~Inflater() noexcept { libdeflate_free_decompressor(handle_); }

bool Inflater::inflate(kj::ArrayPtr<const kj::byte> in, kj::ArrayPtr<kj::byte> out,
                       size_t& consumed) {
  kj::byte none;
  // With no place to report a shorter result, libdeflate refuses one.
  return libdeflate_zlib_decompress_ex(handle_, in.begin(), in.size(),
                                       out.size() == 0 ? &none : out.begin(), out.size(),
                                       &consumed, nullptr) == LIBDEFLATE_SUCCESS;
}

Deflater::Deflater(int level) : handle_(libdeflate_alloc_compressor(level)) {
  PACKMOOR_CHECK(handle_ != nullptr, "out of memory");
}
Deflater::~Deflater() noexcept { libdeflate_free_compressor(handle_); }

kj::Array<const kj::byte> Deflater::deflate(kj::ArrayPtr<const kj::byte> in) {
  auto room = kj::heapArray<kj::byte>(libdeflate_zlib_compress_bound(handle_, in.size()));
  size_t bytes =
      libdeflate_zlib_compress(handle_, in.begin(), in.size(), room.begin(), room.size());
  PACKMOOR_CHECK(bytes > 0, "libdeflate gave no output within its own bound");
  return kj::heapArray<kj::byte>(room.slice(0, bytes));
}

}  // namespace packmoor::gitlayer
