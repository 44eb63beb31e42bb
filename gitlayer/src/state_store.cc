#include "state_store.h"

#include "byte_codec.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

namespace {
// The position row's format: version, index, epoch, hash (low, high); numbers little-endian.
constexpr uint8_t kPositionFormat = 1;
constexpr size_t kPositionBytes = 1 + 4 * 8;
}  // namespace

std::string encodePosition(const replicator::LogPosition& position) {
  std::string row;
  row.reserve(kPositionBytes);
  row.push_back(static_cast<char>(kPositionFormat));
  putU64(row, position.index.value);
  putU64(row, position.epoch.value);
  putU64(row, position.hash.low);
  putU64(row, position.hash.high);
  return row;
}

replicator::LogPosition decodePosition(std::string_view value) {
  KJ_REQUIRE(value.size() == kPositionBytes && value[0] == kPositionFormat,
             "The state store's position row is damaged or of a later version.", value.size());
  ByteReader in(value.substr(1));
  replicator::LogPosition position;
  position.index = replicator::RecordIndex(in.u64());
  position.epoch = replicator::Epoch(in.u64());
  position.hash.low = in.u64();
  position.hash.high = in.u64();
  return position;
}

std::string endOfPrefix(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<uint8_t>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<uint8_t>(end.back()) + 1);
  return end;
}

kj::Promise<kj::Own<StateStore>> openStateStore(kernelio::Env& env, std::string folder,
                                                StateStoreOptions options) {
  if (env.disk.root().size() > 0) return openRocksStateStore(env, std::move(folder), options);
  return openMapStateStore(env, folder + "/map", options.damage);
}

}  // namespace packmoor::gitlayer
