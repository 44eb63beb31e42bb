// Files that git itself reads out of a work tree, and what must not be in them.
//
// .gitmodules names submodules whose names and URLs git uses on the client's side; .gitattributes is
// held in memory. What git fsck calls an error in them is refused here, so that no clone is harmed
// by what was pushed. A file's content is looked at under whatever spelling of the name some file
// system takes for it.
#pragma once

#include "gitlayer/object_check.h"

namespace packmoor::gitlayer {

// By the name of a tree's entry that is no symbolic link; a bit set of SpecialFile.
uint8_t specialFilesNamed(std::string_view name);

// nullptr: nothing is wrong with it; else a literal, in fsck's words.
const char* checkSpecialFile(uint8_t special, ObjectType type, kj::ArrayPtr<const kj::byte> data);

}  // namespace packmoor::gitlayer
