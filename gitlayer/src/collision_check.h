// Objects that come once more must be what is stored under their name.
//
// Why: SHA-1 can be made to collide. Attacks of the known kinds are refused when an object is named; one
// of another kind would bring other content under a name that is here already, and which of the two is
// read would be chance. So what is here is compared with what comes, as git index-pack does.
//
// Costs one look-up for an object that is new, and reading one that is here. Thread-safe.
#pragma once

#include "gitlayer/object_source.h"

#include <functional>
#include <string>

namespace packmoor::gitlayer {

// False: the repository has another object of this name.
bool sameAsStored(ObjectSource& stored, const ObjectId& id, ObjectType type,
                  kj::ArrayPtr<const kj::byte> data);

// The same for a blob of `bytes` bytes that is not in memory. `deflated`: gives the next bytes of the zlib
// stream that it is, less than 4 GiB at once; they are valid until the next call.
using DeflatedInput = std::function<kj::ArrayPtr<const kj::byte>()>;
bool sameBlobAsStored(ObjectSource& stored, const ObjectId& id, uint64_t bytes, DeflatedInput deflated);

// Why a push with such an object is refused, in git's words.
std::string collisionFound(const ObjectId& id);

}  // namespace packmoor::gitlayer
