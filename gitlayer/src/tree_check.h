// The form of trees, for checkObject(): entries, their order, and names that would do harm when
// checked out on some system.
//
// As git fsck: on HFS+ some code points do not count in names, on NTFS a name may end in spaces and
// periods or go on as a stream, and has a short form; '.git' is refused however it is spelled.
#pragma once

#include "gitlayer/object_check.h"

namespace packmoor::gitlayer {

// As checkObject().
const char* checkTree(kj::ArrayPtr<const kj::byte> data, std::vector<ObjectLink>& links);

// Whether some file system takes `name`, or what follows a '\' in it, for ".git".
bool namesDotGit(std::string_view name);

}  // namespace packmoor::gitlayer
