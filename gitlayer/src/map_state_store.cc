// A state store in memory whose durable form is one file, replaced whole at each flush.
//
// File: "PMMAP001", then entries (key and value, each with its length in 4 bytes), then the
// XXH3-128 of all before. An absent file is an empty store.
#include "state_store.h"

#include "byte_codec.h"
#include "durable_folders.h"
#include "kernelio/co.h"

#include <kj/debug.h>

#include <map>

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kMagic = "PMMAP001";
constexpr size_t kFileBytesMax = 1u << 30;

using Map = std::map<std::string, std::string, std::less<>>;

kj::ArrayPtr<const kj::byte> bytesOf(std::string_view text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

void scanMap(const Map& map, std::string_view prefix, std::string_view from,
             StateReader::Each& each) {
  for (auto entry = map.lower_bound(std::max(prefix, from)); entry != map.end(); ++entry) {
    if (std::string_view(entry->first).substr(0, prefix.size()) != prefix) break;
    if (!each(entry->first, entry->second)) break;
  }
}

class MapSnapshot final : public StateReader {
 public:
  explicit MapSnapshot(std::shared_ptr<const Map> map) : map_(std::move(map)) {}
  bool get(std::string_view key, std::string& value) const override {
    auto found = map_->find(key);
    if (found == map_->end()) return false;
    value = found->second;
    return true;
  }
  bool exists(std::string_view key) const override { return map_->find(key) != map_->end(); }
  void scan(std::string_view prefix, std::string_view from, Each each) const override {
    scanMap(*map_, prefix, from, each);
  }

 private:
  std::shared_ptr<const Map> map_;
};

class MapBatch final : public StateBatch {
 public:
  enum class Kind : uint8_t { kPut, kErase, kErasePrefix };
  struct Step {
    Kind kind;
    std::string key, value;
  };
  std::vector<Step> steps;

  void put(std::string_view key, std::string_view head, std::string_view tail) override {
    std::string value(head);
    value.append(tail);
    add({Kind::kPut, std::string(key), std::move(value)});
  }
  void erase(std::string_view key) override { add({Kind::kErase, std::string(key), {}}); }
  void erasePrefix(std::string_view prefix) override {
    KJ_REQUIRE(!endOfPrefix(prefix).empty(), "erasing by a prefix without an end");
    add({Kind::kErasePrefix, std::string(prefix), {}});
  }
  size_t bytes() const override { return bytes_; }

 private:
  void add(Step step) {
    bytes_ += step.key.size() + step.value.size();
    steps.push_back(std::move(step));
  }
  size_t bytes_ = 0;
};

Map parseFile(kj::ArrayPtr<const kj::byte> content, const std::string& path);

class MapStateStore final : public StateStore {
 public:
  MapStateStore(kernelio::Env& env, std::string path, Map map,
                std::shared_ptr<StateDamage> damage)
      : env_(env), path_(std::move(path)), damage_(std::move(damage)), map_(std::make_shared<Map>(std::move(map))) {
    auto row = map_->find(kPositionKey);
    if (row != map_->end()) position_ = decodePosition(row->second);
  }

  bool get(std::string_view key, std::string& value) const override {
    auto found = map_->find(key);
    if (found == map_->end()) return false;
    value = found->second;
    return true;
  }
  bool exists(std::string_view key) const override { return map_->find(key) != map_->end(); }
  void scan(std::string_view prefix, std::string_view from, Each each) const override {
    scanMap(*map_, prefix, from, each);
  }

  kj::Own<StateBatch> newBatch() override { return kj::heap<MapBatch>(); }

  void write(kj::Own<StateBatch> batch, replicator::LogPosition position) override {
    auto& steps = kj::downcast<MapBatch>(*batch).steps;
    Map& map = changeable();
    for (auto& step : steps) {
      switch (step.kind) {
        case MapBatch::Kind::kPut: map[std::move(step.key)] = std::move(step.value); break;
        case MapBatch::Kind::kErase: map.erase(step.key); break;
        case MapBatch::Kind::kErasePrefix:
          map.erase(map.lower_bound(step.key), map.lower_bound(endOfPrefix(step.key)));
          break;
      }
    }
    map[std::string(kPositionKey)] = encodePosition(position);
    position_ = position;
    unflushedBytes_ += batch->bytes();
  }

  replicator::LogPosition position() const override { return position_; }

  std::shared_ptr<const StateReader> snapshot() const override {
    return std::make_shared<MapSnapshot>(map_);
  }

  kj::Promise<void> flush() override {
    const uint64_t flushing = unflushedBytes_;
    auto content = encode();
    fileBytes_ = content.size();
    auto replaced = kernelio::replaceFile(env_.disk, path_, content);
    return replaced.attach(kj::mv(content)).then([this, flushing]() {
      unflushedBytes_ -= flushing;
    });
  }

  uint64_t unflushedBytes() const override { return unflushedBytes_; }

  kj::Promise<void> checkpoint(std::string folder) override {
    auto content = encode();
    auto path = folder + "/map";
    return env_.disk.makeFolders(folder).then(
        [this, content = kj::mv(content), path = std::move(path)]() mutable {
          auto written = kernelio::replaceFile(env_.disk, path, content);
          return written.attach(kj::mv(content));
        });
  }

  std::vector<replicator::StoredFile> files() override { return {{"map", fileBytes_}}; }

  kj::Promise<void> verify(std::string name, replicator::Pace& pace) override {
    return pace(fileBytes_)
        .then([this]() { return kernelio::readWholeFile(env_.disk, path_, kFileBytesMax); })
        .then([this](kj::Maybe<kj::Array<kj::byte>> content) {
          KJ_IF_MAYBE(bytes, content) { parseFile(*bytes, path_); }
        })
        .catch_([this](kj::Exception&& exception) {
          damage_->note(exception.getDescription().cStr());
        });
  }

 private:
  kj::Array<kj::byte> encode() const {
    std::string file(kMagic);
    for (const auto& [key, value] : *map_) {
      putText(file, key);
      putText(file, value);
    }
    const auto checksum = replicator::hashBytes(bytesOf(file));
    putU64(file, checksum.low);
    putU64(file, checksum.high);
    return kj::heapArray(bytesOf(file));
  }

  // A snapshot shares the map; the next change copies it.
  Map& changeable() {
    if (map_.use_count() > 1) map_ = std::make_shared<Map>(*map_);
    return *map_;
  }

  kernelio::Env& env_;
  std::string path_;
  std::shared_ptr<StateDamage> damage_;
  std::shared_ptr<Map> map_;
  replicator::LogPosition position_;
  uint64_t unflushedBytes_ = 0, fileBytes_ = 0;
};

Map parseFile(kj::ArrayPtr<const kj::byte> content, const std::string& path) {
  constexpr size_t kChecksumBytes = 16;
  const std::string_view file(reinterpret_cast<const char*>(content.begin()), content.size());
  KJ_REQUIRE(file.size() >= kMagic.size() + kChecksumBytes &&
                 file.substr(0, kMagic.size()) == kMagic,
             "The state store's file is not one.", path.c_str());
  const std::string_view body = file.substr(0, file.size() - kChecksumBytes);
  ByteReader trailer(file.substr(body.size()));
  replicator::Hash128 checksum;
  checksum.low = trailer.u64();
  checksum.high = trailer.u64();
  KJ_REQUIRE(replicator::hashBytes(bytesOf(body)) == checksum,
             "The state store's file is damaged.", path.c_str());
  Map map;
  ByteReader in(body.substr(kMagic.size()));
  while (!in.rest().empty()) {
    const std::string_view key = in.text();
    map.emplace(key, in.text());
  }
  return map;
}

Co<kj::Own<StateStore>> open(kernelio::Env& env, std::string path,
                             std::shared_ptr<StateDamage> damage) {
  const size_t slash = path.rfind('/');
  if (slash != std::string::npos) {
    auto made = makeDurableFolders(env.disk, path.substr(0, slash));
    co_await kj::mv(made);
  }
  auto content = co_await kernelio::readWholeFile(env.disk, path, kFileBytesMax);
  Map map;
  KJ_IF_MAYBE(bytes, content) {
    auto failure = kj::runCatchingExceptions([&]() { map = parseFile(*bytes, path); });
    KJ_IF_MAYBE(exception, failure) {
      damage->note(exception->getDescription().cStr());
      kj::throwFatalException(kj::mv(*exception));
    }
  }
  co_return kj::heap<MapStateStore>(env, std::move(path), std::move(map), std::move(damage));
}

}  // namespace

kj::Promise<kj::Own<StateStore>> openMapStateStore(kernelio::Env& env, std::string path,
                                                   std::shared_ptr<StateDamage> damage) {
  return open(env, std::move(path), std::move(damage));
}

}  // namespace packmoor::gitlayer
