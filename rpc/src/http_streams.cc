#include "http_streams.h"

#include <kernelio/co.h>
#include <kernelio/file_input.h>

#include <kj/debug.h>

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/sendfile.h>

namespace packmoor::rpc {
namespace {

constexpr size_t kJoinedWriteMax = 16u << 10;    // larger writes go straight to the socket
constexpr int64_t kLingerMs = 2000;
constexpr size_t kPendingMax = 64u << 10;
constexpr size_t kFileStepBytes = 1u << 20;
constexpr size_t kWriteStepBytes = 256u << 10;   // the stall timer restarts at each step

Co<void> writeSteps(kj::AsyncIoStream& inner, kj::Timer& timer, kj::Duration stallTimeout,
                    kj::Array<kj::ArrayPtr<const kj::byte>> pieces) {
  for (auto piece : pieces) {
    while (piece.size() > 0) {
      auto step = piece.slice(0, kj::min(piece.size(), kWriteStepBytes));
      co_await timer.timeoutAfter(stallTimeout, inner.write(step.begin(), step.size()));
      piece = piece.slice(step.size(), piece.size());
    }
  }
}

}  // namespace

Co<void> untilClosed(kj::AsyncIoStream& stream, kj::Timer& timer) {
  auto buffer = kj::heapArray<kj::byte>(4096);
  auto deadline = timer.afterDelay(kLingerMs * kj::MILLISECONDS).fork();
  for (size_t got = 1; got > 0;) {
    auto late = deadline.addBranch().then([]() -> size_t { return 0; });
    got = co_await stream.tryRead(buffer.begin(), 1, buffer.size()).exclusiveJoin(kj::mv(late));
  }
}

// Its own descriptor of the connection, to be told when there is room again.
class JoiningStream::FileSender {
 public:
  FileSender(kj::UnixEventPort& events, kj::Timer& timer, kj::Duration stallTimeout, int socket)
      : timer_(timer), stallTimeout_(stallTimeout), socket_(duplicate(socket)),
        observer_(events, socket_, kj::UnixEventPort::FdObserver::OBSERVE_WRITE) {}

  Co<uint64_t> send(kernelio::FileInput& file, uint64_t amount) {
    uint64_t done = 0;
    while (done < amount) {
      off_t offset = static_cast<off_t>(file.offset());
      const size_t step = static_cast<size_t>(kj::min(amount - done, uint64_t{kFileStepBytes}));
      const ssize_t sent = sendfile(socket_, file.fd(), &offset, step);
      if (sent > 0) {
        file.skip(static_cast<uint64_t>(sent));
        done += static_cast<uint64_t>(sent);
        co_await kj::evalLast([]() {});   // others of the loop first
        continue;
      }
      KJ_REQUIRE(sent != 0, "a file is shorter than it was", done, amount);
      const int error = errno;
      if (error == EINTR) continue;
      if (error == EAGAIN) {
        co_await timer_.timeoutAfter(stallTimeout_, observer_.whenBecomesWritable());
        continue;
      }
      kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "the client closed its connection",
                                           strerror(error)));
    }
    co_return done;
  }

 private:
  static kj::AutoCloseFd duplicate(int socket) {
    int fd = -1;
    KJ_SYSCALL(fd = fcntl(socket, F_DUPFD_CLOEXEC, 0));
    return kj::AutoCloseFd(fd);
  }

  kj::Timer& timer_;
  const kj::Duration stallTimeout_;
  kj::AutoCloseFd socket_;
  kj::UnixEventPort::FdObserver observer_;
};

JoiningStream::JoiningStream(kj::Own<kj::AsyncIoStream> inner, kj::Timer& timer,
                             kj::Duration stallTimeout, kj::UnixEventPort* events)
    : inner_(kj::mv(inner)), timer_(timer), stallTimeout_(stallTimeout), events_(events),
      tail_(kj::Promise<void>(kj::READY_NOW).fork()) {}

JoiningStream::~JoiningStream() noexcept(false) {}

kj::Maybe<kj::Promise<uint64_t>> JoiningStream::tryPumpFrom(kj::AsyncInputStream& input,
                                                            uint64_t amount) {
  auto file = kj::dynamicDowncastIfAvailable<kernelio::FileInput>(input);
  auto socket = inner_->getFd();
  if (broken_ || events_ == nullptr || file == nullptr || socket == nullptr) return nullptr;
  auto& from = KJ_ASSERT_NONNULL(file);
  if (fileSender_.get() == nullptr) {
    fileSender_ = kj::heap<FileSender>(*events_, timer_, stallTimeout_, KJ_ASSERT_NONNULL(socket));
  }
  if (!pending_.empty()) flushLater();
  amount = kj::min(amount, from.left());
  // Behind what is pending. The caller waits for the promise before it writes again.
  return tail_.addBranch().then([this, &from, amount]() -> kj::Promise<uint64_t> {
    return fileSender_->send(from, amount);
  });
}

