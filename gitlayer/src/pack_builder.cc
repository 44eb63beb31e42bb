#include "gitlayer/pack_builder.h"

#include "gitlayer/delta_encoder.h"
#include "pack_stream_writer.h"

#include <kernelio/check.h>
#include <kj/debug.h>

#include <optional>

namespace packmoor::gitlayer {
namespace {

// What an object may become a delta of whose stored base does not go into the pack.
struct Relative {
  uint32_t number = OidIndex::kAbsent;   // in the plan, or
  std::optional<ObjectId> client;        // the client's
  uint32_t family = OidIndex::kAbsent;   // the end of its chain of deltas, where it was reached
  uint32_t depth = 0;                    // deltas of this kind below `number`
};

class ObjectCopier final : public PackStreamWriter {
 public:
  ObjectCopier(ObjectSource& source, PackPlan plan, PackOptions options)
      : PackStreamWriter(static_cast<uint32_t>(plan.objects.size())),
        source_(source),
        plan_(std::move(plan)),
        options_(options),
        offsets_(plan_.objects.size(), kUnwritten) {}

 protected:
  bool next() override {
    while (waiting_.empty()) {
      if (next_ == offsets_.size()) return false;
      uint32_t number = next_++;
      if (offsets_[number] == kUnwritten) wait(number);
    }
    writeTop();
    return true;
  }

 private:
  // No entry lies before the header's end.
  static constexpr uint64_t kUnwritten = 0, kWaiting = 1;
  struct Waiting {
    uint32_t number;
    StoredEntry entry;
  };

  void wait(uint32_t number) {
    const ObjectId& id = plan_.objects[number];
    auto entry = source_.stored(id);
    auto& found = KJ_REQUIRE_NONNULL(entry, "object is missing from the repository", id);
    waiting_.push_back({number, kj::mv(found)});
    offsets_[number] = kWaiting;
  }

  void writeTop() {
    Waiting& top = waiting_.back();
    if (top.entry.form == StoredEntry::Form::kWhole) return writeWhole();
    uint32_t base = plan_.objects.find(top.entry.base);
    if (base != OidIndex::kAbsent) {
      if (offsets_[base] == kUnwritten) return wait(base);
      // A base that waits for this very object: two packs hold each other's deltas.
      if (offsets_[base] == kWaiting) return writeAnew(Relative());
      return writeDelta(offsets_[base]);
    }
    if (options_.thin && plan_.clientHas.contains(top.entry.base)) return writeDelta(0);
    Relative relative = relativeOf(top);
    if (relative.number != OidIndex::kAbsent && offsets_[relative.number] == kUnwritten) {
      return wait(relative.number);
    }
    writeAnew(relative);
  }

  // Looks along the chain of stored deltas: whatever is in it is like the object, and so is what else
  // hangs on its end.
  Relative relativeOf(const Waiting& object) {
    Relative relative;
    ObjectId id = object.entry.base;
    for (uint32_t steps = 0; steps < kChainMax; ++steps) {
      uint32_t number = plan_.objects.find(id);
      if (number != OidIndex::kAbsent && offsets_[number] != kWaiting) {
        relative.number = number;
        return relative;
      }
      if (options_.thin && plan_.clientHas.contains(id)) {
        relative.client = id;
        return relative;
      }
      auto stored = source_.stored(id);
      KJ_IF_MAYBE(entry, stored) {
        if (entry->form == StoredEntry::Form::kDelta) {
          id = entry->base;
          continue;
        }
        relative.family = families_.add(id);
        if (relative.family == newest_.size()) newest_.emplace_back();
        const Newest& newest = newest_[relative.family];
        if (newest.depth < kChainMax) relative.number = newest.number;
        relative.depth = newest.depth;
      }
      break;
    }
    return relative;
  }

  void writeWhole() {
    Waiting top = take();
    PackEntryHeader entry;
    entry.type = entryTypeOf(top.entry.type);
    entry.bytes = top.entry.bytes;
    header(entry);
    body(top.entry.deflated, std::move(top.entry.keepAlive));
  }

  void writeDelta(uint64_t baseOffset) {
    uint64_t at = offset();
    Waiting top = take();
    PackEntryHeader entry;
    entry.type = options_.ofsDelta && baseOffset != 0 ? PackEntryType::kOfsDelta
                                                      : PackEntryType::kRefDelta;
    entry.bytes = top.entry.bytes;
    entry.baseDistance = at - baseOffset;
    entry.base = top.entry.base;
    header(entry);
    body(top.entry.deflated, std::move(top.entry.keepAlive));
    ++statistics_.deltas;
  }

  void writeAnew(const Relative& relative) {
    uint64_t at = offset();
    Waiting top = take();
    const ObjectId& id = plan_.objects[top.number];
    auto object = source_.read(id);
    auto& found = KJ_REQUIRE_NONNULL(object, "object is missing from the repository", id);
    uint32_t depth = 0;
    if (writeNewDelta(relative, found, at)) {
      depth = relative.depth + 1;
    } else {
      deflateAnew(found);
    }
    if (relative.family != OidIndex::kAbsent) newest_[relative.family] = {top.number, depth};
  }

  // False: nothing is written, since the two are too different.
  bool writeNewDelta(const Relative& relative, const Object& object, uint64_t at) {
    const bool inPack = relative.number != OidIndex::kAbsent;
    if (!inPack && !relative.client) return false;
    PackEntryHeader entry;
    entry.type = inPack && options_.ofsDelta ? PackEntryType::kOfsDelta : PackEntryType::kRefDelta;
    entry.base = inPack ? plan_.objects[relative.number] : *relative.client;
    entry.baseDistance = inPack ? at - offsets_[relative.number] : 0;
    auto header = source_.header(entry.base);
    KJ_IF_MAYBE(of, header) {
      if (of->type != object.type || of->bytes > kDeltaObjectBytesMax) return false;
    }
    auto base = source_.read(entry.base);
    auto& found = KJ_REQUIRE_NONNULL(base, "object is missing from the repository", entry.base);
    auto made = makeDelta(found.data, object.data, object.data.size() / 2);
    KJ_IF_MAYBE(delta, made) {
      deflateDelta(entry, *delta);
      return true;
    }
    return false;
  }

  Waiting take() {
    Waiting top = kj::mv(waiting_.back());
    waiting_.pop_back();
    offsets_[top.number] = offset();
    ++statistics_.written;
    return top;
  }

  static constexpr uint32_t kChainMax = 50;   // git's own depth of deltas
  struct Newest {
    uint32_t number = OidIndex::kAbsent;
    uint32_t depth = 0;
  };

  ObjectSource& source_;
  PackPlan plan_;
  PackOptions options_;
  OidIndex families_;            // ends of chains of deltas
  std::vector<Newest> newest_;   // of each, written last
  std::vector<uint64_t> offsets_;
  uint32_t next_ = 0;
  std::vector<Waiting> waiting_;  // each the base of the one before
};

}  // namespace

std::unique_ptr<PackBuilder> PackBuilder::copyObjects(ObjectSource& source, PackPlan plan,
                                                      PackOptions options) {
  KJ_REQUIRE(plan.objects.size() < UINT32_MAX, "too many objects for one pack");
  return std::make_unique<ObjectCopier>(source, std::move(plan), options);
}

}  // namespace packmoor::gitlayer
