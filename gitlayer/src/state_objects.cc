#include "state_objects.h"

#include "gitlayer/zlib_codec.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

bool StateObjects::exists(const ObjectId& id) { return state_->exists(hotKey(repository_, id)); }

kj::Maybe<ObjectHeader> StateObjects::header(const ObjectId& id) {
  std::string row;
  if (!state_->get(hotKey(repository_, id), row)) return nullptr;
  const HotRow hot = HotRow::decode(row);
  return ObjectHeader{hot.type, hot.bytes};
}

kj::Maybe<Object> StateObjects::read(const ObjectId& id) {
  std::string row;
  if (!state_->get(hotKey(repository_, id), row)) return nullptr;
  const HotRow hot = HotRow::decode(row);
  Object object;
  object.type = hot.type;
  object.data = kj::heapArray<kj::byte>(hot.bytes);
  thread_local Inflater inflater;
  size_t consumed = 0;
  KJ_REQUIRE(inflater.inflate(bytesOf(hot.deflated), object.data, consumed) &&
                 consumed == hot.deflated.size(),
             "An object in the state store is damaged.", id);
  return kj::mv(object);
}

kj::Maybe<StoredEntry> StateObjects::stored(const ObjectId& id) {
  auto row = std::make_shared<std::string>();
  if (!state_->get(hotKey(repository_, id), *row)) return nullptr;
  const HotRow hot = HotRow::decode(*row);
  StoredEntry entry;
  entry.form = StoredEntry::Form::kWhole;
  entry.type = hot.type;
  entry.bytes = hot.bytes;
  entry.deflated = bytesOf(hot.deflated);
  entry.keepAlive = std::move(row);
  return kj::mv(entry);
}

std::vector<PackView> StateObjects::packs() { return {}; }

std::vector<ObjectId> StateObjects::hotObjects() {
  std::vector<ObjectId> ids;
  const size_t skip = hotPrefix(repository_).size();
  state_->scan(hotPrefix(repository_), {}, [&](std::string_view key, std::string_view) {
    ids.push_back(ObjectId::fromBytes(key.substr(skip).data()));
    return true;
  });
  return ids;
}

}  // namespace packmoor::gitlayer
