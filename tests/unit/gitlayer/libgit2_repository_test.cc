// Goal: libgit2 sees a view as it would see the repository that git made: history, refs, tags,
// abbreviated names; and what it writes becomes a push. Method: git makes the history, part of it is
// packed in extents and part hot; git's own answers are compared with libgit2's.
#include "gitlayer/libgit2_repository.h"

#include "test_cluster.h"
#include "test_import.h"
#include "test_log.h"

#include <git2.h>
#include <gtest/gtest.h>

#include <sstream>

namespace packmoor::gitlayer {
namespace {

using namespace test;
using packmoor::test::TestGit;

std::string hexOf(const git_oid& id) {
  char text[GIT_OID_HEXSZ + 1];
  return git_oid_tostr(text, sizeof text, &id);
}
std::string lastError() {
  const git_error* error = git_error_last();
  return error == nullptr ? "" : error->message;
}

class Libgit2Test : public ::testing::Test {
 public:
  ~Libgit2Test() noexcept {}

 protected:
  static kj::Own<TestGit> made;  // read only, for all tests
  TestGit& git = *made;
  TestCluster cluster{simGround(), 1};
  RepositoryInfo info;

  static void SetUpTestSuite() {
    made = kj::heap<TestGit>();
    TestGit& git = *made;
    for (int i = 0; i < 6; ++i) {
      git.commit("file", "packed " + std::to_string(i) + "\n", "packed " + std::to_string(i));
    }
    git.run({"tag", "-a", "-m", "first", "v1"});
    git.run({"checkout", "-q", "-b", "side", "HEAD~3"});
    git.commit("other", "side\n", "on the side");
    git.run({"checkout", "-q", "main"});
    git.run({"merge", "-q", "--no-edit", "side"});
    git.commit("folder/deep", "hot\n", "hot");
    git.run({"tag", "-a", "-m", "of a tag", "v2", "v1"});
  }
  static void TearDownTestSuite() { made = nullptr; }

