// What the two libgit2 backends of one repository share.
#pragma once

#include "gitlayer/git_node.h"

#include <kj/exception.h>

#include <map>
#include <optional>
#include <string>

struct git_odb_backend;
struct git_refdb_backend;

namespace packmoor::gitlayer {

struct Libgit2State {
  RepositoryView& view;
  bool writable = false;
  struct Written {
    ObjectType type = ObjectType::kNone;
    kj::Array<const kj::byte> data;  // inflated
  };
  std::map<ObjectId, Written> objects;                          // written here
  std::map<std::string, std::optional<ObjectId>, std::less<>> refs;  // changed here; null: deleted

  std::optional<ObjectId> ref(std::string_view name);
};

// They belong to libgit2 once they are given to it; the state must outlive them.
git_odb_backend* makeOdbBackend(Libgit2State& state);
git_refdb_backend* makeRefdbBackend(Libgit2State& state);

// Runs what a callback of libgit2 does: a thrown exception becomes libgit2's error and -1.
// `errorClass` is a git_error_t.
int guarded(int errorClass, kj::FunctionParam<int()> action) noexcept;
// Sets libgit2's error and gives `code`.
int fail(int errorClass, int code, const std::string& message) noexcept;

}  // namespace packmoor::gitlayer
