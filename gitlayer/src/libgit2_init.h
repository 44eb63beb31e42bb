// libgit2's global state: started once by whoever needs it first, never shut down.
#pragma once

namespace packmoor::gitlayer {

// Thread-safe; cheap after the first call. Throws when libgit2 cannot start.
void initLibgit2();

}  // namespace packmoor::gitlayer
