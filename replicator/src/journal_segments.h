// SegmentPool: the journal's segment files that hold nothing, ready to be written.
//
// Why: overwriting a file whose blocks exist is many times faster than growing one, so segments
// are written with zeros once, in the background and ahead of need, and are reused afterwards.
//
// Released segments are reused, and removed when there are too many, strictly from the oldest:
// what a crash finds in them is then always the oldest part of one unbroken journal.
// A disk that is full makes take() wait, with an attempt each second; any other failure goes to
// the failure handler.
#pragma once

#include "kernelio/co.h"
#include "kernelio/env.h"

#include <kj/function.h>

#include <deque>
#include <memory>
#include <string>

namespace packmoor::replicator {

// Held by whoever reads or writes it: a segment with a reader is not reused.
struct Segment {
  std::string name;
  kj::Own<kernelio::File> file;
  uint64_t bytes = 0;
  uint64_t sequence = 0;  // 0: not in use
  // Its first batch is intact. One that lacks it, as the oldest, would look at the next start like a
  // released one that was being overwritten, and not be read.
  bool begins = true;
};
using SegmentRef = std::shared_ptr<Segment>;

struct SegmentPoolOptions {
  kj::StringPtr folder;
  uint64_t segmentBytes = 0;
  size_t spare = 0;
};

class SegmentPool final : private kj::TaskSet::ErrorHandler {
 public:
  static constexpr size_t kPrewriteChunkBytes = 256u << 10;

  // `nextNumber`: for the name of the next file, above all that exist.
  SegmentPool(kernelio::Env& env, SegmentPoolOptions options, uint64_t nextNumber,
              kj::Function<void(kj::Exception)> failed);
  ~SegmentPool() noexcept(false) {}

  // A segment found at open that the journal does not need / that it has released, oldest first.
  void add(SegmentRef segment);
  // Files that are there beyond need are removed; missing spares are made. Call once at open.
  void start();
  // A segment to write from offset 0.
  kj::Promise<SegmentRef> take();

  size_t freeCount() const { return released_.size() + fresh_.size(); }

 private:
  Co<void> prepareSpares();
  Co<SegmentRef> create();
  Co<void> removeExcess();
  void balance();
  bool frontIsExcess() const;
  kj::Maybe<SegmentRef> pick();
  void wake();
  void taskFailed(kj::Exception&& exception) override;

  kernelio::Env& env_;
  std::string folder_;
  uint64_t segmentBytes_;
  size_t spare_;
  uint64_t nextNumber_;
  kj::Function<void(kj::Exception)> failed_;

  std::deque<SegmentRef> released_;  // oldest first
  std::deque<SegmentRef> fresh_;
  bool started_ = false, preparing_ = false, removing_ = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<SegmentRef>>> waiting_;
  kj::TaskSet tasks_;
};

}  // namespace packmoor::replicator
