#include "durable_folders.h"

#include <kernelio/co.h>

namespace packmoor::gitlayer {

namespace {

Co<void> make(kernelio::Disk& disk, std::string path) {
  co_await disk.makeFolders(path);
  for (size_t slash = path.rfind('/');; slash = path.rfind('/', slash - 1)) {
    const bool top = slash == std::string::npos;
    const std::string parent = top ? std::string() : path.substr(0, slash);
    co_await disk.syncDirectory(parent);
    if (top) break;
  }
}

}  // namespace

kj::Promise<void> makeDurableFolders(kernelio::Disk& disk, std::string path) {
  return make(disk, std::move(path));
}

}  // namespace packmoor::gitlayer
