#include "gitlayer/pack_builder.h"

#include "pack_stream_writer.h"

#include <kernelio/check.h>
#include <kj/debug.h>

namespace packmoor::gitlayer {
namespace {

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
      if (offsets_[base] == kWaiting) return writeAnew();
      return writeDelta(offsets_[base]);
    }
    if (options_.thin && plan_.clientHas.contains(top.entry.base)) return writeDelta(0);
    writeAnew();
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

  void writeAnew() {
    Waiting top = take();
    const ObjectId& id = plan_.objects[top.number];
    auto object = source_.read(id);
    deflateAnew(KJ_REQUIRE_NONNULL(object, "object is missing from the repository", id));
  }

  Waiting take() {
    Waiting top = kj::mv(waiting_.back());
    waiting_.pop_back();
    offsets_[top.number] = offset();
    ++statistics_.written;
    return top;
  }

  ObjectSource& source_;
  PackPlan plan_;
  PackOptions options_;
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
