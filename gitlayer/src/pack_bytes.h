// Reading a pack anywhere, while it is still being received.
#pragma once

#include <kernelio/io_buffer.h>

#include <kj/array.h>
#include <kj/io.h>

#include <string>
#include <vector>

namespace packmoor::gitlayer {

// Thread-safe. Bytes may be read once they are written.
class PackBytes {
 public:
  virtual ~PackBytes() noexcept(false) {}
  // Fills `into` with the bytes at `offset`; throws when it cannot.
  virtual void read(uint64_t offset, kj::ArrayPtr<kj::byte> into) const = 0;
};

// The data file of an extent that is not sealed yet.
class FilePackBytes final : public PackBytes {
 public:
  explicit FilePackBytes(const std::string& path);
  void read(uint64_t offset, kj::ArrayPtr<kj::byte> into) const override;

 private:
  kj::AutoCloseFd file_;
};

// The blocks themselves, where there is no file to read (a simulated disk).
class MemoryPackBytes final : public PackBytes {
 public:
  // Not while another thread reads.
  void set(uint64_t block, kernelio::IoBuffer data) {
    if (blocks_.size() <= block) blocks_.resize(block + 1);
    blocks_[block] = kj::mv(data);
  }
  void read(uint64_t offset, kj::ArrayPtr<kj::byte> into) const override;

 private:
  std::vector<kernelio::IoBuffer> blocks_;
};

}  // namespace packmoor::gitlayer
