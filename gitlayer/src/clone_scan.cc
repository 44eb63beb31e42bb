#include "gitlayer/pack_builder.h"

#include "pack_index_view.h"
#include "pack_stream_writer.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

bool holds(const std::vector<PackIndexView>& packs, const ObjectId& id) {
  return std::any_of(packs.begin(), packs.end(),
                     [&](const PackIndexView& pack) { return pack.contains(id); });
}

// The bodies of packs that share no object, then single objects.
class PackCopier final : public PackStreamWriter {
 public:
  PackCopier(ObjectSource& source, std::vector<PackIndexView> whole, OidIndex single,
             uint32_t objectCount)
      : PackStreamWriter(objectCount),
        source_(source),
        whole_(std::move(whole)),
        single_(std::move(single)) {}

 protected:
  bool next() override {
    if (nextPack_ < whole_.size()) {
      copyPack();
      return true;
    }
    if (nextSingle_ == single_.size()) return false;
    copySingle(single_[nextSingle_]);
    ++nextSingle_;
    return true;
  }

 private:
  // Checked and copied in pieces, so that one slice does not read a whole pack.
  static constexpr uint64_t kPieceBytes = 1u << 20;

  void copyPack() {
    const PackView& pack = whole_[nextPack_].pack();
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

  // What it is a delta of comes before, or it is written whole: two packs may hold each other's deltas.
  bool isWritten(const ObjectId& id) const {
    const uint32_t number = single_.find(id);
    return number != OidIndex::kAbsent ? number < nextSingle_ : holds(whole_, id);
  }

  void copySingle(const ObjectId& id) {
    auto stored = source_.stored(id);
    auto& entry = KJ_REQUIRE_NONNULL(stored, "object is missing from the repository", id);
    ++statistics_.written;
    const bool whole = entry.form == StoredEntry::Form::kWhole;
    if (!whole && !isWritten(entry.base)) {
      auto object = source_.read(id);
      return deflateAnew(KJ_REQUIRE_NONNULL(object, "object is missing from the repository", id));
    }
    PackEntryHeader entryHeader;
    entryHeader.type = whole ? entryTypeOf(entry.type) : PackEntryType::kRefDelta;
    entryHeader.bytes = entry.bytes;
    entryHeader.base = entry.base;
    header(entryHeader);
    body(entry.deflated, std::move(entry.keepAlive));
    if (!whole) ++statistics_.deltas;
  }

  ObjectSource& source_;
  std::vector<PackIndexView> whole_;
  OidIndex single_;
  size_t nextPack_ = 0;
  uint32_t nextSingle_ = 0;
  uint64_t packAt_ = kPackHeaderBytes;
};

// A sorted list of names, walked from its beginning to its end.
struct Names {
  std::unique_ptr<PackIndexView> index;  // of a pack; null: the hot objects
  uint32_t at = 0, size = 0;
  const kj::byte* current = nullptr;
  bool shares = false;                   // it has a name that a list before it has too
};

}  // namespace

