// What an object names, of objects that need not be well formed.
//
// Why: a repository may take what git fsck refuses (transfer.fsckObjects=false), as old histories have it.
// Connectivity still needs every name in it. Thread-safe; any bytes may be given.
#pragma once

#include "gitlayer/object_check.h"

namespace packmoor::gitlayer {

// Adds what `data` names to `links`, in checkObject()'s order and without its marks of special files. False:
// that much of it cannot be read, which no repository takes.
bool scanLinks(ObjectType type, kj::ArrayPtr<const kj::byte> data, std::vector<ObjectLink>& links);

// As checkObject(); not `strict`, only what keeps the names from being read is a problem.
const char* checkObject(ObjectType type, kj::ArrayPtr<const kj::byte> data,
                        std::vector<ObjectLink>& links, bool strict);

}  // namespace packmoor::gitlayer
