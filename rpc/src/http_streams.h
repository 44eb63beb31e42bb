// Streams that stand between a connection and the HTTP server, and between it and git.
//
// All live on the node's loop and belong to one connection or request.
#pragma once

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

// A request body with a bound on its bytes and on the time without progress. What went wrong is
// kept, so that the answer can say it.
class BoundedBody final : public kj::AsyncInputStream {
 public:
  enum class Problem : uint8_t { kNone, kTooLarge, kStalled, kUnreadable };

  BoundedBody(kj::AsyncInputStream& inner, uint64_t bytesMax, kj::Timer& timer,
              kj::Duration stallTimeout)
      : inner_(inner), bytesMax_(bytesMax), timer_(timer), stallTimeout_(stallTimeout) {}
  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override;
  Problem problem() const;
  bool ended() const { return ended_; }  // the end was read

 private:
  kj::AsyncInputStream& inner_;
  uint64_t bytesMax_, bytesRead_ = 0;
  kj::Timer& timer_;
  kj::Duration stallTimeout_;
  bool stalled_ = false, tooLarge_ = false, broken_ = false, ended_ = false;
};

}  // namespace packmoor::rpc
