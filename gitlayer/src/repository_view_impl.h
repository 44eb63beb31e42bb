// How views are made of state snapshots.
#pragma once

#include "state_store.h"
#include "state_tables.h"

#include <kj/memory.h>

namespace packmoor::gitlayer {

// `row` is the repository's in `state`.
kj::Own<RepositoryView> makeRepositoryView(std::shared_ptr<const StateReader> state,
                                           RepositoryRow row);

}  // namespace packmoor::gitlayer
