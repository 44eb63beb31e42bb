#include "gitlayer/small_pack.h"

#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"
#include "object_links.h"
#include "sha1_stream.h"

#include <kj/exception.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace packmoor::gitlayer {

namespace {

// No zlib stream is longer inflated than this many times its own length (and a little).
constexpr uint64_t kInflationMax = 1032;

class SmallUnpacker {
 public:
  SmallUnpacker(kj::ArrayPtr<const kj::byte> pack, ObjectSource& source, size_t inflatedBytesMax,
                bool strict, UnpackedPack& result)
      : pack_(pack), source_(source), left_(inflatedBytesMax), strict_(strict), result_(result) {}

  void run() {
    uint32_t count = 0;
    if (!checkFrame(count)) return;
    if (!parse(count)) return;
    if (deltas_ > 0 && !resolveDeltas()) return;
    finish();
  }

 private:
  struct Entry {
    uint32_t offset = 0;
    PackEntryHeader header;
    kj::ArrayPtr<const kj::byte> stream;
    kj::ArrayPtr<const kj::byte> inflated;  // object or delta
    ObjectType type = ObjectType::kNone;    // set with `id` once the object is known
    ObjectId id;
    kj::ArrayPtr<const kj::byte> data;
  };

  bool refuse(std::string detail) {
    result_.refusal = indexPackRefusal(std::move(detail));
    return false;
  }
  bool giveUp() {
    result_.tooLarge = true;
    return false;
  }

  // Header and trailer.
  bool checkFrame(uint32_t& count) {
    switch (decodePackHeader(pack_, count)) {
      case Decoded::kDone: break;
      case Decoded::kShort: return refuse("early EOF");
      case Decoded::kBad:
        return refuse(pack_.size() >= 4 && memcmp(pack_.begin(), "PACK", 4) == 0
                          ? "pack version unsupported"
                          : "pack signature mismatch");
    }
    if (pack_.size() < kPackHeaderBytes + kPackTrailerBytes) return refuse("early EOF");
    end_ = pack_.size() - kPackTrailerBytes;
    return true;
  }

  bool checkTrailer() {
    Sha1Stream sha1;
    sha1.update(pack_.slice(0, end_));
    return sha1.finish() == ObjectId::fromBytes(pack_.begin() + end_);
  }

  bool parse(uint32_t count) {
    // The shortest entry has a byte of header and 8 of zlib stream.
    entries_.reserve(std::min<size_t>(count, pack_.size() / 9));
    size_t at = kPackHeaderBytes;
    for (uint32_t i = 0; i < count; ++i) {
      Entry entry;
      entry.offset = static_cast<uint32_t>(at);
      auto rest = pack_.slice(at, end_);
      switch (decodeEntryHeader(rest, entry.header)) {
        case Decoded::kDone: break;
        case Decoded::kShort: return refuse("early EOF");
        case Decoded::kBad:
          return refuse(kj::str("bad object at offset ", at, ": unknown type").cStr());
      }
      rest = rest.slice(entry.header.headerBytes, rest.size());
      if (entry.header.bytes > (rest.size() + 1) * kInflationMax) return refuseStream(at);
      if (entry.header.bytes > left_) return giveUp();
      auto inflated = allocate(entry.header.bytes);
      size_t consumed = 0;
      if (!inflater_.inflate(rest, inflated, consumed)) return refuseStream(at);
      entry.stream = rest.slice(0, consumed);
      entry.inflated = inflated;
      at += entry.header.headerBytes + consumed;
      if (isDelta(entry.header.type)) {
        ++deltas_;
      } else {
        if (!name(entry, objectTypeOf(entry.header.type), inflated)) return false;
      }
      entries_.push_back(entry);
    }
    if (at != end_) return refuse("pack has junk at the end");
    if (!checkTrailer()) return refuse("pack is corrupted (SHA1 mismatch)");
    return true;
  }

  // A stream that cannot be inflated: cut short, or damaged. The trailer tells which.
  bool refuseStream(size_t offset) {
    if (!checkTrailer()) return refuse("early EOF");
    return refuse(kj::str("pack has bad object at offset ", offset, ": inflate returned -3").cStr());
  }

  kj::ArrayPtr<kj::byte> allocate(size_t bytes) {
    left_ -= bytes;
    return result_.memory.add(kj::heapArray<kj::byte>(bytes));
  }

  bool name(Entry& entry, ObjectType type, kj::ArrayPtr<const kj::byte> data) {
    entry.type = type;
    entry.data = data;
    // hashObject refuses what looks like a collision attack; that is the client's doing.
    auto refused = kj::runCatchingExceptions([&]() { entry.id = hashObject(type, data); });
    KJ_IF_MAYBE(exception, refused) { return refuse(exception->getDescription().cStr()); }
    return true;
  }

  // Resolves what has its base in the pack, then what has it in the repository, and what
  // depends on either, each delta once. Bases in the pack are preferred.
  bool resolveDeltas() {
    for (uint32_t i = 0; i < entries_.size(); ++i) {
      const Entry& entry = entries_[i];
      if (entry.header.type == PackEntryType::kRefDelta) {
        byBaseName_[entry.header.base].push_back(i);
      } else if (entry.header.type == PackEntryType::kOfsDelta) {
        uint32_t base = 0;
        if (!findOffset(entry, base)) {
          return refuse(kj::str("delta base offset is out of bound").cStr());
        }
        byBaseEntry_[base].push_back(i);
      }
    }
    for (uint32_t i = 0; i < entries_.size(); ++i) {
      if (!isDelta(entries_[i].header.type) && !resolveAbove(i)) return false;
    }
    return unresolved() == 0 || resolveThin();
  }

