// Goal: SHA-1 by the processor's instructions gives the names that libgit2's gives, and finds what was
// made by a collision attack.
// Method: sizes around all borders against libgit2; blocks that are solved for the relations of each
// vector, so that each relation matters; the blocks of the first published collision.
#include "checked_sha1.h"
#include "libgit2_init.h"
#include "sha1_relations.h"

#include <git2/odb.h>
#include <gtest/gtest.h>

#include <bitset>
#include <cstring>
#include <random>

namespace packmoor::gitlayer {
namespace {

using Block = std::array<kj::byte, kSha1BlockBytes>;
using Equation = std::bitset<kSha1BlockBytes * 8 + 1>;   // over the bits of a block; the last: the sum

class CheckedSha1 : public testing::Test {
 protected:
  void SetUp() override {
    if (!hasSha1Kernel()) GTEST_SKIP() << "This processor has no instructions for SHA-1.";
  }

  Block randomBlock() {
    Block block;
    for (auto& byte : block) byte = static_cast<kj::byte>(random());
    return block;
  }

  std::mt19937 random{20261128};
};

uint32_t suspectsOf(const std::vector<BitRelation>& relations, const Block& block) {
  const Sha1Message words = expandMessage(block.data());
  uint32_t cleared = 0;
  for (const auto& relation : relations) {
    bool differ = ((words[relation.stepA] >> relation.bitA ^ words[relation.stepB] >> relation.bitB) & 1) != 0;
    if (differ != relation.differ) cleared |= relation.vectors;
  }
  return ~cleared;
}

uint32_t suspectsByKernel(const Block& block) {
  Sha1State state = kSha1Start;
  Sha1Suspect suspect;
  return runSha1(state, block.data(), 1, &suspect) == 0 ? 0 : suspect.vectors;
}

// ---- blocks that fulfil relations

// Every bit of an expanded message as a sum of bits of the block.
std::array<std::array<Equation, 32>, kSha1Steps> expansion() {
  std::array<std::array<Equation, 32>, kSha1Steps> words;
  for (size_t step = 0; step < kSha1Steps; ++step) {
    for (size_t bit = 0; bit < 32; ++bit) {
      if (step < 16) {
        words[step][bit].set(step * 32 + (3 - bit / 8) * 8 + bit % 8);
      } else {
        size_t from = (bit + 31) % 32;
        words[step][bit] = words[step - 3][from] ^ words[step - 8][from] ^ words[step - 14][from] ^
                           words[step - 16][from];
      }
    }
  }
  return words;
}

// Changes as few bits of the block as it takes.
void solve(std::vector<Equation> equations, Block& block) {
  constexpr size_t kSum = kSha1BlockBytes * 8;
  std::vector<size_t> pivots;
  for (size_t i = 0; i < equations.size(); ++i) {
    size_t pivot = equations[i]._Find_first();
    ASSERT_LT(pivot, kSum) << "a relation follows from others";
    pivots.push_back(pivot);
    for (size_t j = 0; j < equations.size(); ++j) {
      if (j != i && equations[j][pivot]) equations[j] ^= equations[i];
    }
  }
  for (size_t i = 0; i < equations.size(); ++i) {
    bool sum = equations[i][kSum];
    for (size_t bit = 0; bit < kSum; ++bit) {
      if (equations[i][bit]) sum ^= block[bit / 8] >> bit % 8 & 1;
    }
    if (sum) block[pivots[i] / 8] ^= static_cast<kj::byte>(1 << pivots[i] % 8);
  }
}

TEST_F(CheckedSha1, RelationsAreBetweenBitsThatAttacksChange) {
  const auto relations = deriveRelations();
  std::array<size_t, kDisturbanceVectors.size()> counts = {};
  for (const auto& relation : relations) {
    for (size_t i = 0; i < counts.size(); ++i) {
      if ((relation.vectors >> i & 1) == 0) continue;
      ++counts[i];
      EXPECT_TRUE(messageDifferences(i)[relation.stepA] >> relation.bitA & 1);
      EXPECT_TRUE(messageDifferences(i)[relation.stepB] >> relation.bitB & 1);
    }
  }
  // Enough to let nearly all blocks by.
  for (size_t count : counts) EXPECT_GE(count, 7u);
}

TEST_F(CheckedSha1, EveryRelationCounts) {
  const auto relations = deriveRelations();
  const auto words = expansion();
  for (size_t vector = 0; vector < kDisturbanceVectors.size(); ++vector) {
    std::vector<Equation> equations;
    for (const auto& relation : relations) {
      if ((relation.vectors >> vector & 1) == 0) continue;
      equations.push_back(words[relation.stepA][relation.bitA] ^ words[relation.stepB][relation.bitB]);
      equations.back().set(kSha1BlockBytes * 8, relation.differ);
    }
    Block block = randomBlock();
    solve(equations, block);
    EXPECT_TRUE(suspectsByKernel(block) >> vector & 1) << vector;
    EXPECT_EQ(suspectsByKernel(block), suspectsOf(relations, block)) << vector;
    for (auto& equation : equations) {
      equation.flip(kSha1BlockBytes * 8);
      Block other = block;
      solve(equations, other);
      EXPECT_FALSE(suspectsByKernel(other) >> vector & 1) << vector;
      EXPECT_EQ(suspectsByKernel(other), suspectsOf(relations, other)) << vector;
      equation.flip(kSha1BlockBytes * 8);
    }
  }
}

TEST_F(CheckedSha1, NamesAsLibgit2Does) {
  initLibgit2();
  std::vector<kj::byte> data(100'000);
  for (auto& byte : data) byte = static_cast<kj::byte>(random());
  std::vector<size_t> sizes;
  for (size_t size = 0; size < 300; ++size) sizes.push_back(size);
  for (size_t size = 1000; size < data.size(); size += 997) sizes.push_back(size);
  for (size_t size : sizes) {
    git_oid wanted;
    ASSERT_EQ(git_odb_hash(&wanted, data.data(), size, GIT_OBJECT_BLOB), 0);
    const auto prefix = kj::str("blob ", size, '\0');
    ObjectId name;
    ASSERT_TRUE(checkedSha1(prefix.asBytes(), kj::arrayPtr(data.data(), size), name)) << size;
    EXPECT_EQ(name, ObjectId::fromBytes(wanted.id)) << size;
    EXPECT_EQ(hashObject(ObjectType::kBlob, kj::arrayPtr(data.data(), size)), name) << size;
  }
}

// ---- an attack

Block blockOf(const char* hex) {
  Block block;
  for (size_t i = 0; i < block.size(); ++i) {
    block[i] = static_cast<kj::byte>(std::stoul(std::string(hex + 2 * i, 2), nullptr, 16));
  }
  return block;
}

// M. Stevens et al., "The first collision for full SHA-1", 2017, table 1.
constexpr Sha1State kPublishedBefore = {{0x4ea96269, 0x7c876e26, 0x74d107f0, 0xfec67984, 0x14f5bf45}};
constexpr const char* kPublishedBlocks[2][2] = {
    {"7346dc9166b67e118f029ab621b2560ff9ca67cca8c7f85ba84c79030c2b3de2"
     "18f86db3a90901d5df45c14f26fedfb3dc38e96ac22fe7bd728f0e45bce046d2",
     "3c570feb141398bb552ef5a0a82be331fea48037b8b5d71f0e332edf93ac3500"
     "eb4ddc0decc1a864790c782c76215660dd309791d06bd0af3f98cda4bc4629b1"},
    {"7f46dc93a6b67e013b029aaa1db2560b45ca67d688c7f84b8c4c791fe02b3df6"
     "14f86db1690901c56b45c1530afedfb76038e972722fe7ad728f0e4904e046c2",
     "30570fe9d41398abe12ef5bc942be33542a4802d98b5d70f2a332ec37fac3514"
     "e74ddc0f2cc1a874cd0c78305a21566461309789606bd0bf3f98cda8044629a1"},
};

// The first block only brings the states near to each other; the second one makes them equal.
TEST_F(CheckedSha1, FindsThePublishedCollision) {
  Sha1State ends[2];
  for (size_t message : {0, 1}) {
    Sha1State& state = ends[message] = kPublishedBefore;
    for (size_t number : {0, 1}) {
      Block block = blockOf(kPublishedBlocks[message][number]);
      Sha1Suspect suspect;
      ASSERT_EQ(runSha1(state, block.data(), 1, &suspect), 1u);
      EXPECT_EQ(suspect.after, state);
      EXPECT_EQ(anyHasPartner(kj::arrayPtr(&suspect, 1)), number == 1);
      // In any lane, among others.
      std::vector<Sha1Suspect> many(21, suspect);
      Block other = block;
      other[63] ^= 1;   // none of an attack's
      for (size_t i = 0; i < many.size(); ++i) {
        if (i != 13) many[i].block = other.data();
      }
      auto all = kj::arrayPtr(many.data(), many.size());
      EXPECT_EQ(anyHasPartner(all), number == 1);
      many[13].block = other.data();
      EXPECT_FALSE(anyHasPartner(all));
      suspect.vectors = UINT32_MAX;
      EXPECT_EQ(anyHasPartner(kj::arrayPtr(&suspect, 1)), number == 1);
    }
  }
  EXPECT_EQ(ends[0], ends[1]);
}

// Wherever in the data the two blocks come.
TEST_F(CheckedSha1, BlocksOfThePublishedCollisionAreRefused) {
  for (size_t message : {0, 1}) {
    std::vector<kj::byte> pair;
    for (const char* hex : kPublishedBlocks[message]) {
      const Block block = blockOf(hex);
      pair.insert(pair.end(), block.begin(), block.end());
    }
    CheckedBlocks blocks;
    blocks.state = kPublishedBefore;
    EXPECT_FALSE(blocks.add(pair.data(), 2) && blocks.done());
    CheckedBlocks first;   // the first of them is none that an attack ends with
    first.state = kPublishedBefore;
    EXPECT_TRUE(first.add(pair.data(), 1) && first.done());
  }
}

TEST_F(CheckedSha1, ExaminesSuspectsAndGoesOn) {
  // Among so many blocks thousands are looked at closely, and none has a partner.
  std::vector<kj::byte> data(4u << 20);
  for (auto& byte : data) byte = static_cast<kj::byte>(random());
  const size_t blocks = data.size() / kSha1BlockBytes;
  std::vector<Sha1Suspect> suspects(blocks);
  Sha1State state = kSha1Start;
  size_t found = runSha1(state, data.data(), blocks, suspects.data());
  EXPECT_GT(found, blocks / 100);
  EXPECT_LT(found, blocks / 10);
  ObjectId name;
  EXPECT_TRUE(checkedSha1(nullptr, kj::arrayPtr(data.data(), data.size()), name));
}

}  // namespace
}  // namespace packmoor::gitlayer
