#include "peer_stream.h"

#include <kj/debug.h>

#include "describe.h"

#include <algorithm>
#include <cstring>

namespace packmoor::rpc {
namespace {

using capnp::word;

constexpr uint32_t kSegmentsMax = 512;

// A message in memory of its own.
struct Words {
  kj::Array<word> words;
};
class OwnedMessage final : private Words, public capnp::FlatArrayMessageReader {
 public:
  OwnedMessage(kj::Array<word> words, const capnp::ReaderOptions& options)
      : Words{kj::mv(words)}, FlatArrayMessageReader(this->words, options) {}
};

capnp::MessageReaderAndFds makeMessage(kj::Array<word> words,
                                       const capnp::ReaderOptions& options) {
  return {kj::heap<OwnedMessage>(kj::mv(words), options), nullptr};
}

kj::Exception disconnected(kj::StringPtr what) {
  return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                       kj::str("The connection broke: ", what, "."));
}

// The table in front of a message: number of segments less one, sizes in words, padded.
kj::Array<uint32_t> frameHeader(kj::ArrayPtr<const kj::ArrayPtr<const word>> segments) {
  auto header = kj::heapArray<uint32_t>((segments.size() + 2) & ~size_t(1));
  header[0] = static_cast<uint32_t>(segments.size() - 1);
  header[header.size() - 1] = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    header[i + 1] = static_cast<uint32_t>(segments[i].size());
  }
  return header;
}

}  // namespace

PeerMessageStream::PeerMessageStream(kj::AsyncIoStream& stream, size_t windowBytes)
    : stream_(stream),
      windowBytes_(windowBytes),
      inbox_(kj::heapArray<word>(kPeerReadBytes / sizeof(word))) {}

PeerMessageStream::~PeerMessageStream() noexcept(false) {}

// --- reading

size_t PeerMessageStream::frameBytes(const capnp::ReaderOptions& options) const {
  if (buffered() < sizeof(word)) return 0;
  const auto* table =
      reinterpret_cast<const uint32_t*>(inbox_.begin()) + inboxBegin_ / sizeof(uint32_t);
  KJ_REQUIRE(table[0] < kSegmentsMax, "A message with too many segments arrived.", table[0]);
  const size_t segments = size_t(table[0]) + 1;
  const size_t tableBytes = ((segments + 2) & ~size_t(1)) * sizeof(uint32_t);
  if (buffered() < tableBytes) return 0;
  uint64_t words = 0;
  for (size_t i = 1; i <= segments; ++i) words += table[i];
  KJ_REQUIRE(words <= options.traversalLimitInWords, "A message that is too large arrived.",
             words * sizeof(word));
  return tableBytes + words * sizeof(word);
}

PeerMessageStream::Message PeerMessageStream::takeBuffered(size_t frame,
                                                           const capnp::ReaderOptions& options) {
  auto words = kj::heapArray<word>(frame / sizeof(word));
  memcpy(words.begin(), inbox_.asBytes().begin() + inboxBegin_, frame);
  inboxBegin_ += frame;
  return makeMessage(kj::mv(words), options);
}

kj::Promise<PeerMessageStream::Message> PeerMessageStream::tryReadMessage(
    kj::ArrayPtr<kj::AutoCloseFd>, capnp::ReaderOptions options, kj::ArrayPtr<word>) {
  KJ_IF_MAYBE(cause, broken_) { return kj::cp(*cause); }
  const size_t frame = frameBytes(options);
  if (frame > 0 && buffered() >= frame) return takeBuffered(frame, options);
  return reads_.wrap(kj::Promise<Message>(readSlowly(options)));
}

// Reads until at least `bytes` are buffered or the stream ends; returns what is buffered.
Co<size_t> PeerMessageStream::fill(size_t bytes) {
  auto all = inbox_.asBytes();
  if (inboxBegin_ > 0) {
    memmove(all.begin(), all.begin() + inboxBegin_, buffered());
    inboxEnd_ -= inboxBegin_;
    inboxBegin_ = 0;
  }
  const size_t missing = bytes - buffered();
  auto got =
      co_await stream_.tryRead(all.begin() + inboxEnd_, missing, all.size() - inboxEnd_);
  inboxEnd_ += got;
  co_return buffered();
}

