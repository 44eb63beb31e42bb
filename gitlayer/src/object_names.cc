#include "object_names.h"

#include "object_scan.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

std::optional<ObjectId> entryOf(ObjectSource& source, const ObjectId& tree,
                                std::string_view name) {
  KJ_IF_MAYBE(object, source.read(tree)) {
    if (object->type != ObjectType::kTree) return std::nullopt;
    TreeScan entries(object->data);
    while (entries.next()) {
      if (entries.entry().name == name) return entries.entry().oid();
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<Ref> refsOfShortName(RepositoryView& view, std::string_view name) {
  std::vector<Ref> found;
  if (name.size() > kRefNameBytesMax) return found;
  if (name == "HEAD") {
    if (auto ref = view.ref(view.info().head)) found.push_back(std::move(*ref));
  }
  for (const char* prefix : {"", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"}) {
    if (auto ref = view.ref(prefix + std::string(name))) found.push_back(std::move(*ref));
  }
  return found;
}

ObjectId withoutTags(ObjectSource& source, const ObjectId& start, ObjectType& type) {
  ObjectId id = start;
  for (;;) {
    auto header = source.header(id);
    type = KJ_REQUIRE_NONNULL(header, "object is missing from the repository", id).type;
    if (type != ObjectType::kTag) return id;
    auto object = source.read(id);
    auto& tag = KJ_REQUIRE_NONNULL(object, "tag is missing from the repository", id);
    ObjectType targetType;
    KJ_REQUIRE(scanTag(tag.data, id, targetType), "tag is damaged", start);
  }
}

std::optional<ObjectId> objectNamed(RepositoryView& view, std::string_view name) {
  size_t colon = name.find(':');
  std::string_view base = name.substr(0, colon);
  ObjectSource& source = view.objects();
  ObjectId id;
  if (!ObjectId::parseHex(base, id)) {
    auto refs = refsOfShortName(view, base);
    if (refs.empty()) return std::nullopt;
    id = refs[0].id;
  }
  if (!source.exists(id)) return std::nullopt;
  if (colon == name.npos) return id;
  ObjectType type;
  id = withoutTags(source, id, type);
  if (type == ObjectType::kCommit) {
    auto object = source.read(id);
    CommitScan commit;
    KJ_REQUIRE(commit.begin(KJ_REQUIRE_NONNULL(object, "commit is missing", id).data),
               "commit is damaged", id);
    id = commit.tree();
  }
  for (std::string_view path = name.substr(colon + 1); !path.empty();) {
    size_t end = std::min(path.find('/'), path.size());
    auto below = entryOf(source, id, path.substr(0, end));
    if (!below) return std::nullopt;
    id = *below;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return id;
}

}  // namespace packmoor::gitlayer
