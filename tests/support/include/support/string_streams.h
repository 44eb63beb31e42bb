// Streams over text in memory: an input that hands out a text in pieces of a chosen size, and an
// output that collects what is written. Both are always ready and never fail; an input may be told
// not to end, as a client that waits.
#pragma once

#include <kj/async-io.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace packmoor::testing {

class StringInput final : public kj::AsyncInputStream {
 public:
  explicit StringInput(std::string text, size_t piece = SIZE_MAX)
      : text_(std::move(text)), piece_(piece) {}
  kj::Promise<size_t> tryRead(void* buffer, size_t, size_t maxBytes) override {
    if (at_ == text_.size() && neverEnds) return kj::NEVER_DONE;
    size_t n = std::min({piece_, maxBytes, text_.size() - at_});
    memcpy(buffer, text_.data() + at_, n);
    at_ += n;
    return n;
  }
  size_t left() const { return text_.size() - at_; }
  bool neverEnds = false;

 private:
  std::string text_;
  size_t piece_, at_ = 0;
};

class StringOutput final : public kj::AsyncOutputStream {
 public:
  kj::Promise<void> write(const void* buffer, size_t size) override {
    text.append(static_cast<const char*>(buffer), size);
    return kj::READY_NOW;
  }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    for (auto piece : pieces) text.append(piece.asChars().begin(), piece.size());
    return kj::READY_NOW;
  }
  kj::Promise<void> whenWriteDisconnected() override { return kj::NEVER_DONE; }
  std::string text;
};

}  // namespace packmoor::testing
