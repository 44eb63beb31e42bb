// The ref backend that libgit2 reads a view through.
#include "libgit2_state.h"

#include "kernelio/check.h"

#include <kj/debug.h>

#include <git2/errors.h>
#include <git2/refs.h>
#include <git2/sys/refdb_backend.h>
#include <git2/sys/refs.h>

#include <cstring>
#include <deque>
#include <fnmatch.h>
#include <memory>

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kHead = "HEAD";
constexpr std::string_view kRefs = "refs/";
// Refs that an iterator reads at a time.
constexpr size_t kRefsPerSlice = 1000;

struct RefdbBackend final : git_refdb_backend {
  explicit RefdbBackend(Libgit2State& state) : git_refdb_backend(), state(state) {}
  Libgit2State& state;
};

Libgit2State& stateOf(git_refdb_backend* backend) {
  return static_cast<RefdbBackend*>(backend)->state;
}

git_oid oidOf(const ObjectId& id) {
  git_oid oid;
  std::memcpy(oid.id, id.bytes.data(), kOidBytes);
  return oid;
}

int noSuchRef(const std::string& name) {
  return fail(GIT_ERROR_REFERENCE, GIT_ENOTFOUND, "reference '" + name + "' not found");
}

git_reference* direct(const Ref& ref) {
  const git_oid id = oidOf(ref.id), peeled = oidOf(ref.peeled);
  return git_reference__alloc(ref.name.c_str(), &id, ref.peeled.isZero() ? nullptr : &peeled);
}

std::optional<Ref> find(Libgit2State& state, const std::string& name) {
  auto changed = state.refs.find(name);
  if (changed == state.refs.end()) return state.view.ref(name);
  if (!changed->second.has_value()) return std::nullopt;
  Ref ref;
  ref.name = name;
  ref.id = *changed->second;
  return ref;
}

int lookUp(git_reference** out, git_refdb_backend* backend, const char* name) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    *out = nullptr;
    Libgit2State& state = stateOf(backend);
    if (name == kHead) {
      *out = git_reference__alloc_symbolic(name, state.view.info().head.c_str());
    } else {
      auto ref = find(state, name);
      if (!ref.has_value()) return noSuchRef(name);
      *out = direct(*ref);
    }
    return *out == nullptr ? -1 : 0;
  });
}

int exists(int* out, git_refdb_backend* backend, const char* name) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    *out = name == kHead || find(stateOf(backend), name).has_value() ? 1 : 0;
    return 0;
  });
}

// Reads the view in slices, merged with what was changed here.
struct Iterator final : git_reference_iterator {
  Iterator(Libgit2State& state, const char* pattern)
      : git_reference_iterator(), state(state), glob(pattern == nullptr ? "" : pattern) {}

  std::optional<Ref> advance() {
    for (;;) {
      while (slice.empty() && !ended) fill();
      if (slice.empty()) return std::nullopt;
      Ref ref = std::move(slice.front());
      slice.pop_front();
      if (glob.empty() || fnmatch(glob.c_str(), ref.name.c_str(), 0) == 0) return ref;
    }
  }

  Libgit2State& state;
  std::string glob, after;
  std::deque<Ref> slice;
  bool ended = false;
  std::string name;  // what next_name gave last

 private:
  void fill() {
    std::map<std::string, Ref> merged;
    size_t read = 0;
    std::string last;
    state.view.forEachRef(kRefs, after, [&](const Ref& ref) {
      last = ref.name;
      if (state.refs.count(ref.name) == 0) merged.emplace(ref.name, ref);
      return ++read < kRefsPerSlice;
    });
    ended = read < kRefsPerSlice;
    for (auto change = state.refs.upper_bound(after);
         change != state.refs.end() && (ended || change->first <= last); ++change) {
      if (!change->second.has_value()) continue;
      Ref ref;
      ref.name = change->first;
      ref.id = *change->second;
      merged.emplace(ref.name, ref);
    }
    for (auto& [name, ref] : merged) slice.push_back(std::move(ref));
    after = last;
  }
};

int next(git_reference** out, git_reference_iterator* iterator) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    auto ref = static_cast<Iterator*>(iterator)->advance();
    if (!ref.has_value()) return static_cast<int>(GIT_ITEROVER);
    *out = direct(*ref);
    return *out == nullptr ? -1 : 0;
  });
}

int nextName(const char** out, git_reference_iterator* iterator) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    auto* self = static_cast<Iterator*>(iterator);
    auto ref = self->advance();
    if (!ref.has_value()) return static_cast<int>(GIT_ITEROVER);
    self->name = std::move(ref->name);
    *out = self->name.c_str();
    return 0;
  });
}

void freeIterator(git_reference_iterator* iterator) noexcept {
  std::unique_ptr<Iterator> owned(static_cast<Iterator*>(iterator));
}

