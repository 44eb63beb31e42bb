#include "settle.h"

#include "gitlayer/pack_format.h"
#include "kernelio/check.h"
#include "record_applier.h"
#include "sha1_stream.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <zlib.h>

#include <algorithm>
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

constexpr size_t kEntryHeaderUsualBytes = 3;

kj::Array<const kj::byte> ownedBytes(std::vector<kj::byte> bytes) {
  auto owner = kj::heap(std::move(bytes));
  auto view = kj::arrayPtr(static_cast<const kj::byte*>(owner->data()), owner->size());
  return view.attach(kj::mv(owner));
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

namespace {
// In the order in which they will lie in the pack.
std::vector<ObjectId> inOrder(const StateReader& state, const RepositoryId& repository,
                              uint64_t upto, SettleOrder order) {
  std::vector<std::pair<uint64_t, ObjectId>> byTime;
  forEachHot(state, repository, upto, [&](const ObjectId& id, const HotRow& row) {
    byTime.emplace_back(order == SettleOrder::kTime ? row.appliedAt : 0, id);
  });
  std::sort(byTime.begin(), byTime.end());
  std::vector<ObjectId> ids;
  for (const auto& [index, id] : byTime) ids.push_back(id);
  return ids;
}
}  // namespace

SettledPack buildSettledPack(const StateReader& state, const RepositoryId& repository,
                             uint64_t upto, SettleOrder order) {
  SettledPack result;
  std::vector<kj::byte> pack;
  std::vector<PackIndexEntry> entries;
  auto row = findRepository(state, repository);
  if (row.has_value()) {
    const auto& hot = row->statistics;
    pack.reserve(std::min(hot.hotBytes, kSettleBytesMax) + kPackHeaderBytes + kPackTrailerBytes +
                 hot.hotObjects * kEntryHeaderUsualBytes);
    entries.reserve(hot.hotObjects);
  }
  pack.resize(kPackHeaderBytes);
  kj::byte head[kEntryHeaderBytesMax];
  std::string value;
  for (const ObjectId& id : inOrder(state, repository, upto, order)) {
    PACKMOOR_CHECK(state.get(hotKey(repository, id), value), "settling what is not there", id);
    const HotRow object = HotRow::decode(value);
    const size_t begin = pack.size();
    const size_t headBytes = entryHeader(object, head);
    pack.insert(pack.end(), head, head + headBytes);
    pack.insert(pack.end(), object.deflated.begin(), object.deflated.end());
    result.objects.push_back(id);
    entries.push_back({id, crcOf(kj::arrayPtr(pack.data() + begin, pack.size() - begin)), begin});
  }
  std::sort(entries.begin(), entries.end(),
            [](const PackIndexEntry& a, const PackIndexEntry& b) { return a.id < b.id; });
  std::sort(result.objects.begin(), result.objects.end());
  encodePackHeader(pack.data(), static_cast<uint32_t>(result.objects.size()));
  Sha1Stream sha1;
  sha1.update(kj::arrayPtr(pack.data(), pack.size()));
  const ObjectId checksum = sha1.finish();
  pack.insert(pack.end(), checksum.bytes.begin(), checksum.bytes.end());
  result.index = buildPackIndex(kj::arrayPtr(entries.data(), entries.size()), checksum);
  result.pack = ownedBytes(std::move(pack));
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
