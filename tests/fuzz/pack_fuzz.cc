// module: gitlayer
// Packs, through the small path and through the indexer, which must agree on what they are.
//
// First byte 0: the rest is a pack without its trailer, which is added. 1: as it is. 2: the rest
// describes entries whose streams and trailer are made right, so that the objects themselves are
// what is odd: per entry a type, a 16-bit length, a selector of the base and the content.
#include "gitlayer/indexer.h"
#include "gitlayer/pack_format.h"
#include "gitlayer/small_pack.h"
#include "gitlayer/zlib_codec.h"
#include "delta_plan.h"
#include "index_table.h"
#include "pack_bytes.h"
#include "pack_parser.h"
#include "sha1_stream.h"

#include <kernelio/check.h>
#include <replicator/extent_store.h>

#include <algorithm>
#include <map>

using namespace packmoor::gitlayer;

namespace {

constexpr size_t kInflatedMax = 1u << 20;

// A repository with two blobs.
class FewObjects final : public ObjectSource {
 public:
  FewObjects() {
    for (const char* text : {"", "the base that a thin pack leaves out\n"}) {
      kj::ArrayPtr<const kj::byte> bytes = kj::StringPtr(text).asBytes();
      ids.push_back(hashObject(ObjectType::kBlob, bytes));
      objects_[ids.back()] = text;
    }
  }
  bool exists(const ObjectId& id) override { return objects_.count(id) > 0; }
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override {
    auto found = objects_.find(id);
    if (found == objects_.end()) return nullptr;
    return ObjectHeader{ObjectType::kBlob, found->second.size()};
  }
  kj::Maybe<Object> read(const ObjectId& id) override {
    auto found = objects_.find(id);
    if (found == objects_.end()) return nullptr;
    return Object{ObjectType::kBlob, kj::heapArray(found->second.asBytes())};
  }
  kj::Maybe<StoredEntry> stored(const ObjectId&) override { return nullptr; }
  std::vector<PackView> packs() override { return {}; }
  std::vector<ObjectId> hotObjects() override { return ids; }

  std::vector<ObjectId> ids;

 private:
  std::map<ObjectId, kj::StringPtr> objects_;
};

using Bytes = std::vector<kj::byte>;

kj::ArrayPtr<const kj::byte> view(const Bytes& bytes) {
  return kj::arrayPtr(bytes.data(), bytes.size());
}

void addTrailer(Bytes& pack) {
  Sha1Stream sha1;
  sha1.update(view(pack));
  ObjectId trailer = sha1.finish();
  pack.insert(pack.end(), trailer.bytes.begin(), trailer.bytes.end());
}

Bytes describedPack(const uint8_t* data, size_t size, const FewObjects& source) {
  Bytes pack(kPackHeaderBytes);
  std::vector<size_t> offsets;
  std::vector<ObjectId> names = source.ids;
  Deflater deflater;
  while (size >= 4 && offsets.size() < 64) {
    static constexpr PackEntryType kTypes[] = {
        PackEntryType::kCommit, PackEntryType::kTree,     PackEntryType::kBlob,
        PackEntryType::kTag,    PackEntryType::kOfsDelta, PackEntryType::kRefDelta};
    PackEntryHeader header;
    header.type = kTypes[data[0] % 6];
    size_t length = std::min<size_t>(data[1] | data[2] << 8, size - 4);
    size_t selector = data[3];
    auto content = kj::arrayPtr(data + 4, length);
    data += 4 + length;
    size -= 4 + length;
    if (header.type == PackEntryType::kOfsDelta && offsets.empty()) continue;
    header.bytes = length;
    if (header.type == PackEntryType::kOfsDelta) {
      header.baseDistance = pack.size() - offsets[selector % offsets.size()];
    } else if (header.type == PackEntryType::kRefDelta) {
      header.base = names[selector % names.size()];
    } else {
      names.push_back(hashObject(objectTypeOf(header.type), content));
    }
    offsets.push_back(pack.size());
    kj::byte encoded[kEntryHeaderBytesMax];
    size_t headerBytes = encodeEntryHeader(encoded, header);
    auto stream = deflater.deflate(content);
    pack.insert(pack.end(), encoded, encoded + headerBytes);
    pack.insert(pack.end(), stream.begin(), stream.end());
  }
  encodePackHeader(pack.data(), static_cast<uint32_t>(offsets.size()));
  addTrailer(pack);
  return pack;
}

struct Indexed {
  bool refused = false;
  std::vector<ObjectId> names;   // sorted
};

Indexed indexPack(const Bytes& pack, ObjectSource& source, size_t piece) {
  PackLimits limits;
  limits.objectBytesMax = limits.heldBytesMax = kInflatedMax;
  Indexer indexer(limits);
  Indexed result;
  result.refused = true;
  for (size_t at = 0; at < pack.size(); at += piece) {
    if (!indexer.feed(view(pack).slice(at, std::min(at + piece, pack.size())))) return result;
  }
  if (!indexer.end()) return result;
  MemoryPackBytes bytes;
  constexpr size_t kBlock = packmoor::replicator::kBlockBytes;
  for (size_t at = 0; at < pack.size(); at += kBlock) {
    bytes.set(at / kBlock, packmoor::kernelio::IoBuffer::copyOf(
                               view(pack).slice(at, std::min(at + kBlock, pack.size()))));
  }
  indexer.beginDeltas(bytes);
  auto lane = indexer.makeLane();
  while (indexer.resolve(*lane, 1000)) {
  }
  if (indexer.thinBasesLeft()) indexer.resolveThin(source, SIZE_MAX);
  if (!indexer.finish()) return result;
  result.refused = false;
  for (uint32_t number : indexer.table().order()) {
    const IndexEntry& entry = indexer.table()[number];
    result.names.push_back(entry.id);
    if (indexer.appendedCount() > 0) continue;
    auto data = indexer.read(number);
    PACKMOOR_CHECK(hashObject(entry.type, data) == entry.id);
  }
  IndexStream stream(indexer.table(), indexer.trailer());
  auto whole = kj::heapArray<kj::byte>(stream.bytes() + 1);
  PACKMOOR_CHECK(stream.fill(whole) == stream.bytes());
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  FewObjects source;
  Bytes pack;
  if (data[0] % 3 == 2) {
    pack = describedPack(data + 2, size - 2, source);
  } else {
    pack.assign(data + 2, data + size);
    if (data[0] % 3 == 0) addTrailer(pack);
  }
  UnpackedPack small = unpackSmallPack(view(pack), source, kInflatedMax);
  Indexed large = indexPack(pack, source, size_t(data[1]) * 5 + 1);
  if (small.tooLarge) return 0;
  PACKMOOR_CHECK(small.refusal.has_value() == large.refused);
  if (large.refused) return 0;
  toNewObjects(small);
  for (const auto& object : small.objects) {
    PACKMOOR_CHECK(hashObject(object.type, object.data) == object.id);
    PACKMOOR_CHECK(std::binary_search(large.names.begin(), large.names.end(), object.id));
  }
  return 0;
}
