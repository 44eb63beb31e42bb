// What fetching clients may see of a repository some of whose refs are hidden (uploadpack.hideRefs).
#pragma once

#include "gitlayer/repository.h"

namespace packmoor::gitlayer {

// The view without the refs that its settings hide, and nothing of it is known to be reached by what is
// left: so an object is given only to whom a visible ref gives it. The view itself where nothing is hidden.
kj::Own<RepositoryView> visibleView(kj::Own<RepositoryView> view);

}  // namespace packmoor::gitlayer
