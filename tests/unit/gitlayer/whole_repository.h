// Checks of a repository as a whole: invariant 10, and what connectivity rests on.
#pragma once

#include "gitlayer/object_check.h"
#include "gitlayer/repository.h"
#include "pack_index_view.h"

#include <set>
#include <string>

namespace packmoor::gitlayer::test {

inline std::set<ObjectId> objectsOf(RepositoryView& view) {
  std::set<ObjectId> ids;
  for (const auto& id : view.objects().hotObjects()) ids.insert(id);
  for (const auto& pack : view.objects().packs()) {
    PackIndexView index(pack);
    index.needNames(0, index.size());
    for (uint32_t i = 0; i < index.size(); ++i) ids.insert(index.name(i));
  }
  return ids;
}

// What is wrong: a ref without its object, or an object that names one which is not there (whether a
// ref reaches it or not). Empty: nothing.
inline std::string wholeProblem(RepositoryView& view) {
  const auto ids = objectsOf(view);
  std::string problem;
  view.forEachRef("", [&](const Ref& ref) {
    if (ids.count(ref.id) == 0) problem = ref.name + " names an object that is not there";
    return problem.empty();
  });
  for (const auto& id : ids) {
    auto read = view.objects().read(id);
    KJ_IF_MAYBE(object, read) {
      std::vector<ObjectLink> links;
      if (checkObject(object->type, object->data, links) != nullptr) return "a malformed object";
      for (const auto& link : links) {
        if (ids.count(link.id) > 0) continue;
        return kj::str(objectTypeName(object->type).data(), " ", id, " names ", link.id,
                       ", which is not there").cStr();
      }
    } else {
      return kj::str("object ", id, " is listed and cannot be read").cStr();
    }
  }
  return problem;
}

}  // namespace packmoor::gitlayer::test
