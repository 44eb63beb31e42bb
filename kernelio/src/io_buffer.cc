#include "kernelio/io_buffer.h"

#include "kernelio/check.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace packmoor::kernelio {

namespace {
struct Free {
  void operator()(kj::byte* memory) const noexcept { std::free(memory); }
};
}  // namespace

struct IoBuffer::Block {
  std::atomic<uint32_t> references{1};
  std::unique_ptr<kj::byte, Free> memory;
};

IoBuffer IoBuffer::allocate(size_t bytes) {
  if (bytes == 0) return IoBuffer();
  size_t rounded = (bytes + kIoAlignment - 1) / kIoAlignment * kIoAlignment;
  PACKMOOR_CHECK(rounded >= bytes, "allocating a buffer", bytes);
  auto block = std::make_unique<Block>();
  block->memory.reset(static_cast<kj::byte*>(std::aligned_alloc(kIoAlignment, rounded)));
  if (block->memory == nullptr) throw std::bad_alloc();
  std::memset(block->memory.get(), 0, rounded);
  kj::byte* begin = block->memory.get();
  return IoBuffer(block.release(), begin, bytes);
}

IoBuffer IoBuffer::copyOf(kj::ArrayPtr<const kj::byte> bytes) {
  IoBuffer result = allocate(bytes.size());
  if (bytes.size() > 0) std::memcpy(result.begin(), bytes.begin(), bytes.size());
  return result;
}

IoBuffer::IoBuffer(IoBuffer&& other) noexcept
    : block_(std::exchange(other.block_, nullptr)),
      bytes_(std::exchange(other.bytes_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

IoBuffer& IoBuffer::operator=(IoBuffer&& other) noexcept {
  IoBuffer taken(std::move(other));
  std::swap(block_, taken.block_);
  std::swap(bytes_, taken.bytes_);
  std::swap(size_, taken.size_);
  return *this;
}

IoBuffer::IoBuffer(const IoBuffer& other) noexcept
    : block_(other.block_), bytes_(other.bytes_), size_(other.size_) {
  if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
}

IoBuffer& IoBuffer::operator=(const IoBuffer& other) noexcept {
  *this = IoBuffer(other);
  return *this;
}

IoBuffer::~IoBuffer() noexcept {
  // The last reference sees every write that was made through the others.
  if (block_ != nullptr && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    std::unique_ptr<Block> last(block_);
  }
}

IoBuffer IoBuffer::slice(size_t offset, size_t bytes) const {
  PACKMOOR_CHECK(offset <= size_ && bytes <= size_ - offset, "slicing a buffer", offset, bytes,
                 size_);
  if (bytes == 0) return IoBuffer();
  IoBuffer result(*this);
  result.bytes_ += offset;
  result.size_ = bytes;
  return result;
}

}  // namespace packmoor::kernelio
