// Names of objects as people write them (gitrevisions(7)), as far as requests of clients hold them.
#pragma once

#include "gitlayer/repository.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

// The refs that a short name may mean, the likeliest first: "main" is refs/heads/main and so on.
std::vector<Ref> refsOfShortName(RepositoryView& view, std::string_view name);

// "<40 hex digits or ref>[:<path>]". nullopt: there is no such object.
std::optional<ObjectId> objectNamed(RepositoryView& view, std::string_view name);

// The object behind annotated tags. A missing or damaged one rejects with a sentence.
ObjectId withoutTags(ObjectSource& source, const ObjectId& id, ObjectType& type);

}  // namespace packmoor::gitlayer