kj::Promise<size_t> JoiningStream::tryRead(void* buffer, size_t minBytes, size_t maxBytes) {
  return inner_->tryRead(buffer, minBytes, maxBytes);
}

kj::Promise<void> JoiningStream::write(const void* buffer, size_t size) {
  auto piece = kj::arrayPtr(static_cast<const kj::byte*>(buffer), size);
  return write(kj::arrayPtr(&piece, 1));
}

kj::Promise<void> JoiningStream::write(
    kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  if (broken_) return KJ_EXCEPTION(DISCONNECTED, "the connection is being broken off");
  size_t bytes = 0;
  for (auto piece : pieces) bytes += piece.size();
  if (bytes > kJoinedWriteMax) return writeLarge(kj::heapArray(pieces));
  for (auto piece : pieces) pending_.insert(pending_.end(), piece.begin(), piece.end());
  flushLater();
  if (pending_.size() > kPendingMax) return tail_.addBranch();
  return kj::READY_NOW;
}

kj::Promise<void> JoiningStream::flush() {
  if (!pending_.empty()) flushLater();
  return tail_.addBranch();
}

void JoiningStream::flushLater() {
  if (flushPlanned_) return;
  flushPlanned_ = true;
  tail_ = tail_.addBranch().then([this]() {
    return kj::evalLast([this]() { return writePending(); });
  }).fork();
}

kj::Promise<void> JoiningStream::writePending() {
  flushPlanned_ = false;
  std::swap(pending_, sending_);
  pending_.clear();
  return timer_.timeoutAfter(stallTimeout_, inner_->write(sending_.data(), sending_.size()));
}

kj::Promise<void> JoiningStream::writeLarge(kj::Array<kj::ArrayPtr<const kj::byte>> pieces) {
  // Behind what is pending. The caller waits for the promise before it writes again.
  return tail_.addBranch().then([this, pieces = kj::mv(pieces)]() mutable -> kj::Promise<void> {
    return writeSteps(*inner_, timer_, stallTimeout_, kj::mv(pieces));
  });
}

kj::Duration BoundedBody::patience() const {
  if (limits_.rateMin == 0) return limits_.stallTimeout;
  constexpr int kGraceStalls = 10;
  constexpr uint64_t kEarnedMsMax = 365ull * 24 * 3600 * 1000;
  const auto earned = static_cast<int64_t>(kj::min(bytesRead_ * 1000 / limits_.rateMin, kEarnedMsMax));
  return kj::min(limits_.stallTimeout, limits_.stallTimeout * kGraceStalls + earned * kj::MILLISECONDS -
                                           waited_);
}

Co<size_t> BoundedBody::readBounded(kj::byte* buffer, size_t minBytes, size_t maxBytes) {
  size_t done = 0;
  do {
    auto expired = timer_.afterDelay(patience()).then([this]() -> size_t {
      stalled_ = true;
      kj::throwFatalException(KJ_EXCEPTION(OVERLOADED, "The request's body made no progress."));
    });
    const auto begin = timer_.now();
    auto got = co_await inner_.tryRead(buffer + done, 1, maxBytes - done)
                   .exclusiveJoin(kj::mv(expired));
    waited_ += timer_.now() - begin;
    if (got == 0) break;
    done += got;
    bytesRead_ += got;
  } while (done < minBytes);
  co_return done;
}

kj::Promise<size_t> BoundedBody::tryRead(void* buffer, size_t minBytes, size_t maxBytes) {
  // One byte beyond the bound tells a body of the bound's size from a larger one.
  uint64_t left = limits_.bytesMax + 1 - bytesRead_;
  if (maxBytes > left) maxBytes = static_cast<size_t>(left);
  if (minBytes > maxBytes) minBytes = maxBytes;
  if (maxBytes == 0) return size_t(0);
  stalled_ = false;
  return readBounded(static_cast<kj::byte*>(buffer), minBytes, maxBytes)
      .promise()
      .then([this, minBytes](size_t got) {
        ended_ = got < minBytes || got == 0;
        if (bytesRead_ > limits_.bytesMax) {
          tooLarge_ = true;
          kj::throwFatalException(kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                                                tooLarge()));
        }
        return got;
      }, [this](kj::Exception&& e) -> size_t {
        broken_ = !stalled_;
        kj::throwFatalException(kj::mv(e));
      });
}

kj::String BoundedBody::tooLarge() const {
  return kj::str("The request's body is larger than the ", limits_.bytesMax,
                 " bytes that this server takes (", limits_.setting, ").");
}

BoundedBody::Problem BoundedBody::problem() const {
  return tooLarge_  ? Problem::kTooLarge
         : stalled_ ? Problem::kStalled
         : broken_  ? Problem::kUnreadable
                    : Problem::kNone;
}

}  // namespace packmoor::rpc
