#include "journal_segments.h"

#include "journal_scan.h"
#include "kernelio/check.h"

#include <cstdio>

namespace packmoor::replicator {

using kernelio::IoBuffer;
using kernelio::WriteMode;

namespace {

kj::String fileName(const char* prefix, uint64_t number) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "%06llu", static_cast<unsigned long long>(number));
  return kj::str(prefix, digits);
}

}  // namespace

SegmentPool::SegmentPool(kernelio::Env& env, SegmentPoolOptions options, uint64_t nextNumber,
                         kj::Function<void(kj::Exception)> failed)
    : env_(env), folder_(options.folder.cStr()), segmentBytes_(options.segmentBytes),
      spare_(options.spare), nextNumber_(nextNumber), failed_(kj::mv(failed)), tasks_(*this) {}

void SegmentPool::add(SegmentRef segment) {
  released_.push_back(std::move(segment));
  wake();
  balance();
}

void SegmentPool::start() {
  started_ = true;
  balance();
}

kj::Maybe<SegmentRef> SegmentPool::pick() {
  if (!released_.empty() && released_.front().use_count() == 1 &&
      released_.front()->bytes >= segmentBytes_) {
    SegmentRef segment = std::move(released_.front());
    released_.pop_front();
    return segment;
  }
  if (fresh_.empty()) return nullptr;
  SegmentRef segment = std::move(fresh_.front());
  fresh_.pop_front();
  return segment;
}

kj::Promise<SegmentRef> SegmentPool::take() {
  PACKMOOR_CHECK(waiting_ == nullptr, "two batches want a segment");
  KJ_IF_MAYBE (segment, pick()) {
    SegmentRef taken = *segment;
    balance();
    return taken;
  }
  auto paf = kj::newPromiseAndFulfiller<SegmentRef>();
  waiting_ = kj::mv(paf.fulfiller);
  balance();
  return kj::mv(paf.promise);
}

void SegmentPool::wake() {
  KJ_IF_MAYBE (fulfiller, waiting_) {
    KJ_IF_MAYBE (segment, pick()) {
      auto waiting = kj::mv(*fulfiller);
      waiting_ = nullptr;
      waiting->fulfill(kj::mv(*segment));
    }
  }
}

// Too many, or from a time when segments were configured to be smaller.
bool SegmentPool::frontIsExcess() const {
  if (released_.empty() || released_.front().use_count() > 1) return false;
  return freeCount() > 2 * spare_ + 2 || released_.front()->bytes < segmentBytes_;
}

void SegmentPool::balance() {
  if (!started_) return;
  if (!preparing_ && (freeCount() < spare_ || waiting_ != nullptr)) {
    preparing_ = true;
    tasks_.add(prepareSpares());
  }
  if (!removing_ && frontIsExcess()) {
    removing_ = true;
    tasks_.add(removeExcess());
  }
}

Co<void> SegmentPool::prepareSpares() {
  while (freeCount() < spare_ || waiting_ != nullptr) {
    bool full = false;
    try {
      SegmentRef segment = co_await create();
      fresh_.push_back(std::move(segment));
    } catch (kj::Exception& exception) {
      if (exception.getType() != kj::Exception::Type::OVERLOADED) throw;
      full = true;
    }
    wake();
    if (full) co_await env_.timer.afterDelay(1 * kj::SECONDS);
  }
  preparing_ = false;
}

Co<SegmentRef> SegmentPool::create() {
  const uint64_t number = nextNumber_++;
  auto temporary = kj::str(folder_.c_str(), "/", fileName(kPreparePrefix, number));
  auto segment = std::make_shared<Segment>();
  segment->name = fileName(kSegmentPrefix, number).cStr();
  segment->bytes = segmentBytes_;
  kj::Maybe<kj::Exception> failure;
  try {
    segment->file = co_await env_.disk.open(
        temporary, {.write = true, .create = true, .exclusive = true, .direct = true});
    co_await segment->file->allocate(segmentBytes_);
    const auto zeros = IoBuffer::allocate(std::min<uint64_t>(kPrewriteChunkBytes, segmentBytes_));
    for (uint64_t at = 0; at < segmentBytes_; at += zeros.size()) {
      co_await segment->file->write(
          at, zeros.slice(0, std::min<uint64_t>(zeros.size(), segmentBytes_ - at)),
          WriteMode::kBuffered);
    }
    co_await segment->file->sync();
  } catch (kj::Exception& exception) {
    failure = kj::mv(exception);
  }
  KJ_IF_MAYBE (exception, failure) {
    segment->file = nullptr;
    co_await env_.disk.remove(temporary);
    kj::throwFatalException(kj::mv(*exception));
  }
  co_await env_.disk.rename(temporary, kj::str(folder_.c_str(), "/", segment->name));
  co_await env_.disk.syncDirectory(folder_.c_str());
  co_return segment;
}

Co<void> SegmentPool::removeExcess() {
  while (frontIsExcess()) {
    SegmentRef segment = std::move(released_.front());
    released_.pop_front();
    segment->file = nullptr;
    // Each name is gone for good before the next one goes: an older file never outlives a newer.
    co_await env_.disk.remove(kj::str(folder_.c_str(), "/", segment->name));
    co_await env_.disk.syncDirectory(folder_.c_str());
  }
  removing_ = false;
}

void SegmentPool::taskFailed(kj::Exception&& exception) {
  KJ_IF_MAYBE (fulfiller, waiting_) {
    auto waiting = kj::mv(*fulfiller);
    waiting_ = nullptr;
    waiting->reject(kj::cp(exception));
  }
  failed_(kj::mv(exception));
}

}  // namespace packmoor::replicator
