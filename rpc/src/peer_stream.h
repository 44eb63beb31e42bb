// PeerMessageStream: Cap'n Proto messages over a TLS stream, many per read and per write.
//
// Why: KJ's own stream writes each message as two pieces and reads it in two steps; over TLS each
// piece becomes a record and a system call. Here the small messages of one turn of the loop are
// written as one piece, and one read may bring many.
//
// A write resolves when its message is in the buffer, or in the socket when the message is large
// or the buffer full. Every failure of the stream is reported as DISCONNECTED, on the next write
// and to the pending read; with OpenSSL 3 a peer that just closes looks like a protocol error.
// end() does not say goodbye: a connection ends by being closed.
//
// Owned by its connection, on the connection's loop; the stream outlives it.
#pragma once

#include <capnp/serialize-async.h>
#include <capnp/serialize.h>
#include <kj/async-io.h>
#include <kj/vector.h>

#include <kernelio/co.h>

namespace packmoor::rpc {

constexpr size_t kPeerReadBytes = 64u << 10;      // buffer of a connection's reads
constexpr size_t kPeerWriteBytesMax = 64u << 10;  // buffered before writers wait
constexpr size_t kPeerLargeBytes = 16u << 10;     // a message above is written without a copy

class PeerMessageStream final : public capnp::MessageStream {
 public:
  // `windowBytes`: what a stream of calls may have unanswered (RpcFlowController).
  PeerMessageStream(kj::AsyncIoStream& stream, size_t windowBytes);
  ~PeerMessageStream() noexcept(false);

  using capnp::MessageStream::tryReadMessage;
  using capnp::MessageStream::writeMessage;
  using capnp::MessageStream::writeMessages;
  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratchSpace) override;
  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override;
  kj::Maybe<int> getSendBufferSize() override;
  kj::Promise<void> end() override;

 private:
  using Segments = kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>;
  using Message = kj::Maybe<capnp::MessageReaderAndFds>;

  // Bytes of the frame at the front of the inbox, or 0 when its header is not complete.
  size_t frameBytes(const capnp::ReaderOptions& options) const;
  Message takeBuffered(size_t frame, const capnp::ReaderOptions& options);
  Co<Message> readSlowly(capnp::ReaderOptions options);
  Co<size_t> fill(size_t bytes);
  size_t buffered() const { return inboxEnd_ - inboxBegin_; }

  void buffer(Segments segments, kj::ArrayPtr<const uint32_t> header);
  void startFlush();
  Co<void> flush();
  Co<void> writeLarge(Segments segments, kj::Array<uint32_t> header);
  void breakDown(const kj::Exception& cause);

  kj::AsyncIoStream& stream_;
  size_t windowBytes_;

  kj::Array<capnp::word> inbox_;
  size_t inboxBegin_ = 0, inboxEnd_ = 0;  // bytes

  kj::Vector<kj::byte> outbox_, sending_;
  bool flushing_ = false;
  kj::ForkedPromise<void> flushed_ = nullptr;
  kj::Maybe<kj::Exception> broken_;
  kj::Canceler reads_;
};

}  // namespace packmoor::rpc
