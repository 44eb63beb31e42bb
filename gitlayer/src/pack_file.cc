#include "pack_file.h"

#include "gitlayer/zlib_codec.h"
#include "inflate_prefix.h"
#include "sha1_stream.h"

#include <kj/debug.h>

#include <algorithm>
#include <numeric>

namespace packmoor::gitlayer {

namespace {

// How much more a zlib stream may take than what it inflates to, at the first try.
constexpr uint64_t kInflateSlack = 256;
// deflate cannot shrink its input by more than this.
constexpr uint64_t kDeflateRatioMax = 1040;

Inflater& threadInflater() {
  thread_local Inflater inflater;
  return inflater;
}

}  // namespace

PackFile::PackFile(std::function<Parts()> open, uint32_t objectCount,
                   std::shared_ptr<DeltaBaseCache> bases)
    : open_(std::move(open)),
      objectCount_(objectCount),
      bases_(std::move(bases)),
      number_(bases_->nextPackNumber()) {}

PackFile::Opened& PackFile::opened() {
  if (Opened* now = openedNow_.load(std::memory_order_acquire)) return *now;
  std::lock_guard<std::mutex> lock(mutex_);
  if (opened_ == nullptr) {
    Parts parts = open_();
    auto files = std::make_unique<Opened>(Opened{parts.pack, PackIndex(parts.index)});
    const char* what = files->pack->what().c_str();
    const uint64_t size = files->pack->size();
    KJ_REQUIRE(size >= kPackHeaderBytes + kPackTrailerBytes, "A pack is too short.", what);
    uint32_t count = 0;
    KJ_REQUIRE(decodePackHeader(files->pack->need(0, kPackHeaderBytes), count) == Decoded::kDone,
               "A pack does not begin as one.", what);
    KJ_REQUIRE(count == files->index.count() && count == objectCount_,
               "A pack, its index and the state differ in their number of objects.", what, count,
               files->index.count(), objectCount_);
    auto trailer = files->pack->need(size - kPackTrailerBytes, kPackTrailerBytes);
    KJ_REQUIRE(files->index.packChecksum() == ObjectId::fromBytes(trailer.begin()),
               "A pack index is that of another pack.", what);
    opened_ = std::move(files);
    openedNow_.store(opened_.get(), std::memory_order_release);
  }
  return *opened_;
}

void PackFile::damaged(Opened& files, uint64_t offset, const char* how) {
  kj::throwFatalException(kj::Exception(
      kj::Exception::Type::FAILED, __FILE__, __LINE__,
      kj::str("The ", files.pack->what().c_str(), " is damaged at offset ", offset, ": ", how)));
}

bool PackFile::exists(const ObjectId& id) { return opened().index.find(id).has_value(); }

PackFile::Entry PackFile::entryAt(Opened& files, uint64_t offset) {
  const uint64_t end = files.pack->size() - kPackTrailerBytes;
  if (offset < kPackHeaderBytes || offset >= end) damaged(files, offset, "no entry can be there.");
  Entry entry;
  entry.offset = offset;
  auto head = files.pack->need(offset, std::min<uint64_t>(kEntryHeaderBytesMax, end - offset));
  if (decodeEntryHeader(head, entry.header) != Decoded::kDone) {
    damaged(files, offset, "the entry's header cannot be read.");
  }
  entry.dataOffset = offset + entry.header.headerBytes;
  return entry;
}

uint64_t PackFile::baseOffset(Opened& files, const Entry& entry) {
  if (entry.header.type == PackEntryType::kOfsDelta) {
    if (entry.header.baseDistance > entry.offset) {
      damaged(files, entry.offset, "a delta's base lies before the pack.");
    }
    return entry.offset - entry.header.baseDistance;
  }
  auto place = files.index.find(entry.header.base);
  if (!place.has_value()) damaged(files, entry.offset, "a delta's base is not in the pack.");
  return files.index.offset(*place);
}

kj::Array<kj::byte> PackFile::inflate(Opened& files, const Entry& entry) {
  const uint64_t left = files.pack->size() - kPackTrailerBytes - entry.dataOffset;
  if (entry.header.bytes / kDeflateRatioMax > left) {
    damaged(files, entry.offset, "the entry claims a size that cannot be.");
  }
  auto data = kj::heapArray<kj::byte>(entry.header.bytes);
  // Where the stream ends is not known beforehand. It is rarely longer than what is in it, and
  // asking for all the rest would check the whole pack.
  uint64_t window = std::min(left, entry.header.bytes + entry.header.bytes / 8 + kInflateSlack);
  for (;;) {
    size_t consumed = 0;
    if (threadInflater().inflate(files.pack->need(entry.dataOffset, window), data, consumed)) {
      return data;
    }
    if (window == left) damaged(files, entry.offset, "the entry cannot be inflated.");
    window = left - window < window ? left : window * 2;
  }
}

std::shared_ptr<const Object> PackFile::readAt(Opened& files, uint64_t offset) {
  std::vector<Entry> deltas;
  std::shared_ptr<const Object> object;
  for (;;) {
    object = bases_->find(number_, offset);
    if (object != nullptr) break;
    Entry entry = entryAt(files, offset);
    if (!isDelta(entry.header.type)) {
      auto whole = std::make_shared<Object>();
      whole->type = objectTypeOf(entry.header.type);
      whole->data = inflate(files, entry);
      object = std::move(whole);
      if (!deltas.empty()) bases_->add(number_, offset, object);
      break;
    }
    if (deltas.size() == kDeltaChainMax) damaged(files, offset, "the chain of deltas is endless.");
    deltas.push_back(entry);
    offset = baseOffset(files, entry);
  }
  while (!deltas.empty()) {
    const Entry entry = deltas.back();
    deltas.pop_back();
    auto delta = inflate(files, entry);
    DeltaHeader header;
    auto result = std::make_shared<Object>();
    result->type = object->type;
    if (decodeDeltaHeader(delta, header) != Decoded::kDone) {
      damaged(files, entry.offset, "a delta cannot be read.");
    }
    result->data = kj::heapArray<kj::byte>(header.resultBytes);
    if (!applyDelta(object->data, delta, result->data)) {
      damaged(files, entry.offset, "a delta does not fit its base.");
    }
    object = std::move(result);
    if (!deltas.empty()) bases_->add(number_, entry.offset, object);
  }
  return object;
}

kj::Maybe<ObjectHeader> PackFile::header(const ObjectId& id) {
  auto& files = opened();
  auto place = files.index.find(id);
  if (!place.has_value()) return nullptr;
  Entry entry = entryAt(files, files.index.offset(*place));
  ObjectHeader result;
  result.bytes = entry.header.bytes;
  if (isDelta(entry.header.type)) {
    // The size is in the delta's first bytes, the type that of the chain's end.
    const uint64_t left = files.pack->size() - kPackTrailerBytes - entry.dataOffset;
    auto start = files.pack->need(entry.dataOffset, std::min(left, kInflateSlack));
    kj::byte head[kDeltaHeaderBytesMax];
    const size_t got = inflatePrefix(start, kj::arrayPtr(head, sizeof head));
    DeltaHeader delta;
    if (decodeDeltaHeader(kj::arrayPtr(head, got), delta) != Decoded::kDone) {
      damaged(files, entry.offset, "a delta cannot be read.");
    }
    result.bytes = delta.resultBytes;
  }
  for (size_t steps = 0; isDelta(entry.header.type); ++steps) {
    if (steps == kDeltaChainMax) damaged(files, entry.offset, "the chain of deltas is endless.");
    entry = entryAt(files, baseOffset(files, entry));
  }
  result.type = objectTypeOf(entry.header.type);
  return result;
}

kj::Maybe<Object> PackFile::read(const ObjectId& id) {
  auto& files = opened();
  auto place = files.index.find(id);
  if (!place.has_value()) return nullptr;
  auto object = readAt(files, files.index.offset(*place));
  Object result;
  result.type = object->type;
  if (object.use_count() == 1) {
    // Nobody else has it; it was made as a mutable object above.
    result.data = kj::mv(std::const_pointer_cast<Object>(object)->data);
  } else {
    result.data = kj::heapArray<kj::byte>(object->data.asPtr());
  }
  return kj::mv(result);
}

const std::vector<uint32_t>& PackFile::byOffset(Opened& files) {
  if (hasByOffset_.load(std::memory_order_acquire)) return byOffset_;
  std::lock_guard<std::mutex> lock(mutex_);
  if (!hasByOffset_.load(std::memory_order_relaxed)) {
    const uint32_t count = files.index.count();
    std::vector<uint64_t> offsets(count);
    for (uint32_t i = 0; i < count; ++i) offsets[i] = files.index.offset(i);
    std::vector<uint32_t> places(count);
    std::iota(places.begin(), places.end(), 0);
    std::sort(places.begin(), places.end(),
              [&](uint32_t a, uint32_t b) { return offsets[a] < offsets[b]; });
    byOffset_ = std::move(places);
    hasByOffset_.store(true, std::memory_order_release);
  }
  return byOffset_;
}

kj::Maybe<StoredEntry> PackFile::stored(const ObjectId& id) {
  auto& files = opened();
  auto place = files.index.find(id);
  if (!place.has_value()) return nullptr;
  const Entry entry = entryAt(files, files.index.offset(*place));
  const auto& order = byOffset(files);
  auto placeOf = [&](uint64_t offset) {
    return std::lower_bound(order.begin(), order.end(), offset, [&](uint32_t at, uint64_t wanted) {
      return files.index.offset(at) < wanted;
    });
  };
  StoredEntry result;
  result.bytes = entry.header.bytes;
  result.type = objectTypeOf(entry.header.type);
  if (isDelta(entry.header.type)) {
    result.form = StoredEntry::Form::kDelta;
    result.base = entry.header.base;
    if (entry.header.type == PackEntryType::kOfsDelta) {
      const uint64_t base = baseOffset(files, entry);
      auto found = placeOf(base);
      if (found == order.end() || files.index.offset(*found) != base) {
        damaged(files, entry.offset, "a delta's base is no entry.");
      }
      result.base = files.index.name(*found);
    }
  }
  auto next = placeOf(entry.offset + 1);
  const uint64_t end = next == order.end() ? files.pack->size() - kPackTrailerBytes
                                           : files.index.offset(*next);
  if (end <= entry.dataOffset) damaged(files, entry.offset, "the entry has no room.");
  result.deflated = files.pack->need(entry.dataOffset, end - entry.dataOffset);
  return kj::mv(result);
}

PackView PackFile::view(const std::shared_ptr<PackFile>& self) {
  auto& files = self->opened();
  PackView view;
  view.bytes = files.pack->all();
  view.index = files.index.bytes()->all();
  view.objectCount = self->objectCount_;
  view.guard = self;
  return view;
}

void PackFile::needBytes(uint64_t offset, uint64_t count) { opened().pack->need(offset, count); }

void PackFile::needIndex(uint64_t offset, uint64_t count) {
  opened().index.bytes()->need(offset, count);
}

void PackFile::verify() {
  auto& files = opened();
  files.pack->checkAll();
  files.index.bytes()->checkAll();
  Sha1Stream sha1;
  const uint64_t end = files.pack->size() - kPackTrailerBytes;
  sha1.update(files.pack->need(0, end));
  if (sha1.finish() != ObjectId::fromBytes(files.pack->need(end, kPackTrailerBytes).begin())) {
    damaged(files, end, "its own checksum is wrong.");
  }
}

}  // namespace packmoor::gitlayer
