// module: gitlayer
// The checks of commits, trees, tags and git's own files on arbitrary bytes; the first byte gives the type.
#include "gitlayer/object_check.h"
#include "special_files.h"

using namespace packmoor::gitlayer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  auto copy = kj::heapArray<kj::byte>(data + 1, size - 1);
  std::vector<ObjectLink> links;
  auto type = static_cast<ObjectType>(data[0] % 5);
  const char* problem = checkObject(type, copy, links);
  // What is well formed names what it must.
  if (problem == nullptr && (type == ObjectType::kCommit || type == ObjectType::kTag) &&
      links.empty()) {
    __builtin_trap();
  }
  committerSeconds(copy);
  checkSpecialFile(kGitmodules | kGitattributes, ObjectType::kBlob, copy);
  specialFilesNamed({reinterpret_cast<const char*>(copy.begin()), copy.size()});
  return 0;
}
