// Folders that are there after a power cut.
#pragma once

#include <kernelio/disk.h>

#include <string>

namespace packmoor::gitlayer {

// makeFolders, with every name on the way made durable. `path` is copied.
kj::Promise<void> makeDurableFolders(kernelio::Disk& disk, std::string path);

}  // namespace packmoor::gitlayer
