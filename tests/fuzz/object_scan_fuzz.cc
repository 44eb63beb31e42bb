// module: gitlayer
// Commits, trees and tags from arbitrary bytes, as walks read them: nothing outside the bytes is
// read, and a tree that is read to its end is made of its entries.
#include "object_scan.h"

#include <kernelio/check.h>

#include <string>

using namespace packmoor::gitlayer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto bytes = kj::arrayPtr(data, size);
  CommitScan commit;
  if (commit.begin(bytes)) {
    ObjectId parent;
    size_t count = 0;
    while (commit.nextParent(parent)) ++count;
    PACKMOOR_CHECK(count * (kOidHexChars + 8) <= size);
    PACKMOOR_CHECK(commit.committerDate() >= 0);
  }
  ObjectId target;
  ObjectType type = ObjectType::kNone;
  if (scanTag(bytes, target, type)) PACKMOOR_CHECK(type != ObjectType::kNone);

  TreeScan tree(bytes);
  size_t total = 0;
  TreeScan::Entry last;
  while (tree.next()) {
    const TreeScan::Entry& entry = tree.entry();
    PACKMOOR_CHECK(!entry.name.empty() && entry.name.find('\0') == entry.name.npos);
    total += 3 + entry.name.size() + kOidBytes;
    if (last.id != nullptr) {
      int order = TreeScan::compare(last, entry);
      PACKMOOR_CHECK((order < 0) == (TreeScan::compare(entry, last) > 0));
    }
    last = entry;
  }
  PACKMOOR_CHECK(total <= size);
  return 0;
}
