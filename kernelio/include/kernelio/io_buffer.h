// IoBuffer: shared, aligned memory for disk and network transfers.
//
// Why: a buffer handed to the kernel must live until the kernel is done with it, whatever
// happens to the promise that asked for the transfer. Transfers therefore hold a reference of
// their own. The same bytes are often written to disk, sent to two peers and hashed by a
// worker; references make that free of copies.
//
// Memory is aligned to kIoAlignment so that O_DIRECT takes it. References are counted
// atomically: a buffer may be released on any thread. The bytes may be changed only while
// there is one reference; after that they are read-only by agreement.
#pragma once

#include <kj/array.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace packmoor::kernelio {

constexpr size_t kIoAlignment = 4096;  // bytes; also the sector that disks write atomically

class IoBuffer {
 public:
  IoBuffer() = default;  // no bytes
  // `bytes` of zeroed memory; the allocation is rounded up to kIoAlignment.
  static IoBuffer allocate(size_t bytes);
  static IoBuffer copyOf(kj::ArrayPtr<const kj::byte> bytes);

  IoBuffer(IoBuffer&& other) noexcept;
  IoBuffer& operator=(IoBuffer&& other) noexcept;
  IoBuffer(const IoBuffer& other) noexcept;  // another reference to the same bytes
  IoBuffer& operator=(const IoBuffer& other) noexcept;
  ~IoBuffer() noexcept;

  size_t size() const { return size_; }
  kj::byte* begin() { return bytes_; }
  const kj::byte* begin() const { return bytes_; }
  kj::ArrayPtr<kj::byte> bytes() { return kj::arrayPtr(bytes_, size_); }
  kj::ArrayPtr<const kj::byte> bytes() const { return kj::arrayPtr(bytes_, size_); }

  // A reference to part of the same memory. [offset, offset + bytes) must lie within it.
  IoBuffer slice(size_t offset, size_t bytes) const;

 private:
  struct Block;
  IoBuffer(Block* block, kj::byte* bytes, size_t size) noexcept
      : block_(block), bytes_(bytes), size_(size) {}

  Block* block_ = nullptr;
  kj::byte* bytes_ = nullptr;
  size_t size_ = 0;
};

}  // namespace packmoor::kernelio
