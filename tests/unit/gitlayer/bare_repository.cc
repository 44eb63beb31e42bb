#include "bare_repository.h"

#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"

#include <kj/debug.h>
#include <support/git_process.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

namespace packmoor::gitlayer::test {
namespace {

namespace fs = std::filesystem;

constexpr size_t kCacheBytes = 64u << 20;

kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

ObjectType typeNamed(std::string_view name) {
  for (int i = 1; i <= 4; ++i) {
    if (objectTypeName(static_cast<ObjectType>(i)) == name) return static_cast<ObjectType>(i);
  }
  return ObjectType::kNone;
}

std::string inflateAll(const std::string& deflated) {
  z_stream stream{};
  KJ_REQUIRE(inflateInit(&stream) == Z_OK);
  KJ_DEFER(inflateEnd(&stream));
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(deflated.data()));
  stream.avail_in = static_cast<uInt>(deflated.size());
  std::string result;
  char buffer[8192];
  int status;
  do {
    stream.next_out = reinterpret_cast<Bytef*>(buffer);
    stream.avail_out = sizeof buffer;
    status = inflate(&stream, Z_NO_FLUSH);
    KJ_REQUIRE(status == Z_OK || status == Z_STREAM_END);
    result.append(buffer, sizeof buffer - stream.avail_out);
  } while (status != Z_STREAM_END);
  return result;
}

// A view that borrows everything from the repository.
class BareView final : public RepositoryView {
 public:
  explicit BareView(BareRepository& repository) : repository_(repository) {}

  using RepositoryView::forEachRef;
  replicator::RecordIndex index() override { return replicator::RecordIndex(1); }
  const RepositoryInfo& info() override { return repository_.info; }
  std::optional<Ref> ref(std::string_view name) override {
    auto found = repository_.refs.find(name);
    if (found == repository_.refs.end()) return std::nullopt;
    return found->second;
  }
  void forEachRef(std::string_view prefix, std::string_view after,
                  kj::FunctionParam<bool(const Ref&)> each) override {
    auto at = after > prefix ? repository_.refs.upper_bound(after)
                             : repository_.refs.lower_bound(prefix);
    for (; at != repository_.refs.end(); ++at) {
      if (at->first.compare(0, prefix.size(), prefix) != 0 || !each(at->second)) return;
    }
  }
  ObjectSource& objects() override { return repository_; }
  RepositoryStatistics statistics() override { return {}; }

 private:
  BareRepository& repository_;
};

}  // namespace

struct BareRepository::Pack {
  std::string bytes, index;
  uint32_t count = 0;
  std::vector<uint64_t> offsets;                       // sorted, and the trailer's
  std::unordered_map<ObjectId, uint64_t> byName;
  std::unordered_map<uint64_t, ObjectId> byOffset;

  kj::ArrayPtr<const kj::byte> entry(uint64_t offset, PackEntryHeader& header) const {
    auto next = std::upper_bound(offsets.begin(), offsets.end(), offset);
    auto all = bytesOf(bytes).slice(offset, *next);
    KJ_REQUIRE(decodeEntryHeader(all, header) == Decoded::kDone);
    return all.slice(header.headerBytes, all.size());
  }
};

BareRepository::BareRepository(const std::string& folder) {
  std::string gitFolder = fs::exists(folder + "/.git") ? folder + "/.git" : folder;
  for (const auto& entry : fs::directory_iterator(gitFolder + "/objects")) {
    std::string name = entry.path().filename();
    if (name.size() == 2) openLoose(entry.path());
  }
  for (const auto& entry : fs::directory_iterator(gitFolder + "/objects/pack")) {
    if (entry.path().extension() == ".idx") openPack(entry.path().string());
  }
  readRefs(gitFolder);
}

BareRepository::~BareRepository() noexcept(false) = default;

kj::Own<RepositoryView> BareRepository::view() { return kj::heap<BareView>(*this); }

void BareRepository::openPack(const std::string& indexPath) {
  auto pack = std::make_unique<Pack>();
  pack->index = packmoor::test::readFile(indexPath);
  pack->bytes = packmoor::test::readFile(indexPath.substr(0, indexPath.size() - 4) + ".pack");
  auto big32 = [&](size_t at) {
    auto* p = reinterpret_cast<const uint8_t*>(pack->index.data()) + at;
    return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3];
  };
  pack->count = big32(8 + 255 * 4);
  size_t names = 8 + 1024, offsets = names + pack->count * 24ull;
  for (uint32_t i = 0; i < pack->count; ++i) {
    ObjectId id = ObjectId::fromBytes(pack->index.data() + names + i * 20ull);
    uint64_t offset = big32(offsets + i * 4ull);
    KJ_REQUIRE(offset < 0x80000000u, "test packs are below 2 GiB");
    pack->byName[id] = offset;
    pack->byOffset[offset] = id;
    pack->offsets.push_back(offset);
  }
  std::sort(pack->offsets.begin(), pack->offsets.end());
  pack->offsets.push_back(pack->bytes.size() - kPackTrailerBytes);
  packs_.push_back(std::move(pack));
}

void BareRepository::openLoose(const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::string hex = fs::path(folder).filename().string() + entry.path().filename().string();
    ObjectId id;
    if (!ObjectId::parseHex(hex, id)) continue;
    std::string data = inflateAll(packmoor::test::readFile(entry.path()));
    size_t zero = data.find('\0');
    std::string type = data.substr(0, data.find(' '));
    loose_[id] = {typeNamed(type), data.substr(zero + 1)};
  }
}

