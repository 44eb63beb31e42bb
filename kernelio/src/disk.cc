#include "kernelio/disk.h"

#include "kernelio/check.h"
#include "kernelio/co.h"
#include "path.h"

namespace packmoor::kernelio {

void checkFolderPath(kj::StringPtr path) {
  if (path.size() > 0) checkPath(path);
}

void checkPath(kj::StringPtr path) {
  size_t start = 0;
  while (true) {
    size_t end = start;
    while (end < path.size() && path[end] != '/') {
      PACKMOOR_CHECK(path[end] != '\0', "NUL in a disk path");
      ++end;
    }
    auto part = path.slice(start, end);
    PACKMOOR_CHECK(part.size() > 0, "empty part in a disk path: ", path);
    PACKMOOR_CHECK(part != kj::StringPtr(".").asArray(), "'.' in a disk path: ", path);
    PACKMOOR_CHECK(part != kj::StringPtr("..").asArray(), "'..' in a disk path: ", path);
    if (end == path.size()) return;
    start = end + 1;
  }
}

kj::String folderOf(kj::StringPtr path) {
  KJ_IF_MAYBE (slash, path.findLast('/')) { return kj::heapString(path.slice(0, *slash)); }
  return kj::String();
}

kj::StringPtr nameOf(kj::StringPtr path) {
  KJ_IF_MAYBE (slash, path.findLast('/')) { return path.slice(*slash + 1); }
  return path;
}

namespace {

Co<void> replaceFileBody(Disk& disk, kj::String path, IoBuffer content) {
  auto temporary = kj::str(path, ".new");
  {
    // What an interrupted earlier attempt left is of no use.
    co_await disk.remove(temporary);
    auto file = co_await disk.open(temporary, {.write = true, .create = true, .exclusive = true});
    if (content.size() > 0) {
      co_await file->write(0, kj::mv(content), WriteMode::kDurable);
    } else {
      co_await file->sync();
    }
  }
  co_await disk.rename(temporary, path);
  co_await disk.syncDirectory(folderOf(path));
}

Co<kj::Maybe<kj::Array<kj::byte>>> readWholeFileBody(Disk& disk, kj::String path,
                                                     size_t bytesMax) {
  bool there = co_await disk.exists(path);
  if (!there) co_return nullptr;
  auto file = co_await disk.open(path, {});
  uint64_t size = file->size();
  KJ_REQUIRE(size <= bytesMax, "the file is larger than it may be", path, size, bytesMax);
  IoBuffer data = co_await file->read(0, size);
  co_return kj::heapArray<kj::byte>(data.bytes());
}

}  // namespace

kj::Promise<void> replaceFile(Disk& disk, kj::StringPtr path,
                              kj::ArrayPtr<const kj::byte> content) {
  return replaceFileBody(disk, kj::heapString(path), IoBuffer::copyOf(content));
}

kj::Promise<kj::Maybe<kj::Array<kj::byte>>> readWholeFile(Disk& disk, kj::StringPtr path,
                                                          size_t bytesMax) {
  return readWholeFileBody(disk, kj::heapString(path), bytesMax);
}

}  // namespace packmoor::kernelio