  void SetUp() override {
    info = cluster.create("project");
    importPack(cluster, info, git, {"v1"});
    importHot(cluster, info, git);
  }
};
kj::Own<TestGit> Libgit2Test::made;

TEST_F(Libgit2Test, WalksHistory) {
  auto view = cluster.view("project");
  ASSERT_GT(view->statistics().hotObjects, 0u);
  ASSERT_EQ(view->statistics().packs, 1u);
  auto repository = Libgit2Repository::open(*view);
  git_revwalk* walk = nullptr;
  ASSERT_EQ(git_revwalk_new(&walk, repository->get()), 0) << lastError();
  git_revwalk_sorting(walk, GIT_SORT_TOPOLOGICAL | GIT_SORT_TIME);
  ASSERT_EQ(git_revwalk_push_head(walk), 0) << lastError();
  std::string names;
  git_oid id;
  int result;
  while ((result = git_revwalk_next(&id, walk)) == 0) names += hexOf(id) + "\n";
  EXPECT_EQ(result, GIT_ITEROVER) << lastError();
  git_revwalk_free(walk);
  EXPECT_EQ(names, git.run({"rev-list", "--topo-order", "main"}));
}

TEST_F(Libgit2Test, ListsRefsAndPeelsTags) {
  auto view = cluster.view("project");
  auto repository = Libgit2Repository::open(*view);
  git_reference_iterator* iterator = nullptr;
  ASSERT_EQ(git_reference_iterator_new(&iterator, repository->get()), 0) << lastError();
  std::string names;
  git_reference* ref = nullptr;
  while (git_reference_next(&ref, iterator) == 0) {
    names += hexOf(*git_reference_target(ref)) + " " + git_reference_name(ref) + "\n";
    git_reference_free(ref);
  }
  git_reference_iterator_free(iterator);
  EXPECT_EQ(names, git.run({"for-each-ref", "--format=%(objectname) %(refname)"}));

  ASSERT_EQ(git_reference_iterator_glob_new(&iterator, repository->get(), "refs/tags/*"), 0);
  const char* name = nullptr;
  names.clear();
  while (git_reference_next_name(&name, iterator) == 0) names += std::string(name) + "\n";
  git_reference_iterator_free(iterator);
  EXPECT_EQ(names, "refs/tags/v1\nrefs/tags/v2\n");

  git_object* object = nullptr;
  ASSERT_EQ(git_revparse_single(&object, repository->get(), "v2^{commit}"), 0) << lastError();
  EXPECT_EQ(hexOf(*git_object_id(object)), git.line({"rev-parse", "v2^{commit}"}));
  git_object_free(object);
  EXPECT_EQ(git_reference_lookup(&ref, repository->get(), "refs/heads/none"), GIT_ENOTFOUND);
  EXPECT_EQ(git_repository_head_unborn(repository->get()), 0);
}

TEST_F(Libgit2Test, FindsAbbreviatedNamesMergeBasesAndPaths) {
  auto view = cluster.view("project");
  auto repository = Libgit2Repository::open(*view);
  for (const char* revision : {"main", "main~5", "side", "v1"}) {
    git_object* object = nullptr;
    const std::string full = git.line({"rev-parse", revision});
    ASSERT_EQ(git_revparse_single(&object, repository->get(), full.substr(0, 12).c_str()), 0)
        << lastError();
    EXPECT_EQ(hexOf(*git_object_id(object)), full);
    git_object_free(object);
  }
  git_object* object = nullptr;
  EXPECT_EQ(git_revparse_single(&object, repository->get(), "ffffffffff"), GIT_ENOTFOUND);
  git_oid base, one, two;
  git_oid_fromstr(&one, git.line({"rev-parse", "main~1^1"}).c_str());
  git_oid_fromstr(&two, git.line({"rev-parse", "side"}).c_str());
  ASSERT_EQ(git_merge_base(&base, repository->get(), &one, &two), 0) << lastError();
  EXPECT_EQ(hexOf(base), git.line({"merge-base", "main~1^1", "side"}));
  ASSERT_EQ(git_revparse_single(&object, repository->get(), "main:folder/deep"), 0);
  EXPECT_EQ(std::string(static_cast<const char*>(
                git_blob_rawcontent(reinterpret_cast<git_blob*>(object)))),
            "hot\n");
  git_object_free(object);
  git_odb* odb = nullptr;
  ASSERT_EQ(git_repository_odb(&odb, repository->get()), 0);
  size_t objects = 0;
  git_odb_foreach(
      odb, [](const git_oid*, void* count) { return ++*static_cast<size_t*>(count), 0; },
      &objects);
  const std::string all = git.run({"cat-file", "--batch-all-objects", "--batch-check"});
  EXPECT_EQ(objects, static_cast<size_t>(std::count(all.begin(), all.end(), '\n')));
  git_odb_free(odb);
}

TEST_F(Libgit2Test, RefusesWritesWhenReading) {
  auto view = cluster.view("project");
  auto repository = Libgit2Repository::open(*view);
  git_oid id;
  EXPECT_NE(git_blob_create_from_buffer(&id, repository->get(), "x", 1), 0);
  EXPECT_EQ(lastError(), "the repository is open for reading only");
  git_reference* ref = nullptr;
  git_oid_fromstr(&id, git.line({"rev-parse", "main"}).c_str());
  EXPECT_NE(git_reference_create(&ref, repository->get(), "refs/heads/x", &id, 0, nullptr), 0);
  EXPECT_TRUE(repository->collected().updates.empty());
}

TEST_F(Libgit2Test, CommitsOnTheServer) {
  auto view = cluster.view("project");
  auto repository = Libgit2Repository::openForPush(*view);
  git_repository* handle = repository->get();
  git_oid blobId, treeId, commitId;
  ASSERT_EQ(git_blob_create_from_buffer(&blobId, handle, "made here\n", 10), 0) << lastError();
  git_object* head = nullptr;
  ASSERT_EQ(git_revparse_single(&head, handle, "HEAD"), 0) << lastError();
  auto* parent = reinterpret_cast<git_commit*>(head);
  git_tree* before = nullptr;
  ASSERT_EQ(git_commit_tree(&before, parent), 0);
  git_treebuilder* builder = nullptr;
  ASSERT_EQ(git_treebuilder_new(&builder, handle, before), 0) << lastError();
  ASSERT_EQ(git_treebuilder_insert(nullptr, builder, "made", &blobId, GIT_FILEMODE_BLOB), 0)
      << lastError();
  ASSERT_EQ(git_treebuilder_write(&treeId, builder), 0) << lastError();
  git_treebuilder_free(builder);
  git_tree_free(before);
  git_tree* tree = nullptr;
  ASSERT_EQ(git_tree_lookup(&tree, handle, &treeId), 0) << lastError();
  git_signature* who = nullptr;
  ASSERT_EQ(git_signature_new(&who, "Server", "server@example.com", 1'700'000'000, 0), 0);
  ASSERT_EQ(git_commit_create_v(&commitId, handle, "HEAD", who, who, nullptr, "made here", tree, 1,
                                parent),
            0)
      << lastError();
  git_signature_free(who);
  git_tree_free(tree);
  git_object_free(head);
  git_reference* ref = nullptr;
  ASSERT_EQ(git_reference_lookup(&ref, handle, "refs/heads/side"), 0);
  ASSERT_EQ(git_reference_delete(ref), 0) << lastError();
  git_reference_free(ref);
  EXPECT_EQ(git_reference_lookup(&ref, handle, "refs/heads/side"), GIT_ENOTFOUND);
  ASSERT_EQ(git_reference_lookup(&ref, handle, "refs/heads/main"), 0);
  EXPECT_EQ(hexOf(*git_reference_target(ref)), hexOf(commitId));
  git_reference_free(ref);

  auto txn = repository->collected();
  EXPECT_EQ(txn.objects.size(), 3u);
  ASSERT_EQ(txn.updates.size(), 2u);
  EXPECT_EQ(txn.updates[0].name, "refs/heads/main");
  EXPECT_TRUE(txn.updates[0].forward);
  EXPECT_EQ(txn.updates[1].name, "refs/heads/side");
  EXPECT_TRUE(txn.updates[1].newId.isZero());
  EXPECT_FALSE(txn.updates[1].forward);
  repository = nullptr;
  const auto outcome = cluster.push(info, std::move(txn));
  EXPECT_EQ(outcome.refs[0].problem, "");
  auto after = cluster.view("project");
  EXPECT_EQ(after->ref("refs/heads/main")->id.hex(), hexOf(commitId).c_str());
  EXPECT_FALSE(after->ref("refs/heads/side").has_value());
  auto again = Libgit2Repository::open(*after);
  git_object* made = nullptr;
  ASSERT_EQ(git_revparse_single(&made, again->get(), "HEAD:made"), 0) << lastError();
  EXPECT_EQ(git_object_type(made), GIT_OBJECT_BLOB);
  git_object_free(made);
}

TEST_F(Libgit2Test, ManyRefsInSlices) {
  const std::string tip = git.line({"rev-parse", "main"});
  PushTransaction txn;
  for (int i = 0; i < 2500; ++i) {
    RefUpdate update;
    update.name = "refs/many/" + std::to_string(i);
    ObjectId::parseHex(tip, update.newId);
    txn.updates.push_back(update);
  }
  cluster.push(info, std::move(txn));
  auto view = cluster.view("project");
  auto repository = Libgit2Repository::openForPush(*view);
  git_reference* ref = nullptr;
  for (int i = 0; i < 1500; ++i) {
    const std::string name = "refs/many/" + std::to_string(i);
    ASSERT_EQ(git_reference_remove(repository->get(), name.c_str()), 0) << lastError();
  }
  git_oid id;
  git_oid_fromstr(&id, tip.c_str());
  ASSERT_EQ(git_reference_create(&ref, repository->get(), "refs/zz", &id, 0, nullptr), 0);
  git_reference_free(ref);
  git_reference_iterator* iterator = nullptr;
  ASSERT_EQ(git_reference_iterator_new(&iterator, repository->get()), 0);
  const char* name = nullptr;
  std::vector<std::string> names;
  while (git_reference_next_name(&name, iterator) == 0) names.emplace_back(name);
  git_reference_iterator_free(iterator);
  EXPECT_EQ(names.size(), 1000u + 1u + 4u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
}

TEST_F(Libgit2Test, GivesTheReasonOfAnError) {
  auto txn = transaction(900, {update("refs/heads/wrong", 0, 7)});
  cluster.push(info, std::move(txn));
  auto view = cluster.view("project");
  auto repository = Libgit2Repository::open(*view);
  git_reference* ref = nullptr;
  ASSERT_EQ(git_reference_lookup(&ref, repository->get(), "refs/heads/wrong"), 0);
  git_commit* commit = nullptr;
  EXPECT_LT(git_commit_lookup(&commit, repository->get(), git_reference_target(ref)), 0);
  git_reference_free(ref);
  EXPECT_NE(lastError(), "");
}

}  // namespace
}  // namespace packmoor::gitlayer