void BareRepository::readRefs(const std::string& gitFolder) {
  auto git = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"git", "--git-dir=" + gitFolder});
    return packmoor::test::runProcess(arguments, "/").out;
  };
  std::string lines = git({"for-each-ref", "--format=%(refname) %(objectname) %(*objectname)"});
  for (size_t at = 0; at < lines.size();) {
    size_t end = lines.find('\n', at);
    std::string line = lines.substr(at, end - at);
    at = end + 1;
    Ref ref;
    size_t space = line.find(' ');
    ref.name = line.substr(0, space);
    ObjectId::parseHex(line.substr(space + 1, 40), ref.id);
    if (line.size() >= space + 82) ObjectId::parseHex(line.substr(space + 42, 40), ref.peeled);
    refs[ref.name] = ref;
  }
  std::string head = git({"symbolic-ref", "-q", "HEAD"});
  if (!head.empty()) info.head = head.substr(0, head.size() - 1);
  info.name = "bare";
}

bool BareRepository::find(const ObjectId& id, Place& place) {
  for (auto& pack : packs_) {
    auto found = pack->byName.find(id);
    if (found == pack->byName.end()) continue;
    place = {pack.get(), found->second};
    return true;
  }
  return false;
}

bool BareRepository::exists(const ObjectId& id) {
  Place place;
  return loose_.count(id) > 0 || find(id, place);
}

kj::Maybe<ObjectHeader> BareRepository::header(const ObjectId& id) {
  auto loose = loose_.find(id);
  if (loose != loose_.end()) return ObjectHeader{loose->second.type, loose->second.data.size()};
  Place place;
  if (!find(id, place)) return nullptr;
  PackEntryHeader header;
  place.pack->entry(place.offset, header);
  if (!isDelta(header.type)) return ObjectHeader{objectTypeOf(header.type), header.bytes};
  Shared object = resolve(place);
  return ObjectHeader{object->type, object->data.size()};
}

kj::Maybe<Object> BareRepository::read(const ObjectId& id) {
  auto loose = loose_.find(id);
  if (loose != loose_.end()) {
    return Object{loose->second.type, kj::heapArray(bytesOf(loose->second.data))};
  }
  Place place;
  if (!find(id, place)) return nullptr;
  Shared object = resolve(place);
  return Object{object->type, kj::heapArray(object->data.asPtr())};
}

void BareRepository::remember(const Place& place, const Shared& object) {
  std::lock_guard lock(mutex_);
  if (cacheBytes_ > kCacheBytes) {
    cache_.clear();
    cacheBytes_ = 0;
  }
  if (cache_.emplace(std::make_pair(place.pack, place.offset), object).second) {
    cacheBytes_ += object->data.size() + 100;
  }
}

BareRepository::Shared BareRepository::resolve(const Place& start) {
  thread_local Inflater inflater;
  std::vector<std::pair<Place, kj::Array<kj::byte>>> deltas;
  Shared object;
  for (Place place = start; object == nullptr;) {
    {
      std::lock_guard lock(mutex_);
      ++reads;
      auto cached = cache_.find({place.pack, place.offset});
      if (cached != cache_.end()) {
        object = cached->second;
        break;
      }
    }
    PackEntryHeader header;
    auto stream = place.pack->entry(place.offset, header);
    auto data = kj::heapArray<kj::byte>(header.bytes);
    size_t consumed = 0;
    KJ_REQUIRE(inflater.inflate(stream, data, consumed));
    if (!isDelta(header.type)) {
      object = std::make_shared<const Object>(Object{objectTypeOf(header.type), kj::mv(data)});
      if (object->type != ObjectType::kBlob) remember(place, object);
      break;
    }
    deltas.emplace_back(place, kj::mv(data));
    if (header.type == PackEntryType::kOfsDelta) {
      place.offset -= header.baseDistance;
    } else {
      place.offset = place.pack->byName.at(header.base);
    }
  }
  while (!deltas.empty()) {
    DeltaHeader delta;
    auto& [place, data] = deltas.back();
    KJ_REQUIRE(decodeDeltaHeader(data, delta) == Decoded::kDone);
    auto result = kj::heapArray<kj::byte>(delta.resultBytes);
    KJ_REQUIRE(applyDelta(object->data, data, result));
    object = std::make_shared<const Object>(Object{object->type, kj::mv(result)});
    remember(place, object);
    deltas.pop_back();
  }
  return object;
}

kj::Maybe<StoredEntry> BareRepository::stored(const ObjectId& id) {
  StoredEntry entry;
  auto loose = loose_.find(id);
  if (loose != loose_.end()) {
    auto deflated = std::make_shared<kj::Array<const kj::byte>>(
        Deflater().deflate(bytesOf(loose->second.data)));
    entry.type = loose->second.type;
    entry.bytes = loose->second.data.size();
    entry.deflated = *deflated;
    entry.keepAlive = std::move(deflated);
    return entry;
  }
  Place place;
  if (!find(id, place)) return nullptr;
  PackEntryHeader header;
  entry.deflated = place.pack->entry(place.offset, header);
  entry.bytes = header.bytes;
  entry.type = objectTypeOf(header.type);
  if (isDelta(header.type)) {
    entry.form = StoredEntry::Form::kDelta;
    entry.base = header.type == PackEntryType::kRefDelta
                     ? header.base
                     : place.pack->byOffset.at(place.offset - header.baseDistance);
  }
  return entry;
}

std::vector<PackView> BareRepository::packs() {
  std::vector<PackView> result;
  for (auto& pack : packs_) {
    PackView view;
    view.bytes = bytesOf(pack->bytes);
    view.index = bytesOf(pack->index);
    view.objectCount = pack->count;
    result.push_back(view);
  }
  return result;
}

std::vector<ObjectId> BareRepository::hotObjects() {
  std::vector<ObjectId> result;
  for (auto& [id, loose] : loose_) result.push_back(id);
  return result;
}

}  // namespace packmoor::gitlayer::test
