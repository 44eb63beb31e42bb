#include "state_objects.h"

#include "gitlayer/zlib_codec.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {
bool found(bool answer) { return answer; }
template <typename T>
bool found(const kj::Maybe<T>& answer) {
  return answer != nullptr;
}
}  // namespace

StateObjects::StateObjects(std::shared_ptr<const StateReader> state,
                           const RepositoryId& repository, bool hasHot,
                           std::vector<std::shared_ptr<PackFile>> packs)
    : state_(std::move(state)),
      repository_(repository),
      hasHot_(hasHot),
      packs_(std::move(packs)) {
  for (const auto& pack : packs_) bySize_.push_back(pack.get());
  std::stable_sort(bySize_.begin(), bySize_.end(), [](PackFile* a, PackFile* b) {
    return a->objectCount() > b->objectCount();
  });
}

template <typename F>
auto StateObjects::firstOf(F ask) -> decltype(ask(*std::declval<PackFile*>())) {
  PackFile* const last = lastHit_.load(std::memory_order_relaxed);
  if (last != nullptr) {
    auto answer = ask(*last);
    if (found(answer)) return answer;
  }
  for (PackFile* pack : bySize_) {
    if (pack == last) continue;
    auto answer = ask(*pack);
    if (found(answer)) {
      lastHit_.store(pack, std::memory_order_relaxed);
      return answer;
    }
  }
  return {};
}

bool StateObjects::getHot(const ObjectId& id, std::string& row) const {
  return hasHot_ && state_->get(hotKey(repository_, id), row);
}

bool StateObjects::exists(const ObjectId& id) {
  if (hasHot_ && state_->exists(hotKey(repository_, id))) return true;
  return firstOf([&](PackFile& pack) { return pack.exists(id); });
}

kj::Maybe<ObjectHeader> StateObjects::header(const ObjectId& id) {
  std::string row;
  if (!getHot(id, row)) return firstOf([&](PackFile& pack) { return pack.header(id); });
  const HotRow hot = HotRow::decode(row);
  return ObjectHeader{hot.type, hot.bytes};
}

kj::Maybe<Object> StateObjects::read(const ObjectId& id) {
  std::string row;
  if (!getHot(id, row)) return firstOf([&](PackFile& pack) { return pack.read(id); });
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
  if (!getHot(id, *row)) return firstOf([&](PackFile& pack) { return pack.stored(id); });
  const HotRow hot = HotRow::decode(*row);
  StoredEntry entry;
  entry.form = StoredEntry::Form::kWhole;
  entry.type = hot.type;
  entry.bytes = hot.bytes;
  entry.deflated = bytesOf(hot.deflated);
  entry.keepAlive = std::move(row);
  return kj::mv(entry);
}

std::vector<PackView> StateObjects::packs() {
  std::vector<PackView> views;
  for (const auto& pack : packs_) views.push_back(PackFile::view(pack));
  return views;
}

std::vector<ObjectId> StateObjects::hotObjects() {
  std::vector<ObjectId> ids;
  if (!hasHot_) return ids;
  const size_t skip = hotPrefix(repository_).size();
  state_->scan(hotPrefix(repository_), {}, [&](std::string_view key, std::string_view) {
    ids.push_back(ObjectId::fromBytes(key.substr(skip).data()));
    return true;
  });
  return ids;
}

}  // namespace packmoor::gitlayer
