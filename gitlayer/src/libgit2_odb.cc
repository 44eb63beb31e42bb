// The object backend that libgit2 reads a view through.
#include "libgit2_state.h"

#include "kernelio/check.h"

#include <kj/debug.h>

#include <git2/errors.h>
#include <git2/odb_backend.h>
#include <git2/sys/odb_backend.h>

#include <algorithm>
#include <cstring>
#include <functional>

namespace packmoor::gitlayer {

namespace {

struct OdbBackend final : git_odb_backend {
  explicit OdbBackend(Libgit2State& state) : git_odb_backend(), state(state) {}
  Libgit2State& state;
};

Libgit2State& stateOf(git_odb_backend* backend) {
  return static_cast<OdbBackend*>(backend)->state;
}
ObjectId oidOf(const git_oid* id) { return ObjectId::fromBytes(id->id); }
void put(git_oid* out, const ObjectId& id) { std::memcpy(out->id, id.bytes.data(), kOidBytes); }

int notFound(const git_oid* id) {
  return fail(GIT_ERROR_ODB, GIT_ENOTFOUND,
              kj::str("object ", oidOf(id), " is not in the repository").cStr());
}

// Gives the bytes to libgit2, which frees them.
int handOver(git_odb_backend* backend, ObjectType type, kj::ArrayPtr<const kj::byte> data,
             void** out, size_t* size, git_object_t* outType) {
  // libgit2's own backends end what they read with a zero byte, and its users count on it.
  auto* copy = static_cast<kj::byte*>(git_odb_backend_data_alloc(backend, data.size() + 1));
  if (copy == nullptr) return -1;  // libgit2 has set its error
  std::memcpy(copy, data.begin(), data.size());
  copy[data.size()] = 0;
  *out = copy;
  *size = data.size();
  *outType = static_cast<git_object_t>(type);
  return 0;
}

int read(void** out, size_t* size, git_object_t* type, git_odb_backend* backend,
         const git_oid* id) noexcept {
  return guarded(GIT_ERROR_ODB, [&]() {
    Libgit2State& state = stateOf(backend);
    auto written = state.objects.find(oidOf(id));
    if (written != state.objects.end()) {
      return handOver(backend, written->second.type, written->second.data, out, size, type);
    }
    auto found = state.view.objects().read(oidOf(id));
    KJ_IF_MAYBE(object, found) {
      return handOver(backend, object->type, object->data, out, size, type);
    }
    return notFound(id);
  });
}

int readHeader(size_t* size, git_object_t* type, git_odb_backend* backend,
               const git_oid* id) noexcept {
  return guarded(GIT_ERROR_ODB, [&]() {
    Libgit2State& state = stateOf(backend);
    auto written = state.objects.find(oidOf(id));
    if (written != state.objects.end()) {
      *size = written->second.data.size();
      *type = static_cast<git_object_t>(written->second.type);
      return 0;
    }
    auto found = state.view.objects().header(oidOf(id));
    KJ_IF_MAYBE(header, found) {
      *size = header->bytes;
      *type = static_cast<git_object_t>(header->type);
      return 0;
    }
    return notFound(id);
  });
}

int exists(git_odb_backend* backend, const git_oid* id) noexcept {
  return guarded(GIT_ERROR_ODB, [&]() {
           Libgit2State& state = stateOf(backend);
           return state.objects.count(oidOf(id)) > 0 || state.view.objects().exists(oidOf(id))
                      ? 1
                      : 0;
         }) == 1
             ? 1
             : 0;
}

// Places in a version 2 index (pack_index.h has the layout).
constexpr uint64_t kFanoutAt = 8, kNamesAt = kFanoutAt + 256 * 4;

uint32_t fanout(const PackView& pack, size_t first) {
  pack.needIndex(kFanoutAt, 256 * 4);
  uint32_t count;
  std::memcpy(&count, pack.index.begin() + kFanoutAt + first * 4, sizeof count);
  return __builtin_bswap32(count);
}

// Calls back with each name in the repository that is in [first, last], some perhaps twice, until
// it gives something else than 0, and gives that.
int forEachName(Libgit2State& state, const ObjectId& first, const ObjectId& last,
                const std::function<int(const ObjectId&)>& each) {
  for (auto it = state.objects.lower_bound(first);
       it != state.objects.end() && it->first <= last; ++it) {
    if (int result = each(it->first)) return result;
  }
  for (const auto& id : state.view.objects().hotObjects()) {
    if (id < first || last < id) continue;
    if (int result = each(id)) return result;
  }
  for (const auto& pack : state.view.objects().packs()) {
    const uint32_t begin = first.bytes[0] == 0 ? 0 : fanout(pack, first.bytes[0] - 1u);
    const uint32_t end = fanout(pack, last.bytes[0]);
    pack.needIndex(kNamesAt + uint64_t{begin} * kOidBytes, uint64_t{end - begin} * kOidBytes);
    for (uint32_t i = begin; i < end; ++i) {
      const auto id = ObjectId::fromBytes(pack.index.begin() + kNamesAt + uint64_t{i} * kOidBytes);
      if (id < first || last < id) continue;
      if (int result = each(id)) return result;
    }
  }
  return 0;
}

// The one object whose name begins with `digits` hex digits of `prefix`.
int findPrefix(Libgit2State& state, const git_oid* prefix, size_t digits, ObjectId& out) {
  ObjectId first = oidOf(prefix), last;
  last.bytes.fill(0xff);
  for (size_t i = 0; i < kOidHexChars; ++i) {
    const uint8_t mask = i % 2 == 0 ? 0xf0 : 0x0f;
    auto& low = first.bytes[i / 2];
    auto& high = last.bytes[i / 2];
    if (i < digits) {
      high = static_cast<uint8_t>((high & ~mask) | (low & mask));
    } else {
      low = static_cast<uint8_t>(low & ~mask);
    }
  }
  std::optional<ObjectId> found;
  const int result = forEachName(state, first, last, [&](const ObjectId& id) {
    if (found.has_value() && *found != id) return static_cast<int>(GIT_EAMBIGUOUS);
    found = id;
    return 0;
  });
  if (result != 0) return fail(GIT_ERROR_ODB, result, "more than one object has this prefix");
  if (!found.has_value()) {
    return fail(GIT_ERROR_ODB, GIT_ENOTFOUND, "no object has this prefix");
  }
  out = *found;
  return 0;
}

int readPrefix(git_oid* full, void** out, size_t* size, git_object_t* type,
               git_odb_backend* backend, const git_oid* prefix, size_t digits) noexcept {
  return guarded(GIT_ERROR_ODB, [&]() {
    ObjectId id;
    if (int result = findPrefix(stateOf(backend), prefix, digits, id)) return result;
    put(full, id);
    return read(out, size, type, backend, full);
  });
}

int existsPrefix(git_oid* full, git_odb_backend* backend, const git_oid* prefix,
                 size_t digits) noexcept {
  return guarded(GIT_ERROR_ODB, [&]() {
    ObjectId id;
    if (int result = findPrefix(stateOf(backend), prefix, digits, id)) return result;
    put(full, id);
    return 0;
  });
}

int forEach(git_odb_backend* backend, git_odb_foreach_cb callback, void* payload) noexcept {
  return guarded(GIT_ERROR_ODB, [&]() {
    ObjectId first, last;
    last.bytes.fill(0xff);
    return forEachName(stateOf(backend), first, last, [&](const ObjectId& id) {
      git_oid oid;
      put(&oid, id);
      return callback(&oid, payload);
    });
  });
}

int write(git_odb_backend* backend, const git_oid* id, const void* data, size_t size,
          git_object_t type) noexcept {
  return guarded(GIT_ERROR_ODB, [&]() {
    Libgit2State& state = stateOf(backend);
    if (!state.writable) return fail(GIT_ERROR_ODB, -1, "the repository is open for reading only");
    Libgit2State::Written written;
    written.type = static_cast<ObjectType>(type);
    written.data = kj::heapArray(static_cast<const kj::byte*>(data), size);
    state.objects.emplace(oidOf(id), std::move(written));
    return 0;
  });
}

int freshen(git_odb_backend* backend, const git_oid* id) noexcept {
  return exists(backend, id) == 1 ? 0 : GIT_ENOTFOUND;
}

void freeBackend(git_odb_backend* backend) noexcept {
  std::unique_ptr<OdbBackend> owned(static_cast<OdbBackend*>(backend));
}

}  // namespace

git_odb_backend* makeOdbBackend(Libgit2State& state) {
  auto backend = std::make_unique<OdbBackend>(state);
  PACKMOOR_CHECK(git_odb_init_backend(backend.get(), GIT_ODB_BACKEND_VERSION) == 0,
                 "libgit2 has another version of object backends");
  backend->read = read;
  backend->read_prefix = readPrefix;
  backend->read_header = readHeader;
  backend->write = write;
  backend->exists = exists;
  backend->exists_prefix = existsPrefix;
  backend->foreach = forEach;
  backend->freshen = freshen;
  backend->free = freeBackend;
  return backend.release();
}

}  // namespace packmoor::gitlayer
