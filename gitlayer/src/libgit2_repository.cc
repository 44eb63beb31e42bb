#include "gitlayer/libgit2_repository.h"

#include "gitlayer/object_check.h"
#include "gitlayer/zlib_codec.h"
#include "libgit2_init.h"
#include "libgit2_state.h"

#include <kj/debug.h>

#include <git2/config.h>
#include <git2/errors.h>
#include <git2/graph.h>
#include <git2/odb.h>
#include <git2/refdb.h>
#include <git2/repository.h>
#include <git2/sys/odb_backend.h>
#include <git2/sys/refdb_backend.h>
#include <git2/sys/repository.h>

#include <cstring>
#include <memory>

namespace packmoor::gitlayer {

namespace {

// Tags that point to tags that point to tags; git itself has no bound.
constexpr size_t kTagDepthMax = 100;
// The only object backend there is.
constexpr int kBackendPriority = 1;

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* handle) const noexcept {
    Free(handle);
  }
};
using OdbHandle = std::unique_ptr<git_odb, Freed<git_odb_free>>;
using RefdbHandle = std::unique_ptr<git_refdb, Freed<git_refdb_free>>;
using ConfigHandle = std::unique_ptr<git_config, Freed<git_config_free>>;
using RepositoryHandle = std::unique_ptr<git_repository, Freed<git_repository_free>>;

void require(int result, const char* doing) {
  if (result >= 0) return;
  const git_error* error = git_error_last();
  KJ_FAIL_REQUIRE("libgit2 fails while a repository is opened", doing,
                  error == nullptr || error->message == nullptr ? "" : error->message);
}

class Libgit2RepositoryImpl final : public Libgit2Repository {
 public:
  Libgit2RepositoryImpl(RepositoryView& view, bool writable) : state_{view, writable, {}, {}} {
    initLibgit2();
    git_odb* odb = nullptr;
    require(git_odb_new(&odb), "odb");
    OdbHandle ownedOdb(odb);
    require(git_odb_add_backend(odb, makeOdbBackend(state_), kBackendPriority), "odb backend");
    git_repository* repository = nullptr;
    require(git_repository_wrap_odb(&repository, odb), "repository");
    repository_.reset(repository);
    git_config* config = nullptr;
    require(git_config_new(&config), "config");
    ConfigHandle ownedConfig(config);
    require(git_repository_set_config(repository, config), "config");
    git_refdb* refdb = nullptr;
    require(git_refdb_new(&refdb, repository), "refdb");
    RefdbHandle ownedRefdb(refdb);
    require(git_refdb_set_backend(refdb, makeRefdbBackend(state_)), "refdb backend");
    require(git_repository_set_refdb(repository, refdb), "refdb");
  }

  git_repository* get() override { return repository_.get(); }

  PushTransaction collected() override {
    PushTransaction transaction;
    transaction.verifiedAt = state_.view.index();
    Deflater deflater;
    for (const auto& [id, written] : state_.objects) {
      NewObject object;
      object.id = id;
      object.type = written.type;
      object.bytes = written.data.size();
      object.deflated = deflater.deflate(written.data);
      transaction.objects.push_back(std::move(object));
    }
    for (const auto& [name, id] : state_.refs) {
      const auto before = state_.view.ref(name);
      RefUpdate update;
      update.name = name;
      if (before.has_value()) update.oldId = before->id;
      if (id.has_value()) update.newId = *id;
      if (update.oldId == update.newId) continue;
      update.peeled = peel(update.newId);
      update.forward = isForward(update.oldId, update.newId);
      transaction.updates.push_back(std::move(update));
    }
    return transaction;
  }

 private:
  // What an annotated tag finally points at; zero when `id` names something else.
  ObjectId peel(ObjectId id) {
    if (id.isZero()) return {};
    for (size_t depth = 0; depth < kTagDepthMax; ++depth) {
      std::vector<ObjectLink> links;
      auto written = state_.objects.find(id);
      if (written != state_.objects.end()) {
        if (written->second.type != ObjectType::kTag) return depth == 0 ? ObjectId() : id;
        checkObject(ObjectType::kTag, written->second.data, links);
      } else {
        auto found = state_.view.objects().read(id);
        auto& object = KJ_REQUIRE_NONNULL(found, "a ref names an object that is not there", id);
        if (object.type != ObjectType::kTag) return depth == 0 ? ObjectId() : id;
        checkObject(ObjectType::kTag, object.data, links);
      }
      KJ_REQUIRE(!links.empty(), "a tag names no object", id);
      id = links[0].id;
    }
    KJ_FAIL_REQUIRE("tags point at tags without end", id);
  }

  bool isForward(const ObjectId& from, const ObjectId& to) {
    if (from.isZero()) return true;
    if (to.isZero()) return false;
    git_oid ancestor, commit;
    std::memcpy(ancestor.id, from.bytes.data(), kOidBytes);
    std::memcpy(commit.id, to.bytes.data(), kOidBytes);
    return git_graph_descendant_of(repository_.get(), &commit, &ancestor) == 1;
  }

  Libgit2State state_;
  RepositoryHandle repository_;
};

}  // namespace

int fail(int errorClass, int code, const std::string& message) noexcept {
  git_error_set_str(errorClass, message.c_str());
  return code;
}

int guarded(int errorClass, kj::FunctionParam<int()> action) noexcept {
  int result = -1;
  auto exception = kj::runCatchingExceptions([&]() { result = action(); });
  KJ_IF_MAYBE(e, exception) {
    git_error_set_str(errorClass, e->getDescription().cStr());
    return -1;
  }
  return result;
}

kj::Own<Libgit2Repository> Libgit2Repository::open(RepositoryView& view) {
  return kj::heap<Libgit2RepositoryImpl>(view, false);
}

kj::Own<Libgit2Repository> Libgit2Repository::openForPush(RepositoryView& view) {
  return kj::heap<Libgit2RepositoryImpl>(view, true);
}

}  // namespace packmoor::gitlayer
