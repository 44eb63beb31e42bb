// FileInput: a part of a file as a stream, which a socket may take without copying it (sendfile(2)).
//
// Why: a pack that many clients ask for lies in a file, and most of the cost of sending it would be copies.
// A stream that knows how (rpc's JoiningStream) takes the file itself; any other reads from it. Reading
// blocks the loop for as long as the disk takes, so that this is for files that have just been written.
//
// Borrows the descriptor, which stays open for as long as this and what was made of it. One user at a time.
#pragma once

#include <kj/async-io.h>

#include <cstdint>

namespace packmoor::kernelio {

class FileInput final : public kj::AsyncInputStream {
 public:
  FileInput(int fd, uint64_t offset, uint64_t bytes) : fd_(fd), offset_(offset), left_(bytes) {}

  int fd() const { return fd_; }
  uint64_t offset() const { return offset_; }
  uint64_t left() const { return left_; }
  // Bytes that somebody has taken from the file itself; at most left().
  void skip(uint64_t bytes) {
    offset_ += bytes;
    left_ -= bytes;
  }

  // Rejects when the file is shorter than was said, or cannot be read.
  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override;
  kj::Maybe<uint64_t> tryGetLength() override { return left_; }

 private:
  const int fd_;
  uint64_t offset_, left_;
};

}  // namespace packmoor::kernelio
