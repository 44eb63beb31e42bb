// Paths below a disk's root, as disk.h defines them. Private to kernelio.
#pragma once

#include <kj/string.h>

namespace packmoor::kernelio {

// A broken path is a bug of the caller: PACKMOOR_CHECK.
void checkPath(kj::StringPtr path);
// Like checkPath, but the empty path, the root folder itself, is allowed.
void checkFolderPath(kj::StringPtr path);

// "a/b/c" gives "a/b"; "c" gives "".
kj::String folderOf(kj::StringPtr path);
// "a/b/c" gives "c".
kj::StringPtr nameOf(kj::StringPtr path);

}  // namespace packmoor::kernelio
