#include "gitlayer/pack_builder.h"

#include "pack_index_view.h"
#include "pack_stream_writer.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

// The bodies of packs that share no object, then hot objects.
class PackCopier final : public PackStreamWriter {
 public:
  PackCopier(ObjectSource& source, std::vector<PackView> packs, std::vector<ObjectId> hot,
             uint32_t objectCount)
      : PackStreamWriter(objectCount),
        source_(source),
        packs_(std::move(packs)),
        hot_(std::move(hot)) {}

 protected:
  bool next() override {
    if (nextPack_ < packs_.size()) {
      copyPack();
      return true;
    }
    if (nextHot_ == hot_.size()) return false;
    copyHot(hot_[nextHot_++]);
    return true;
  }

 private:
  // Checked and copied in pieces, so that one slice does not read a whole pack.
  static constexpr uint64_t kPieceBytes = 1u << 20;

  void copyPack() {
    const PackView& pack = packs_[nextPack_];
    uint64_t end = pack.bytes.size() - kPackTrailerBytes;
    uint64_t piece = std::min(kPieceBytes, end - packAt_);
    pack.need(packAt_, piece);
    body(pack.bytes.slice(packAt_, packAt_ + piece));
    packAt_ += piece;
    if (packAt_ < end) return;
    statistics_.written += pack.objectCount;
    packAt_ = kPackHeaderBytes;
    ++nextPack_;
  }

  void copyHot(const ObjectId& id) {
    auto stored = source_.stored(id);
    auto& entry = KJ_REQUIRE_NONNULL(stored, "object is missing from the repository", id);
    PackEntryHeader entryHeader;
    bool whole = entry.form == StoredEntry::Form::kWhole;
    entryHeader.type = whole ? entryTypeOf(entry.type) : PackEntryType::kRefDelta;
    entryHeader.bytes = entry.bytes;
    entryHeader.base = entry.base;
    header(entryHeader);
    body(entry.deflated, std::move(entry.keepAlive));
    ++statistics_.written;
  }

  ObjectSource& source_;
  std::vector<PackView> packs_;
  std::vector<ObjectId> hot_;
  size_t nextPack_ = 0, nextHot_ = 0;
  uint64_t packAt_ = kPackHeaderBytes;
};

// A sorted list of names, walked from its beginning to its end.
struct Names {
  std::unique_ptr<PackIndexView> index;  // of a pack; null: the hot objects
  uint32_t at = 0, size = 0;
  const kj::byte* current = nullptr;
};

}  // namespace

struct CloneScan::Impl {
  // Heaps have their largest in front: the list with the first name.
  struct Later {
    const std::vector<Names>& lists;
    bool operator()(size_t a, size_t b) const {
      return memcmp(lists[a].current, lists[b].current, kOidBytes) > 0;
    }
  };
  explicit Impl(ObjectSource& source)
      : source(source), packs(source.packs()), hot(source.hotObjects()) {
    std::sort(hot.begin(), hot.end());
    hot.erase(std::unique(hot.begin(), hot.end()), hot.end());
    for (const PackView& pack : packs) {
      KJ_REQUIRE(pack.bytes.size() >= kPackHeaderBytes + kPackTrailerBytes, "pack is too short");
      Names names;
      names.index = std::make_unique<PackIndexView>(pack);
      names.size = names.index->size();
      total += names.size;
      lists.push_back(std::move(names));
    }
    lists.emplace_back();
    lists.back().size = static_cast<uint32_t>(hot.size());
    total += hot.size();
    for (size_t i = 0; i < lists.size(); ++i) {
      if (point(lists[i])) heap.push_back(i);
    }
    std::make_heap(heap.begin(), heap.end(), Later{lists});
  }

  bool point(Names& names) {
    static constexpr uint32_t kCheckedAtOnce = 8192;
    if (names.at == names.size) return false;
    if (names.index == nullptr) {
      names.current = hot[names.at].bytes.data();
    } else {
      if (names.at % kCheckedAtOnce == 0) {
        names.index->needNames(names.at, std::min(kCheckedAtOnce, names.size - names.at));
      }
      names.current = names.index->nameBytes(names.at);
    }
    return true;
  }

  // Goes through all lists in order of the names, until two neighbours are equal.
  bool step(uint32_t budget) {
    for (; budget > 0 && heap.size() > 1; --budget) {
      std::pop_heap(heap.begin(), heap.end(), Later{lists});
      Names& names = lists[heap.back()];
      const kj::byte* name = names.current;
      if (memcmp(name, lists[heap.front()].current, kOidBytes) == 0) {
        duplicates = true;
        return true;
      }
      ++names.at;
      if (point(names)) {
        std::push_heap(heap.begin(), heap.end(), Later{lists});
      } else {
        heap.pop_back();
      }
    }
    return heap.size() <= 1;
  }

  // Every object once: those of packs in the order in which they lie there, then the hot ones.
  PackPlan everything() {
    PackPlan plan;
    std::vector<std::pair<uint64_t, uint32_t>> byOffset;
    for (Names& names : lists) {
      if (names.index == nullptr) continue;
      names.index->needOffsets();
      byOffset.clear();
      for (uint32_t i = 0; i < names.size; ++i) byOffset.emplace_back(names.index->offset(i), i);
      std::sort(byOffset.begin(), byOffset.end());
      for (auto& [offset, number] : byOffset) plan.objects.add(names.index->name(number));
    }
    for (const ObjectId& id : hot) plan.objects.add(id);
    return plan;
  }

  ObjectSource& source;
  std::vector<PackView> packs;
  std::vector<ObjectId> hot;
  std::vector<Names> lists;
  std::vector<size_t> heap;
  uint64_t total = 0;
  bool duplicates = false;
};

CloneScan::CloneScan(ObjectSource& source) : impl_(std::make_unique<Impl>(source)) {}
CloneScan::~CloneScan() noexcept = default;

bool CloneScan::step(uint32_t budget) { return impl_->step(budget); }

size_t CloneScan::wholePacks() const { return impl_->duplicates ? 0 : impl_->packs.size(); }

std::unique_ptr<PackBuilder> CloneScan::builder(PackOptions options) {
  if (impl_->duplicates) {
    return PackBuilder::copyObjects(impl_->source, impl_->everything(), options);
  }
  KJ_REQUIRE(impl_->total < UINT32_MAX, "too many objects for one pack");
  return std::make_unique<PackCopier>(impl_->source, std::move(impl_->packs),
                                      std::move(impl_->hot),
                                      static_cast<uint32_t>(impl_->total));
}

}  // namespace packmoor::gitlayer
