#include "object_links.h"

#include "object_scan.h"

namespace packmoor::gitlayer {

namespace {

bool scanCommit(kj::ArrayPtr<const kj::byte> data, std::vector<ObjectLink>& links) {
  CommitScan commit;
  if (!commit.begin(data)) return false;
  links.push_back({commit.tree(), ObjectType::kTree});
  for (ObjectId parent; commit.nextParent(parent);) links.push_back({parent, ObjectType::kCommit});
  return true;
}

bool scanTree(kj::ArrayPtr<const kj::byte> data, std::vector<ObjectLink>& links) {
  TreeScan tree(data);
  while (tree.next()) {
    const TreeScan::Entry& entry = tree.entry();
    if (entry.isSubmodule()) continue;
    links.push_back({entry.oid(), entry.isTree() ? ObjectType::kTree : ObjectType::kBlob});
  }
  return !tree.bad();
}

}  // namespace

bool scanLinks(ObjectType type, kj::ArrayPtr<const kj::byte> data, std::vector<ObjectLink>& links) {
  switch (type) {
    case ObjectType::kCommit: return scanCommit(data, links);
    case ObjectType::kTree: return scanTree(data, links);
    case ObjectType::kBlob: return true;
    case ObjectType::kTag: {
      ObjectLink target;
      if (!gitlayer::scanTag(data, target.id, target.type)) return false;
      links.push_back(target);
      return true;
    }
    case ObjectType::kNone: break;
  }
  return false;
}

const char* checkObject(ObjectType type, kj::ArrayPtr<const kj::byte> data,
                        std::vector<ObjectLink>& links, bool strict) {
  const size_t before = links.size();
  const char* problem = checkObject(type, data, links);
  if (problem == nullptr || strict) return problem;
  links.resize(before);
  return scanLinks(type, data, links) ? nullptr : problem;
}

}  // namespace packmoor::gitlayer
