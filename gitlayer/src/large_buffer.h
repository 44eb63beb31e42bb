// A buffer for one object: on the heap when small, in a nameless temporary file when large.
//
// Why: an object's data must lie in memory at once to be hashed and to be a delta's base, and
// pushes may hold objects of gigabytes. Mapped from a file, the kernel may write such data out
// instead of killing the node.
//
// Belongs to one thread at a time; movable.
#pragma once

#include <kj/array.h>

#include <string>

namespace packmoor::gitlayer {

constexpr size_t kHeapObjectBytesMax = 16u << 20;

class LargeBuffer {
 public:
  LargeBuffer() = default;
  // `folder`: where temporary files may be; empty: the heap is used always. Throws when there is
  // no room. The content is not initialised.
  LargeBuffer(size_t bytes, const std::string& folder);

  kj::ArrayPtr<kj::byte> bytes() { return bytes_; }
  kj::ArrayPtr<const kj::byte> bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  kj::Array<kj::byte> release() { return kj::mv(bytes_); }

  static LargeBuffer adopt(kj::Array<kj::byte> bytes) {
    LargeBuffer result;
    result.bytes_ = kj::mv(bytes);
    return result;
  }

 private:
  kj::Array<kj::byte> bytes_;
};

}  // namespace packmoor::gitlayer