int makeIterator(git_reference_iterator** out, git_refdb_backend* backend,
                 const char* glob) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    auto iterator = std::make_unique<Iterator>(stateOf(backend), glob);
    iterator->next = next;
    iterator->next_name = nextName;
    iterator->free = freeIterator;
    *out = iterator.release();
    return 0;
  });
}

int readOnly() {
  return fail(GIT_ERROR_REFERENCE, -1, "the repository is open for reading only");
}

// What libgit2 expects a ref to be before it is changed.
int checkBefore(Libgit2State& state, const std::string& name, const git_oid* old) {
  if (old == nullptr) return 0;
  const auto now = state.ref(name);
  const ObjectId expected = ObjectId::fromBytes(old->id);
  if (now.value_or(ObjectId()) == expected) return 0;
  return fail(GIT_ERROR_REFERENCE, GIT_EMODIFIED, "old reference value does not match");
}

int write(git_refdb_backend* backend, const git_reference* ref, int force, const git_signature*,
          const char*, const git_oid* old, const char*) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    Libgit2State& state = stateOf(backend);
    if (!state.writable) return readOnly();
    const std::string name = git_reference_name(ref);
    const git_oid* target = git_reference_target(ref);
    if (target == nullptr || !isValidRefName(name)) {
      return fail(GIT_ERROR_REFERENCE, -1, "only refs below refs/ can be written, not " + name);
    }
    if (int result = checkBefore(state, name, old)) return result;
    if (force == 0 && old == nullptr && state.ref(name).has_value()) {
      return fail(GIT_ERROR_REFERENCE, GIT_EEXISTS, "reference '" + name + "' exists");
    }
    state.refs[name] = ObjectId::fromBytes(target->id);
    return 0;
  });
}

int remove(git_refdb_backend* backend, const char* name, const git_oid* old,
           const char*) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    Libgit2State& state = stateOf(backend);
    if (!state.writable) return readOnly();
    if (!state.ref(name).has_value()) return noSuchRef(name);
    if (int result = checkBefore(state, name, old)) return result;
    state.refs[name] = std::nullopt;
    return 0;
  });
}

int rename(git_reference** out, git_refdb_backend* backend, const char* from, const char* to,
           int force, const git_signature*, const char*) noexcept {
  return guarded(GIT_ERROR_REFERENCE, [&]() {
    *out = nullptr;
    Libgit2State& state = stateOf(backend);
    if (!state.writable) return readOnly();
    auto ref = find(state, from);
    if (!ref.has_value()) return noSuchRef(from);
    if (!isValidRefName(to)) return fail(GIT_ERROR_REFERENCE, GIT_EINVALIDSPEC, "bad ref name");
    if (force == 0 && state.ref(to).has_value()) {
      return fail(GIT_ERROR_REFERENCE, GIT_EEXISTS, std::string("reference '") + to + "' exists");
    }
    state.refs[from] = std::nullopt;
    state.refs[to] = ref->id;
    ref->name = to;
    *out = direct(*ref);
    return *out == nullptr ? -1 : 0;
  });
}

// There are no reflogs here: the state keeps its own.
int hasLog(git_refdb_backend*, const char*) noexcept { return 0; }
int ensureLog(git_refdb_backend*, const char*) noexcept { return 0; }
int readLog(git_reflog**, git_refdb_backend*, const char*) noexcept {
  return fail(GIT_ERROR_REFERENCE, GIT_ENOTFOUND, "this repository has no reflogs for libgit2");
}
int writeLog(git_refdb_backend*, git_reflog*) noexcept { return 0; }
int renameLog(git_refdb_backend*, const char*, const char*) noexcept { return 0; }
int deleteLog(git_refdb_backend*, const char*) noexcept { return 0; }

void freeBackend(git_refdb_backend* backend) noexcept {
  std::unique_ptr<RefdbBackend> owned(static_cast<RefdbBackend*>(backend));
}

}  // namespace

std::optional<ObjectId> Libgit2State::ref(std::string_view name) {
  auto changed = refs.find(name);
  if (changed != refs.end()) return changed->second;
  auto found = view.ref(name);
  if (!found.has_value()) return std::nullopt;
  return found->id;
}

git_refdb_backend* makeRefdbBackend(Libgit2State& state) {
  auto backend = std::make_unique<RefdbBackend>(state);
  PACKMOOR_CHECK(git_refdb_init_backend(backend.get(), GIT_REFDB_BACKEND_VERSION) == 0,
                 "libgit2 has another version of ref backends");
  backend->exists = exists;
  backend->lookup = lookUp;
  backend->iterator = makeIterator;
  backend->write = write;
  backend->rename = rename;
  backend->del = remove;
  backend->has_log = hasLog;
  backend->ensure_log = ensureLog;
  backend->reflog_read = readLog;
  backend->reflog_write = writeLog;
  backend->reflog_rename = renameLog;
  backend->reflog_delete = deleteLog;
  backend->free = freeBackend;
  return backend.release();
}

}  // namespace packmoor::gitlayer
