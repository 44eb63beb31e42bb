#include "pack_merge.h"

#include "gitlayer/pack_builder.h"
#include "index_table.h"

#include <algorithm>
#include <cstring>

namespace packmoor::gitlayer {

namespace {

constexpr uint32_t kPlanNames = 50'000;       // looked at in one job
constexpr size_t kPieceBytes = 512u << 10;

class VectorSink final : public PackSink {
 public:
  explicit VectorSink(std::vector<kj::byte>& bytes) : bytes_(bytes) {}
  void write(kj::ArrayPtr<const kj::byte> bytes) override {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }

 private:
  std::vector<kj::byte>& bytes_;
};

}  // namespace

PackMerge::PackMerge(const RepositoryId& repository, std::vector<std::shared_ptr<PackFile>> packs)
    : packs_(std::move(packs)), objects_(nullptr, repository, false, packs_) {}

PackMerge::~PackMerge() noexcept = default;

bool PackMerge::plan() {
  if (scan_ == nullptr) scan_ = std::make_unique<CloneScan>(objects_);
  if (!scan_->step(kPlanNames)) return false;
  builder_ = scan_->builder({});
  scan_ = nullptr;
  return true;
}

PackMerge::Piece PackMerge::next() {
  Piece piece;
  piece.bytes.reserve(kPieceBytes + PackBuilder::kPieceOvershoot);
  VectorSink sink(piece.bytes);
  piece.more = builder_->produce(sink, kPieceBytes);
  return piece;
}

bool PackMerge::isSame(const IndexTable& merged) {
  std::vector<bool> met(merged.size());
  size_t count = 0;
  for (const auto& pack : packs_) {
    const PackIndex& index = pack->index();
    for (uint32_t i = 0; i < index.count(); ++i) {
      const uint32_t entry = merged.find(index.name(i));
      if (entry == kNoEntry) return false;
      if (met[entry]) continue;
      met[entry] = true;
      ++count;
    }
  }
  return count == merged.size();
}

Co<size_t> MergeStream::read(kj::ArrayPtr<kj::byte> into, size_t minBytes) {
  size_t got = 0;
  while (got < minBytes) {
    if (taken_ == piece_.bytes.size()) {
      if (!piece_.more) break;
      auto filling = fill();
      co_await kj::mv(filling);
    }
    const size_t some = std::min(piece_.bytes.size() - taken_, into.size() - got);
    std::memcpy(into.begin() + got, piece_.bytes.data() + taken_, some);
    taken_ += some;
    got += some;
  }
  co_return got;
}

Co<void> MergeStream::fill() {
  while (!planned_) {
    auto planning = env_.workers.run([merge = merge_]() { return merge->plan(); });
    planned_ = co_await kj::mv(planning);
  }
  auto making = env_.workers.run([merge = merge_]() { return merge->next(); });
  auto piece = co_await kj::mv(making);
  piece_ = kj::mv(piece);
  taken_ = 0;
  if (bytesPerSecond_ == 0) co_return;
  co_await env_.timer.afterDelay(piece_.bytes.size() * 1'000'000 / bytesPerSecond_ *
                                 kj::MICROSECONDS);
}

}  // namespace packmoor::gitlayer
