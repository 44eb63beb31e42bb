// Goal: object names are read, written and computed as git does.
#include "gitlayer/object_id.h"

#include <gtest/gtest.h>
#include <link.h>

#include <fstream>
#include <iterator>
#include <string>

namespace packmoor::gitlayer {
namespace {

kj::ArrayPtr<const kj::byte> bytesOf(std::string_view text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

TEST(ObjectId, HexThereAndBack) {
  const std::string hex = "00112233445566778899aabbccddeeff01234567";
  ObjectId id;
  ASSERT_TRUE(ObjectId::parseHex(hex, id));
  EXPECT_EQ(id.hex(), hex.c_str());
  EXPECT_EQ(id.bytes[4], 0x44);
  EXPECT_FALSE(id.isZero());
  ObjectId other = id;
  EXPECT_FALSE(ObjectId::parseHex(hex.substr(1), other));
  EXPECT_FALSE(ObjectId::parseHex(hex + "0", other));
  EXPECT_FALSE(ObjectId::parseHex("g" + hex.substr(1), other));
  EXPECT_EQ(other, id);
  EXPECT_TRUE(ObjectId::parseHex("00112233445566778899AABBCCDDEEFF01234567", other));
  EXPECT_EQ(other, id);
}

TEST(ObjectId, HashesAsGitDoes) {
  EXPECT_EQ(hashObject(ObjectType::kBlob, nullptr).hex(),
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"_kj);
  EXPECT_EQ(hashObject(ObjectType::kTree, nullptr).hex(),
            "4b825dc642cb6eb9a060e54bf8d69288fbee4904"_kj);
  EXPECT_EQ(hashObject(ObjectType::kBlob, bytesOf("hello\n")).hex(),
            "ce013625030ba8dba906f756967f9e9ca394464a"_kj);
  EXPECT_ANY_THROW(hashObject(ObjectType::kNone, bytesOf("x")));
}

// libgit2 can be built on a SHA-1 without collision detection; then objects made to collide
// would be taken for one another. The library that is loaded must have the detecting one.
TEST(ObjectId, LibraryDetectsCollisions) {
  std::string path;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        std::string name = info->dlpi_name;
        if (name.find("libgit2") != std::string::npos) *static_cast<std::string*>(data) = name;
        return 0;
      },
      &path);
  ASSERT_FALSE(path.empty());
  std::ifstream in(path, std::ios::binary);
  const std::string library((std::istreambuf_iterator<char>(in)), {});
  EXPECT_NE(library.find("SHA1 collision attack detected"), std::string::npos) << path;
}

}  // namespace
}  // namespace packmoor::gitlayer
