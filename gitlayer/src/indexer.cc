#include "gitlayer/indexer.h"

#include "delta_plan.h"

#include <kernelio/check.h>

#include <libdeflate.h>

namespace packmoor::gitlayer {

// Takes what the parser finds.
class Indexer::Sink final : public EntrySink {
 public:
  explicit Sink(DeltaPlan& plan) : plan_(plan), parser(*this, plan.limits), filter_(plan.links) {}

  void begin(uint32_t objectCount) override {
    // Not more than a pack of some size could hold: the count is only a claim.
    plan_.table.reserve(objectCount < kReserveMax ? objectCount : kReserveMax);
  }

  bool entry(const ParsedEntry& parsed, kj::ArrayPtr<const kj::byte> data) override {
    uint32_t number = plan_.table.size();
    IndexEntry entry;
    entry.offset = parsed.offset;
    entry.crc = parsed.crc;
    if (parsed.header.type == PackEntryType::kOfsDelta) {
      if (parsed.header.baseDistance < parsed.offset) {
        entry.base = plan_.table.findOffset(parsed.offset - parsed.header.baseDistance);
      }
      if (entry.base == kNoEntry) return plan_.refuse("delta base offset is out of bound");
      plan_.byEntry.push_back({entry.base, number});
    } else if (parsed.header.type == PackEntryType::kRefDelta) {
      plan_.byName.push_back({parsed.header.base, number});
    }
    plan_.table.add(entry);
    if (isDelta(parsed.header.type)) {
      ++plan_.deltas;
      return true;
    }
    return plan_.complete(number, objectTypeOf(parsed.header.type), data, scratch_, filter_);
  }

  bool namedBlob(const ParsedEntry& parsed, const ObjectId& id) override {
    IndexEntry entry;
    entry.offset = parsed.offset;
    entry.crc = parsed.crc;
    entry.id = id;
    entry.type = ObjectType::kBlob;
    plan_.namedBlobs.push_back(plan_.table.size());
    plan_.table.add(entry);
    return true;
  }

 private:
  static constexpr uint32_t kReserveMax = 16384;

  DeltaPlan& plan_;

 public:
  PackParser parser;

 private:
  LinkFilter filter_;
  std::vector<ObjectLink> scratch_;
};

Indexer::Indexer(const PackLimits& limits)
    : plan_(std::make_unique<DeltaPlan>(limits)), sink_(std::make_unique<Sink>(*plan_)) {}
Indexer::~Indexer() noexcept {}

void Indexer::compareWith(ObjectSource& stored) { plan_->stored = &stored; }

bool Indexer::feed(kj::ArrayPtr<const kj::byte> bytes) {
  if (refused()) return false;
  if (sink_->parser.feed(bytes)) return true;
  return plan_->refuse(sink_->parser.problem());
}

bool Indexer::end() {
  if (refused()) return false;
  if (!sink_->parser.end()) return plan_->refuse(sink_->parser.problem());
  plan_->entriesEnd = packBytes() - kPackTrailerBytes;
  plan_->received = plan_->table.size();
  return true;
}

uint64_t Indexer::packBytes() const { return sink_->parser.bytesParsed(); }
const ObjectId& Indexer::trailer() const { return sink_->parser.trailer(); }

void Indexer::beginDeltas(const PackBytes& bytes) {
  plan_->bytes = &bytes;
  plan_->prepare();
}

std::unique_ptr<DeltaLane> Indexer::makeLane() { return std::make_unique<DeltaLane>(*plan_); }

bool Indexer::resolve(DeltaLane& lane, size_t bytes) { return lane.run(bytes); }

bool Indexer::thinBasesLeft() const {
  return !refused() && plan_->resolved < plan_->deltas;
}

Indexer::Appended Indexer::resolveThin(ObjectSource& source, size_t bytesMax) {
  Appended result;
  std::vector<kj::byte> bytes;
  DeltaLane lane(*plan_);
  Deflater deflater;
  size_t at = 0;
  for (; at < plan_->byName.size() && bytes.size() < bytesMax && !refused(); ++at) {
    if (plan_->claimed[at]) continue;
    ObjectId base = plan_->byName[at].base;
    KJ_IF_MAYBE(object, source.read(base)) {
      IndexEntry entry;
      entry.id = base;
      entry.type = object->type;
      entry.offset = plan_->entriesEnd + bytes.size();
      PackEntryHeader header;
      header.type = entryTypeOf(object->type);
      header.bytes = object->data.size();
      kj::byte encoded[kEntryHeaderBytesMax];
      size_t headerBytes = encodeEntryHeader(encoded, header);
      auto stream = deflater.deflate(object->data);
      entry.crc = libdeflate_crc32(libdeflate_crc32(0, encoded, headerBytes), stream.begin(),
                                   stream.size());
      bytes.insert(bytes.end(), encoded, encoded + headerBytes);
      bytes.insert(bytes.end(), stream.begin(), stream.end());
      uint32_t number = plan_->table.size();
      plan_->table.add(entry);
      if (!lane.runOn(number, LargeBuffer::adopt(kj::mv(object->data)))) break;
    }
  }
  plan_->entriesEnd += bytes.size();
  result.stuck = at == plan_->byName.size() && thinBasesLeft();
  result.bytes = kj::heapArray<kj::byte>(bytes.data(), bytes.size());
  return result;
}

uint32_t Indexer::appendedCount() const { return plan_->table.size() - plan_->received; }

bool Indexer::finish() {
  if (refused()) return false;
  if (uint32_t left = plan_->deltas - plan_->resolved) {
    return plan_->refuse(
        kj::str("pack has ", left, left == 1 ? " unresolved delta" : " unresolved deltas").cStr());
  }
  // A base that was appended may turn out to have come as a delta too; git reads such packs.
  uint32_t twice = plan_->table.sortNames(plan_->received);
  if (twice != kNoEntry) {
    return plan_->refuse(
        kj::str("The same object ", plan_->table[twice].id, " appears twice in the pack").cStr());
  }
  return plan_->checkNamedBlobs();
}

uint32_t Indexer::objectCount() const { return plan_->table.size(); }
const IndexTable& Indexer::table() const { return plan_->table; }
const LinkSet& Indexer::links() const { return plan_->links; }

kj::Array<kj::byte> Indexer::read(uint32_t number) const {
  Inflater inflater;
  std::vector<LargeBuffer> deltas;
  for (;;) {
    LargeBuffer stored = plan_->inflate(number, inflater);
    uint32_t base = plan_->baseOf(number);
    if (base == kNoEntry) {
      for (; !deltas.empty(); deltas.pop_back()) {
        LargeBuffer result;
        PACKMOOR_CHECK(plan_->apply(stored.bytes(), deltas.back().bytes(), result),
                       "a delta that was applied before");
        stored = std::move(result);
      }
      return stored.release();
    }
    deltas.push_back(std::move(stored));
    number = base;
  }
}

bool Indexer::refused() const { return plan_->refused; }

std::string Indexer::problem() const {
  std::lock_guard<std::mutex> lock(plan_->mutex);
  return plan_->problem;
}

}  // namespace packmoor::gitlayer
