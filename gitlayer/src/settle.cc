#include "settle.h"

#include "gitlayer/pack_format.h"
#include "kernelio/check.h"
#include "sha1_stream.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <zlib.h>

#include <cstring>
#include <map>

namespace packmoor::gitlayer {

namespace {

// Calls back with each hot object that was applied up to the index, in order of names.
template <typename F>
void forEachHot(const StateReader& state, const RepositoryId& repository, uint64_t upto, F each) {
  const size_t skip = hotPrefix(repository).size();
  state.scan(hotPrefix(repository), {}, [&](std::string_view key, std::string_view value) {
    const HotRow row = HotRow::decode(value);
    if (row.appliedAt <= upto) each(ObjectId::fromBytes(key.substr(skip).data()), row);
    return true;
  });
}

size_t entryHeader(const HotRow& row, kj::byte* out) {
  PackEntryHeader header;
  header.type = entryTypeOf(row.type);
  header.bytes = row.bytes;
  return encodeEntryHeader(out, header);
}

uint32_t crcOf(kj::ArrayPtr<const kj::byte> bytes) {
  return static_cast<uint32_t>(crc32_z(0, bytes.begin(), bytes.size()));
}

}  // namespace

uint64_t settleUpto(const StateReader& state, const RepositoryId& repository, uint64_t bytesMax) {
  std::map<uint64_t, uint64_t> bytesByIndex;
  forEachHot(state, repository, UINT64_MAX, [&](const ObjectId&, const HotRow& row) {
    bytesByIndex[row.appliedAt] += row.deflated.size();
  });
  uint64_t upto = 0, bytes = 0;
  for (const auto& [index, more] : bytesByIndex) {
    if (upto != 0 && bytes + more > bytesMax) break;
    upto = index;
    bytes += more;
  }
  return upto;
}

std::vector<ObjectId> settledObjects(const StateReader& state, const RepositoryId& repository,
                                     uint64_t upto) {
  std::vector<ObjectId> ids;
  forEachHot(state, repository, upto, [&](const ObjectId& id, const HotRow&) {
    ids.push_back(id);
  });
  return ids;
}

SettledPack buildSettledPack(const StateReader& state, const RepositoryId& repository,
                             uint64_t upto) {
  SettledPack result;
  kj::byte head[kEntryHeaderBytesMax];
  // The size first, then the bytes: two readings of the state rather than a buffer that grows.
  uint64_t size = kPackHeaderBytes + kPackTrailerBytes;
  forEachHot(state, repository, upto, [&](const ObjectId& id, const HotRow& row) {
    result.objects.push_back(id);
    size += entryHeader(row, head) + row.deflated.size();
  });
  auto pack = kj::heapArray<kj::byte>(size);
  encodePackHeader(pack.begin(), static_cast<uint32_t>(result.objects.size()));
  kj::byte* at = pack.begin() + kPackHeaderBytes;
  std::vector<PackIndexEntry> entries;
  entries.reserve(result.objects.size());
  forEachHot(state, repository, upto, [&](const ObjectId& id, const HotRow& row) {
    kj::byte* const begin = at;
    at += entryHeader(row, at);
    std::memcpy(at, row.deflated.data(), row.deflated.size());
    at += row.deflated.size();
    entries.push_back({id, crcOf(kj::arrayPtr(begin, at)),
                       static_cast<uint64_t>(begin - pack.begin())});
  });
  PACKMOOR_CHECK(at + kPackTrailerBytes == pack.end(), "building a settled pack", repository);
  Sha1Stream sha1;
  sha1.update(kj::arrayPtr(pack.begin(), at));
  const ObjectId checksum = sha1.finish();
  std::memcpy(at, checksum.bytes.data(), kOidBytes);
  result.index = buildPackIndex(kj::arrayPtr(entries.data(), entries.size()), checksum);
  result.pack = kj::mv(pack);
  result.packRoot = rootOf(result.pack);
  result.indexRoot = rootOf(result.index);
  return result;
}

namespace {
kj::ArrayPtr<const kj::byte> blockOf(kj::ArrayPtr<const kj::byte> bytes, uint64_t block) {
  const uint64_t begin = block * replicator::kBlockBytes;
  return bytes.slice(begin, begin + replicator::blockBytesAt(bytes.size(), block));
}
uint64_t blockCount(uint64_t bytes) {
  return (bytes + replicator::kBlockBytes - 1) / replicator::kBlockBytes;
}
}  // namespace

replicator::Hash128 rootOf(kj::ArrayPtr<const kj::byte> bytes) {
  kj::Vector<replicator::Hash128> checksums;
  for (uint64_t block = 0; block < blockCount(bytes.size()); ++block) {
    checksums.add(replicator::hashBytes(blockOf(bytes, block)));
  }
  return replicator::extentRoot(bytes.size(), checksums);
}

Co<void> sealExtent(replicator::ExtentStore& extents, replicator::ExtentId id,
                    kj::ArrayPtr<const kj::byte> bytes, replicator::Hash128 root) {
  auto writer = co_await extents.begin(id);
  for (uint64_t block = 0; block < blockCount(bytes.size()); ++block) {
    auto data = kernelio::IoBuffer::copyOf(blockOf(bytes, block));
    const auto checksum = replicator::hashBytes(data.bytes());
    co_await writer->writeBlock(block, kj::mv(data), checksum);
  }
  co_await writer->seal(bytes.size(), root);
}

}  // namespace packmoor::gitlayer