// Lists are in order: packs from the largest to the smallest, then the hot objects. What is in several
// belongs to the first of them; so the largest packs go out whole.
struct CloneScan::Impl {
  // Heaps have their largest in front: the list with the first name.
  struct Later {
    const std::vector<Names>& lists;
    bool operator()(size_t a, size_t b) const {
      return memcmp(lists[a].current, lists[b].current, kOidBytes) > 0;
    }
  };
  explicit Impl(ObjectSource& source) : source(source), hot(source.hotObjects()) {
    std::sort(hot.begin(), hot.end());
    hot.erase(std::unique(hot.begin(), hot.end()), hot.end());
    std::vector<PackView> packs = source.packs();
    std::stable_sort(packs.begin(), packs.end(), [](const PackView& a, const PackView& b) {
      return a.bytes.size() > b.bytes.size();
    });
    for (PackView& pack : packs) {
      KJ_REQUIRE(pack.bytes.size() >= kPackHeaderBytes + kPackTrailerBytes, "pack is too short");
      Names names;
      names.index = std::make_unique<PackIndexView>(kj::mv(pack));
      names.size = names.index->size();
      lists.push_back(std::move(names));
    }
    lists.emplace_back();
    lists.back().size = static_cast<uint32_t>(hot.size());
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

  bool isLast(size_t list) const {
    return lastName != nullptr && memcmp(lists[list].current, lastName, kOidBytes) == 0;
  }

  // Goes through all lists in order of the names: equal ones come one after the other.
  bool step(uint32_t budget) {
    for (; budget > 0 && !heap.empty(); --budget) {
      if (heap.size() == 1 && !isLast(heap.front())) {
        heap.clear();   // nobody shares what is left
        break;
      }
      std::pop_heap(heap.begin(), heap.end(), Later{lists});
      const size_t at = heap.back();
      if (isLast(at)) {
        lists[std::max(at, owner)].shares = true;
        owner = std::min(at, owner);
      } else {
        owner = at;
      }
      lastName = lists[at].current;
      ++lists[at].at;
      if (point(lists[at])) {
        std::push_heap(heap.begin(), heap.end(), Later{lists});
      } else {
        heap.pop_back();
      }
    }
    return heap.empty();
  }

  size_t wholePacks() const {
    return std::count_if(lists.begin(), lists.end(), [](const Names& names) {
      return names.index != nullptr && !names.shares;
    });
  }

  // Every object once: packs that share nothing with larger ones whole, and what the others have beside
  // them in the order in which it lies there, so that bases come before their deltas.
  std::unique_ptr<PackBuilder> builder() {
    std::vector<PackIndexView> whole;
    uint64_t total = 0;
    for (const Names& names : lists) {
      if (names.index == nullptr || names.shares) continue;
      whole.push_back(*names.index);
      total += names.size;
    }
    // What was not walked to its end was not checked to its end.
    const bool shared = std::any_of(lists.begin(), lists.end(),
                                    [](const Names& names) { return names.shares; });
    for (const PackIndexView& index : whole) {
      if (shared) index.needNames(0, index.size());
    }
    OidIndex single;
    for (const Names& names : lists) {
      if (names.index != nullptr && names.shares) addSingle(*names.index, whole, single);
    }
    for (const ObjectId& id : hot) {
      if (!lists.back().shares || !holds(whole, id)) single.add(id);
    }
    total += single.size();
    KJ_REQUIRE(total < UINT32_MAX, "too many objects for one pack");
    return std::make_unique<PackCopier>(source, std::move(whole), std::move(single),
                                        static_cast<uint32_t>(total));
  }

  static void addSingle(const PackIndexView& index, const std::vector<PackIndexView>& whole,
                        OidIndex& single) {
    index.needOffsets();
    std::vector<std::pair<uint64_t, uint32_t>> byOffset;
    for (uint32_t i = 0; i < index.size(); ++i) byOffset.emplace_back(index.offset(i), i);
    std::sort(byOffset.begin(), byOffset.end());
    for (const auto& [offset, number] : byOffset) {
      const ObjectId id = index.name(number);
      if (!holds(whole, id)) single.add(id);
    }
  }

  ObjectSource& source;
  std::vector<ObjectId> hot;
  std::vector<Names> lists;
  std::vector<size_t> heap;
  const kj::byte* lastName = nullptr;   // the one looked at last, and the first list that has it
  size_t owner = 0;
};

CloneScan::CloneScan(ObjectSource& source) : impl_(std::make_unique<Impl>(source)) {}
CloneScan::~CloneScan() noexcept = default;

bool CloneScan::step(uint32_t budget) { return impl_->step(budget); }

size_t CloneScan::wholePacks() const { return impl_->wholePacks(); }

// Distances within the bodies are right for every client that may be given them.
std::unique_ptr<PackBuilder> CloneScan::builder(PackOptions) { return impl_->builder(); }

}  // namespace packmoor::gitlayer
