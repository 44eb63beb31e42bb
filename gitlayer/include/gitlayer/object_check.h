// What a received object must look like, and which objects it names.
//
// Why: an object is checked once, when it is pushed; whatever reads it later may rely on its
// form. Connectivity needs the names in it, so that one pass gives both.
//
// The checks are those that `git index-pack --strict` makes of commits, trees and tags; what git
// fsck merely notes ("info") is taken. What is written in .gitmodules and .gitattributes is for the
// caller to check when all objects are there (ObjectLink::special). The words of a problem are fsck's:
// "<message id>: <text>".
// Any bytes may be given. Thread-safe; allocates only in `links`.
#pragma once

#include "gitlayer/object_id.h"

#include <kj/array.h>

#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

// Another object that an object names. Submodule commits are not among them.
struct ObjectLink {
  ObjectId id;
  ObjectType type = ObjectType::kNone;
  uint8_t special = 0;   // SpecialFile bits: what the object is to git, by its name in a tree
};

enum SpecialFile : uint8_t { kGitmodules = 1, kGitattributes = 2 };

// Adds what `data` names to `links`. nullptr: well formed; else what is wrong, a literal.
// A commit names its tree first, then its parents in order.
const char* checkObject(ObjectType type, kj::ArrayPtr<const kj::byte> data,
                        std::vector<ObjectLink>& links);

// The seconds since 1970 in a commit's committer line; 0 when there are none.
int64_t committerSeconds(kj::ArrayPtr<const kj::byte> commit);

// "commit", "tree", "blob" or "tag"; anything else is kNone.
ObjectType objectTypeNamed(std::string_view name);

}  // namespace packmoor::gitlayer
