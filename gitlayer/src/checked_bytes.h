// CheckedBytes: a sealed extent as memory, each block checked when it is first needed.
//
// Why: packs are read at random, from many threads, for as long as they live, and reading a copy
// of each block through the event loop would cost more than the work itself. The file is mapped;
// before bytes of a block are given out for the first time, the block is read, its checksum
// compared, and that remembered. Reading it that way also turns an I/O error into an exception
// where touching the mapping would kill the process. A bad block is mended, where that can be done,
// and read again: the mapping shows the file as it is.
//
// Threads: any, concurrently. Two threads may check the same block at once, which is harmless.
// The memory stays valid for the life of the object.
#pragma once

#include <replicator/extent_store.h>

#include <kj/array.h>
#include <kj/io.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace packmoor::gitlayer {

class CheckedBytes {
 public:
  // Maps the file, which must have exactly the size that goes with the checksums. `what` names it
  // in errors ("pack 3f..."); `mend` is that of a BlockMender, or null. Throws a sentence when the
  // file cannot be opened or has another size.
  static std::shared_ptr<CheckedBytes> map(const std::string& path, std::string what,
                                           uint64_t bytes,
                                           kj::Array<replicator::Hash128> checksums,
                                           std::function<bool(uint64_t block)> mend);
  // Bytes that were checked already.
  static std::shared_ptr<CheckedBytes> inMemory(kj::Array<const kj::byte> bytes,
                                                std::string what);
  struct Private {};  // made by the two functions above only
  CheckedBytes(Private, std::string what) : what_(std::move(what)) {}
  ~CheckedBytes() noexcept;
  KJ_DISALLOW_COPY(CheckedBytes);

  uint64_t size() const { return bytes_.size(); }
  const std::string& what() const { return what_; }
  // Checks what has not been checked of the range, which must lie within size(), and gives it.
  // Throws a sentence that names the block when it is damaged or cannot be read.
  kj::ArrayPtr<const kj::byte> need(uint64_t offset, uint64_t count);
  // All of it, unchecked.
  kj::ArrayPtr<const kj::byte> all() const { return bytes_; }
  // Reads and compares every block again, also those that were checked before.
  void checkAll();

 private:
  void checkBlock(uint64_t block);
  std::string problemOf(uint64_t block) const;  // empty: it is good
  bool isChecked(uint64_t block) const;

  std::string what_;
  kj::ArrayPtr<const kj::byte> bytes_;
  kj::Array<const kj::byte> owned_;  // in memory
  kj::AutoCloseFd file_;             // mapped
  kj::Array<replicator::Hash128> checksums_;
  std::function<bool(uint64_t block)> mend_;
  std::vector<std::atomic<uint64_t>> checked_;  // one bit per block; empty: all checked
};

}  // namespace packmoor::gitlayer
