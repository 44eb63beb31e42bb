// Streams that stand between a connection and the HTTP server, and between it and git.
//
// All live on the node's loop and belong to one connection or request.
#pragma once

#include <kernelio/co.h>

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/timer.h>

#include <vector>

namespace packmoor::rpc {

// A client connection whose small writes are joined until the loop has nothing else to do, and
// whose writes fail when the other side takes nothing for `stallTimeout`. A failure of a joined
// write surfaces at a later write or at flush(). flush() must be waited for before the stream is
// dropped, or what was joined last is lost.
//
// A FileInput that is pumped into it is sent by the system itself (sendfile(2)), where the connection is a
// socket and `events` is given.
class JoiningStream final : public kj::AsyncIoStream {
 public:
  JoiningStream(kj::Own<kj::AsyncIoStream> inner, kj::Timer& timer, kj::Duration stallTimeout,
                kj::UnixEventPort* events = nullptr);
  ~JoiningStream() noexcept(false);

  kj::Promise<void> flush();
  // Nothing more may be written; what was joined so far still goes out with flush(). For an
  // answer that must not look whole: KJ ends a chunked body whenever its stream is dropped.
  void breakOff() { broken_ = true; }

  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override;
  kj::Promise<void> write(const void* buffer, size_t size) override;
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override;
  kj::Maybe<kj::Promise<uint64_t>> tryPumpFrom(kj::AsyncInputStream& input, uint64_t amount) override;
  kj::Promise<void> whenWriteDisconnected() override { return inner_->whenWriteDisconnected(); }
  void shutdownWrite() override { inner_->shutdownWrite(); }  // after flush()
  void abortRead() override { inner_->abortRead(); }
  void getsockopt(int level, int option, void* value, kj::uint* length) override {
    inner_->getsockopt(level, option, value, length);
  }
  void setsockopt(int level, int option, const void* value, kj::uint length) override {
    inner_->setsockopt(level, option, value, length);
  }
  kj::Maybe<int> getFd() const override { return inner_->getFd(); }

 private:
  void flushLater();
  kj::Promise<void> writePending();
  class FileSender;
  kj::Promise<void> writeLarge(kj::Array<kj::ArrayPtr<const kj::byte>> pieces);

  kj::Own<kj::AsyncIoStream> inner_;
  kj::Timer& timer_;
  kj::Duration stallTimeout_;
  kj::UnixEventPort* const events_;
  kj::Own<FileSender> fileSender_;   // once it was needed
  std::vector<kj::byte> pending_, sending_;
  bool flushPlanned_ = false, broken_ = false;
  kj::ForkedPromise<void> tail_;  // all that was given to `inner_` so far
};

// Behind an answer that ends a connection: what the other side still sends is read for a short time, so
// that it reads the answer and is not told of a broken connection instead.
Co<void> untilClosed(kj::AsyncIoStream& stream, kj::Timer& timer);

// A request body with a bound on its bytes and on the time without progress, and one on how slowly it
// may come: what is waited for it beyond ten times `stallTimeout` is a second for each `rateMin` bytes. What
// went wrong is kept, so that the answer can say it.
struct BodyLimits {
  uint64_t bytesMax = 0;
  kj::StringPtr setting;             // that sets bytesMax, for the refusal
  kj::Duration stallTimeout = 60 * kj::SECONDS;
  uint64_t rateMin = 0;              // bytes per second; 0: none
};

class BoundedBody final : public kj::AsyncInputStream {
 public:
  enum class Problem : uint8_t { kNone, kTooLarge, kStalled, kUnreadable };

  BoundedBody(kj::AsyncInputStream& inner, kj::Timer& timer, BodyLimits limits)
      : inner_(inner), timer_(timer), limits_(limits) {}
  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override;
  Problem problem() const;
  bool ended() const { return ended_; }  // the end was read
  kj::String tooLarge() const;           // a sentence

 private:
  Co<size_t> readBounded(kj::byte* buffer, size_t minBytes, size_t maxBytes);
  kj::Duration patience() const;         // how long the next bytes may take

  kj::AsyncInputStream& inner_;
  kj::Timer& timer_;
  const BodyLimits limits_;
  uint64_t bytesRead_ = 0;
  kj::Duration waited_ = 0 * kj::SECONDS;
  bool stalled_ = false, tooLarge_ = false, broken_ = false, ended_ = false;
};

}  // namespace packmoor::rpc