Co<PeerMessageStream::Message> PeerMessageStream::readSlowly(capnp::ReaderOptions options) {
  kj::Maybe<kj::Exception> failure;
  try {
    size_t frame = 0;
    while ((frame = frameBytes(options)) == 0) {
      const size_t before = buffered();
      auto have = co_await fill(before < sizeof(word) ? sizeof(word) : before + sizeof(word));
      if (have == 0) co_return Message(nullptr);
      if (have < sizeof(word) || have == before) {
        kj::throwFatalException(disconnected("it ended inside a message"));
      }
    }
    if (frame <= inbox_.asBytes().size()) {
      if (buffered() < frame) {
        auto have = co_await fill(frame);
        if (have < frame) kj::throwFatalException(disconnected("it ended inside a message"));
      }
      co_return takeBuffered(frame, options);
    }
    auto words = kj::heapArray<word>(frame / sizeof(word));
    const size_t have = buffered();
    memcpy(words.begin(), inbox_.asBytes().begin() + inboxBegin_, have);
    inboxBegin_ = inboxEnd_ = 0;
    auto got = co_await stream_.tryRead(words.asBytes().begin() + have, frame - have,
                                        frame - have);
    if (got < frame - have) kj::throwFatalException(disconnected("it ended inside a message"));
    co_return Message(makeMessage(kj::mv(words), options));
  } catch (kj::Exception& e) {
    failure = kj::mv(e);
  }
  auto& cause = KJ_ASSERT_NONNULL(failure);
  if (cause.getType() == kj::Exception::Type::DISCONNECTED) kj::throwFatalException(kj::cp(cause));
  kj::throwFatalException(disconnected(describeCause(cause).c_str()));
}

// --- writing

kj::Promise<void> PeerMessageStream::writeMessage(kj::ArrayPtr<const int>, Segments segments) {
  KJ_IF_MAYBE(cause, broken_) { return kj::cp(*cause); }
  auto header = frameHeader(segments);
  size_t bytes = header.asBytes().size();
  for (auto& segment : segments) bytes += segment.asBytes().size();
  if (bytes > kPeerLargeBytes) return writeLarge(segments, kj::mv(header));
  buffer(segments, header);
  if (!flushing_) startFlush();
  if (outbox_.size() < kPeerWriteBytesMax) return kj::READY_NOW;
  return flushed_.addBranch();
}

kj::Promise<void> PeerMessageStream::writeMessages(kj::ArrayPtr<Segments> messages) {
  if (messages.size() == 0) return kj::READY_NOW;
  return writeMessage(nullptr, messages[0]).then([this, messages]() mutable {
    return writeMessages(messages.slice(1, messages.size()));
  });
}

void PeerMessageStream::buffer(Segments segments, kj::ArrayPtr<const uint32_t> header) {
  outbox_.addAll(header.asBytes());
  for (auto& segment : segments) outbox_.addAll(segment.asBytes());
}

void PeerMessageStream::startFlush() {
  flushing_ = true;
  // At the end of the turn, when all that is to be said in it has been said.
  flushed_ = kj::evalLast([this]() -> kj::Promise<void> { return flush(); }).fork();
}

Co<void> PeerMessageStream::flush() {
  try {
    while (outbox_.size() > 0) {
      std::swap(outbox_, sending_);
      co_await stream_.write(sending_.begin(), sending_.size());
      sending_.clear();
    }
    flushing_ = false;
  } catch (kj::Exception& e) {
    breakDown(e);
    throw;
  }
}

Co<void> PeerMessageStream::writeLarge(Segments segments, kj::Array<uint32_t> header) {
  if (flushing_) co_await flushed_.addBranch();
  auto pieces = kj::heapArray<kj::ArrayPtr<const kj::byte>>(segments.size() + 1);
  pieces[0] = header.asBytes();
  for (size_t i = 0; i < segments.size(); ++i) pieces[i + 1] = segments[i].asBytes();
  try {
    co_await stream_.write(pieces);
  } catch (kj::Exception& e) {
    breakDown(e);
    throw;
  }
}

void PeerMessageStream::breakDown(const kj::Exception& cause) {
  if (broken_ != nullptr) return;
  auto exception = disconnected(describeCause(cause).c_str());
  broken_ = kj::cp(exception);
  reads_.cancel(exception);
}

kj::Maybe<int> PeerMessageStream::getSendBufferSize() {
  return static_cast<int>(windowBytes_);
}

kj::Promise<void> PeerMessageStream::end() {
  return kj::READY_NOW;
}

}  // namespace packmoor::rpc