  bool findOffset(const Entry& entry, uint32_t& index) const {
    if (entry.header.baseDistance > entry.offset) return false;
    uint32_t offset = entry.offset - static_cast<uint32_t>(entry.header.baseDistance);
    auto found = std::lower_bound(
        entries_.begin(), entries_.end(), offset,
        [](const Entry& candidate, uint32_t value) { return candidate.offset < value; });
    if (found == entries_.end() || found->offset != offset) return false;
    index = static_cast<uint32_t>(found - entries_.begin());
    return true;
  }

  bool resolveThin() {
    std::vector<ObjectId> outside;
    for (const auto& [id, waiting] : byBaseName_) {
      if (!waiting.empty()) outside.push_back(id);
    }
    for (const ObjectId& id : outside) {
      auto waiting = takeWaiting(id);
      if (waiting.empty()) continue;  // was resolved on the way
      KJ_IF_MAYBE(base, source_.read(id)) {
        if (base->data.size() > left_) return giveUp();
        left_ -= base->data.size();
        kj::ArrayPtr<const kj::byte> data = result_.memory.add(kj::mv(base->data));
        for (uint32_t delta : waiting) {
          if (!apply(delta, base->type, data)) return false;
          if (!resolveAbove(delta)) return false;
        }
      }
    }
    if (size_t left = unresolved()) {
      result_.missingBase = true;
      return refuse(
          kj::str("pack has ", left, left == 1 ? " unresolved delta" : " unresolved deltas").cStr());
    }
    return true;
  }

  size_t unresolved() const {
    return std::count_if(entries_.begin(), entries_.end(),
                         [](const Entry& entry) { return entry.type == ObjectType::kNone; });
  }

  std::vector<uint32_t> takeWaiting(const ObjectId& id) {
    auto found = byBaseName_.find(id);
    if (found == byBaseName_.end()) return {};
    return std::exchange(found->second, {});
  }

  // Resolves every delta that stands on entry `first`, directly or through others.
  bool resolveAbove(uint32_t first) {
    std::vector<uint32_t> known = {first};
    while (!known.empty()) {
      uint32_t base = known.back();
      known.pop_back();
      std::vector<uint32_t> waiting = takeWaiting(entries_[base].id);
      auto byOffset = byBaseEntry_.find(base);
      if (byOffset != byBaseEntry_.end()) {
        waiting.insert(waiting.end(), byOffset->second.begin(), byOffset->second.end());
      }
      for (uint32_t delta : waiting) {
        if (!apply(delta, entries_[base].type, entries_[base].data)) return false;
        known.push_back(delta);
      }
    }
    return true;
  }

  bool apply(uint32_t index, ObjectType type, kj::ArrayPtr<const kj::byte> base) {
    Entry& entry = entries_[index];
    DeltaHeader header;
    if (decodeDeltaHeader(entry.inflated, header) != Decoded::kDone) {
      return refuse("failed to apply delta");
    }
    if (header.resultBytes > left_) return giveUp();
    auto data = allocate(header.resultBytes);
    if (!applyDelta(base, entry.inflated, data)) return refuse("failed to apply delta");
    return name(entry, type, data);
  }

  void finish() {
    result_.objects.reserve(entries_.size());
    result_.byId.reserve(entries_.size());
    for (const Entry& entry : entries_) {
      UnpackedObject object;
      object.id = entry.id;
      object.type = entry.type;
      object.data = entry.data;
      if (!isDelta(entry.header.type)) object.deflated = entry.stream;
      object.linksBegin = static_cast<uint32_t>(result_.links.size());
      if (const char* problem = checkObject(entry.type, entry.data, result_.links, strict_)) {
        refuse(kj::str("object ", entry.id, ": ", problem).cStr());
        return;
      }
      object.linksEnd = static_cast<uint32_t>(result_.links.size());
      auto index = static_cast<uint32_t>(result_.objects.size());
      if (!result_.byId.emplace(entry.id, index).second) {
        refuse(kj::str("The same object ", entry.id, " appears twice in the pack").cStr());
        return;
      }
      result_.objects.push_back(object);
    }
  }

  kj::ArrayPtr<const kj::byte> pack_;
  ObjectSource& source_;
  size_t left_;   // of inflatedBytesMax
  bool strict_;
  UnpackedPack& result_;
  size_t end_ = 0;
  size_t deltas_ = 0;
  Inflater inflater_;
  std::vector<Entry> entries_;  // by offset
  std::unordered_map<uint32_t, std::vector<uint32_t>> byBaseEntry_;
  std::unordered_map<ObjectId, std::vector<uint32_t>> byBaseName_;
};

}  // namespace

PackRefusal indexPackRefusal(std::string detail) {
  return {"index-pack abnormal exit", std::move(detail)};
}

UnpackedPack unpackSmallPack(kj::ArrayPtr<const kj::byte> pack, ObjectSource& source,
                             size_t inflatedBytesMax, bool strict) {
  UnpackedPack result;
  SmallUnpacker(pack, source, inflatedBytesMax, strict, result).run();
  return result;
}

std::vector<NewObject> toNewObjects(const UnpackedPack& unpacked) {
  std::vector<NewObject> result;
  result.reserve(unpacked.objects.size());
  kj::Maybe<Deflater> deflater;
  for (const UnpackedObject& object : unpacked.objects) {
    if (object.known) continue;
    NewObject made;
    made.id = object.id;
    made.type = object.type;
    made.bytes = object.data.size();
    if (object.deflated.size() > 0) {
      made.deflated = kj::heapArray(object.deflated);
    } else {
      if (deflater == nullptr) deflater.emplace();
      made.deflated = KJ_ASSERT_NONNULL(deflater).deflate(object.data);
    }
    result.push_back(kj::mv(made));
  }
  return result;
}

}  // namespace packmoor::gitlayer
