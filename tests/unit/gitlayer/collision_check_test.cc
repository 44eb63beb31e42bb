// Goal: an object whose name the repository has already is refused when it is another one, and taken when
// it is the same; small or large, held or not. Method: objects that are forged in the repository, since
// nobody can make one that is named alike.
#include "pack_writer.h"
#include "receive_harness.h"

#include <gmock/gmock.h>

namespace packmoor::gitlayer::test {
namespace {

using ::testing::HasSubstr;

class CollisionCheck : public ReceiveTest {
 protected:
  ~CollisionCheck() noexcept override {}

  // A commit of one file with `content`; its name is tip_.
  std::string packOf(const std::string& content) {
    PackWriter pack;
    blob_ = hashObject(ObjectType::kBlob, bytesOf(content));
    const std::string tree = "100644 f" + std::string(1, '\0') +
                             textOf(kj::arrayPtr(blob_.bytes.data(), kOidBytes));
    tree_ = hashObject(ObjectType::kTree, bytesOf(tree));
    const std::string who = "T <t@example.org> 1700000000 +0000\n";
    const std::string commit = std::string("tree ") + tree_.hex().cStr() + "\nauthor " + who +
                               "committer " + who + "\nx\n";
    tip_ = hashObject(ObjectType::kCommit, bytesOf(commit));
    pack.add(ObjectType::kBlob, content);
    pack.add(ObjectType::kTree, tree);
    pack.add(ObjectType::kCommit, commit);
    return pack.finish();
  }
  Answer pushTip(const std::string& pack) {
    return push(commands({std::string(kZero) + " " + tip_.hex().cStr() + " refs/heads/main"}) + pack);
  }
  void forge(const ObjectId& id, ObjectType type, std::string data) {
    node_.state("r").objects[id] = FakeObject{type, std::move(data)};
  }
  void expectCollision(const std::string& pack, const ObjectId& id) {
    Answer answer = pushTip(pack);
    EXPECT_EQ(answer.unpack, "index-pack abnormal exit");
    EXPECT_THAT(answer.progress,
                HasSubstr("SHA1 COLLISION FOUND WITH " + std::string(id.hex().cStr()) + " !"));
    EXPECT_EQ(refOf("refs/heads/main"), "");
    EXPECT_TRUE(node_.pushed.empty());
    EXPECT_TRUE(node_.extents.empty());
  }
  // Once each: another content of the same size, another size, another type.
  void expectForgeriesAreFound(const std::string& content) {
    const std::string pack = packOf(content);
    std::string other = content;
    other.back() ^= 1;
    forge(blob_, ObjectType::kBlob, other);
    expectCollision(pack, blob_);
    forge(blob_, ObjectType::kBlob, content + "x");
    expectCollision(pack, blob_);
    node_.state("r").objects.erase(blob_);
    forge(tree_, ObjectType::kBlob, content);
    expectCollision(pack, tree_);
    node_.state("r").objects.erase(tree_);
    forge(blob_, ObjectType::kBlob, content);
    Answer answer = pushTip(pack);
    EXPECT_EQ(answer.refs["refs/heads/main"], "ok") << answer.progress;
  }

  ObjectId blob_, tree_, tip_;
};

TEST_F(CollisionCheck, OfSmallPushes) { expectForgeriesAreFound("content"); }

TEST_F(CollisionCheck, OfLargePushes) {
  node_.options_.inlinePackBytesMax = 0;
  expectForgeriesAreFound("content");
}

// Such blobs are named piece by piece, and compared in the same way.
TEST_F(CollisionCheck, OfBlobsThatAreNotHeld) {
  node_.options_.inlinePackBytesMax = 0;
  std::string content(17u << 20, 'c');
  sim_.random().fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(content.data()), 1u << 20));
  expectForgeriesAreFound(content);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
