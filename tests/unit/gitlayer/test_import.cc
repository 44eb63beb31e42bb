#include "test_import.h"

#include "gitlayer/object_check.h"
#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"

#include <kj/debug.h>

#include <sstream>

namespace packmoor::gitlayer::test {

namespace {

ObjectId parse(const std::string& hex) {
  ObjectId id;
  KJ_REQUIRE(ObjectId::parseHex(hex, id), hex.c_str());
  return id;
}

std::vector<RefUpdate> refUpdates(RepositoryView& view, packmoor::test::TestGit& git) {
  std::vector<RefUpdate> updates;
  std::istringstream lines(
      git.run({"for-each-ref", "--format=%(refname) %(objectname) %(*objectname)"}));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    RefUpdate update;
    std::string id, peeled;
    words >> update.name >> id >> peeled;
    update.newId = parse(id);
    if (!peeled.empty()) update.peeled = parse(peeled);
    auto before = view.ref(update.name);
    if (before.has_value()) update.oldId = before->id;
    update.forward = true;
    if (update.oldId != update.newId) updates.push_back(update);
  }
  return updates;
}

void push(TestCluster& cluster, const RepositoryInfo& repository, PushTransaction txn) {
  const auto outcome = cluster.push(repository, std::move(txn));
  for (const auto& ref : outcome.refs) KJ_REQUIRE(ref.problem.empty(), ref.problem.c_str());
}

}  // namespace

void importPack(TestCluster& cluster, const RepositoryInfo& repository,
                packmoor::test::TestGit& git, const std::vector<std::string>& revisions) {
  const std::string pack = git.pack(revisions);
  packmoor::test::TempFolder folder;
  packmoor::test::writeFile(folder.path() + "/p.pack", pack);
  git.run({"index-pack", folder.path() + "/p.pack"});
  const std::string index = packmoor::test::readFile(folder.path() + "/p.idx");
  PackExtents extents;
  extents.pack = cluster.seal(bytesOf(pack));
  extents.index = cluster.seal(bytesOf(index));
  extents.packBytes = pack.size();
  KJ_ASSERT(decodePackHeader(bytesOf(pack), extents.objectCount) == Decoded::kDone);
  PushTransaction txn;
  txn.verifiedAt = cluster.view(repository.name)->index();
  txn.pack = extents;
  push(cluster, repository, std::move(txn));
}

void importHot(TestCluster& cluster, const RepositoryInfo& repository,
               packmoor::test::TestGit& git) {
  auto view = cluster.view(repository.name);
  PushTransaction txn;
  txn.verifiedAt = view->index();
  txn.updates = refUpdates(*view, git);
  Deflater deflater;
  std::istringstream lines(git.run({"cat-file", "--batch-all-objects", "--batch-check"}));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hex, type;
    words >> hex >> type;
    if (view->objects().exists(parse(hex))) continue;
    const std::string data = git.run({"cat-file", type, hex});
    NewObject object;
    object.id = parse(hex);
    object.type = objectTypeNamed(type);
    object.bytes = data.size();
    object.deflated = deflater.deflate(bytesOf(data));
    txn.objects.push_back(std::move(object));
  }
  push(cluster, repository, std::move(txn));
}

}  // namespace packmoor::gitlayer::test
