// How views are made of state snapshots.
#pragma once

#include "pack_file.h"
#include "state_store.h"
#include "state_tables.h"

#include <kj/memory.h>

namespace packmoor::gitlayer {

class ReachNotes;
class RefBooks;

// `row` is the repository's in `state`, and `packs` are those that the state names. `books` and `notes`: of the
// store that `state` is of; nullptr: none.
kj::Own<RepositoryView> makeRepositoryView(std::shared_ptr<const StateReader> state,
                                           RepositoryRow row,
                                           std::vector<std::shared_ptr<PackFile>> packs,
                                           std::shared_ptr<RefBooks> books,
                                           std::shared_ptr<ReachNotes> notes);

}  // namespace packmoor::gitlayer
