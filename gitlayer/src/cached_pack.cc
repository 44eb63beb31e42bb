#include "cached_pack.h"

#include <kernelio/file_input.h>

#include <kj/debug.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

namespace packmoor::gitlayer {

void SpillFile::append(kj::ArrayPtr<const kj::byte> bytes) {
  if (!isOpen()) {
    int fd = -1;
    KJ_SYSCALL(fd = open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), folder_.c_str());
    file_ = kj::AutoCloseFd(fd);
  }
  while (bytes.size() > 0) {
    const ssize_t n = pwrite(file_, bytes.begin(), bytes.size(), static_cast<off_t>(bytes_));
    if (n < 0 && errno == EINTR) continue;
    KJ_REQUIRE(n > 0, "the pack does not fit on the node's disk", strerror(errno));
    bytes_ += static_cast<uint64_t>(n);
    bytes = bytes.slice(static_cast<size_t>(n), bytes.size());
  }
}

void SpillFile::forget(uint64_t offset) {
  constexpr uint64_t kBlock = 1u << 20;
  offset = offset / kBlock * kBlock;
  if (offset <= forgotten_) return;
  // A file system that cannot do it keeps the room until the file is closed.
  (void)fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(forgotten_),
                  static_cast<off_t>(offset - forgotten_));
  forgotten_ = offset;
}

CachedPack::Reader::~Reader() noexcept(false) {
  pack_->readers_.erase(this);
  fulfillAll(pack_->sentWaiters_);
}

void CachedPack::Reader::advance(uint64_t bytes) {
  sent_ += bytes;
  fulfillAll(pack_->sentWaiters_);
}

kj::Promise<void> CachedPack::Reader::send(kj::AsyncOutputStream& out) {
  const uint64_t count = pack_->bytes_ - sent_;
  if (count == 0) return kj::READY_NOW;
  if (pack_->memory_.size() > 0) {
    auto rest = pack_->memory_.slice(sent_, pack_->memory_.size());
    return out.write(rest.begin(), rest.size()).then([this, count]() { advance(count); });
  }
  auto input = kj::heap<kernelio::FileInput>(pack_->file_->fd(), sent_, count);
  auto pumped = input->pumpTo(out, count);
  return pumped.then([this, count](uint64_t done) {
    KJ_REQUIRE(done == count, "a pack's file ended early");
    advance(count);
  }).attach(kj::mv(input));
}

kj::Promise<void> CachedPack::whenChanged() { return wait(changeWaiters_); }
kj::Promise<void> CachedPack::whenSent() { return wait(sentWaiters_); }

void CachedPack::published(uint64_t bytes) {
  bytes_ += bytes;
  changed();
}

void CachedPack::publishedWhole(kj::Array<const kj::byte> bytes) {
  memory_ = kj::mv(bytes);
  published(memory_.size());
}

void CachedPack::end(kj::Maybe<kj::Exception> failure) {
  ended_ = true;
  failure_ = kj::mv(failure);
  changed();
}

void CachedPack::changed() { fulfillAll(changeWaiters_); }

uint64_t CachedPack::sentToAll() const {
  uint64_t least = bytes_;
  for (const Reader* reader : readers_) least = std::min(least, reader->sent());
  return least;
}

void CachedPack::fulfillAll(std::vector<kj::Own<kj::PromiseFulfiller<void>>>& waiters) {
  auto all = std::move(waiters);
  waiters.clear();
  for (auto& waiter : all) waiter->fulfill();
}

kj::Promise<void> CachedPack::wait(std::vector<kj::Own<kj::PromiseFulfiller<void>>>& waiters) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiters.push_back(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

}  // namespace packmoor::gitlayer
