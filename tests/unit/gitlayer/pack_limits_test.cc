// Goal: packs that claim, inflate to or unfold into far more than their bytes are refused with a sentence,
// before memory or time is spent on them; what is legitimate goes through. Method: packs written by hand,
// given to the indexer and to the unpacker of small pushes.
#include "fake_git_node.h"
#include "gitlayer/indexer.h"
#include "gitlayer/small_pack.h"
#include "index_table.h"
#include "object_hasher.h"
#include "delta_plan.h"
#include "pack_bytes.h"
#include "pack_parser.h"
#include "pack_writer.h"

#include <gmock/gmock.h>

namespace packmoor::gitlayer::test {
namespace {

using ::testing::HasSubstr;

class PackLimitsTest : public ::testing::Test {
 protected:
  ~PackLimitsTest() noexcept override {}

  // What refuses the pack; empty: nothing.
  std::string problemOf(const std::string& pack) {
    Indexer indexer(limits_);
    constexpr size_t kPiece = 64u << 10;
    MemoryPackBytes bytes;
    for (size_t at = 0; at < pack.size(); at += kPiece) {
      auto piece = bytesOf(pack).slice(at, std::min(at + kPiece, pack.size()));
      if (!indexer.feed(piece)) return indexer.problem();
    }
    if (!indexer.end()) return indexer.problem();
    for (size_t at = 0; at < pack.size(); at += replicator::kBlockBytes) {
      bytes.set(at / replicator::kBlockBytes,
                kernelio::IoBuffer::copyOf(
                    bytesOf(pack).slice(at, std::min(at + replicator::kBlockBytes, pack.size()))));
    }
    indexer.beginDeltas(bytes);
    auto lane = indexer.makeLane();
    auto failed = kj::runCatchingExceptions([&]() {
      while (indexer.resolve(*lane, 1u << 20)) {
      }
    });
    KJ_IF_MAYBE(exception, failed) { return exception->getDescription().cStr(); }
    if (!indexer.finish()) return indexer.problem();
    names_ = indexer.objectCount();
    return "";
  }

  // A header that claims `bytes` of a blob before a stream of `real` zeros.
  static std::string lying(uint64_t bytes, size_t real, PackEntryType type = PackEntryType::kBlob) {
    PackWriter pack;
    PackEntryHeader header;
    header.type = type;
    header.bytes = bytes;
    pack.addRaw(header, textOf(Deflater().deflate(bytesOf(std::string(real, '\0')))));
    return pack.finish();
  }

  PackLimits limits_;
  uint32_t names_ = 0;
};

TEST_F(PackLimitsTest, SizesThatLieAreFound) {
  EXPECT_THAT(problemOf(lying(1000, 100'000)), HasSubstr("inflate"));
  EXPECT_THAT(problemOf(lying(100'000, 1000)), HasSubstr("inflate"));
  EXPECT_THAT(problemOf(lying(40u << 20, 1000)), HasSubstr("inflate"));   // not held
  EXPECT_THAT(problemOf(lying(17u << 20, 18u << 20)), HasSubstr("inflate"));
  EXPECT_EQ(problemOf(lying(17u << 20, 17u << 20)), "");
  EXPECT_THAT(problemOf(lying(1ull << 50, 1000)), HasSubstr("is larger than 17179869184 bytes"));
}

TEST_F(PackLimitsTest, WhatMustBeHeldIsBounded) {
  limits_.heldBytesMax = 2u << 20;
  const char* refusal = "object at offset 12 must lie in memory to be read and is larger than 2097152 "
                        "bytes (git.held_object_max)";
  EXPECT_EQ(problemOf(lying(8u << 20, 1000, PackEntryType::kTree)), refusal);
  EXPECT_EQ(problemOf(lying(8u << 20, 1000, PackEntryType::kCommit)), refusal);
  PackWriter deltas;   // a delta of many bytes
  const size_t small = deltas.add(ObjectType::kBlob, std::string(1000, 'b'));
  deltas.addDelta(small, deltaOf(1000, 1'000'000, ""));
  EXPECT_THAT(problemOf(deltas.finish()), HasSubstr("git.held_object_max"));
  PackWriter results;   // one of few, that makes many
  const size_t base = results.add(ObjectType::kBlob, std::string(60'000, 'b'));
  results.addDelta(base, deltaOf(60'000, 40, ""));
  EXPECT_THAT(problemOf(results.finish()), HasSubstr("git.held_object_max"));
}

TEST_F(PackLimitsTest, LargeBlobsAreNeitherHeldNorBoundedByIt) {
  if (!ObjectHasher::available()) GTEST_SKIP() << "this processor names whole objects only";
  limits_.heldBytesMax = 2u << 20;
  EXPECT_EQ(problemOf(lying(40u << 20, 40u << 20)), "");
  PackWriter pack;   // but they are no bases
  const size_t base = pack.add(ObjectType::kBlob, std::string(40u << 20, '\0'));
  pack.addDelta(base, deltaOf(40u << 20, 0, "x"));
  EXPECT_THAT(problemOf(pack.finish()), HasSubstr("git.held_object_max"));
}

TEST_F(PackLimitsTest, WhatDeltasMakeTogetherIsBounded) {
  limits_.expansionFloorBytes = 10u << 20;
  limits_.expansionMax = 10;
  PackWriter pack;
  const size_t base = pack.add(ObjectType::kBlob, std::string(60'000, 'b'));
  for (int i = 0; i < 20; ++i) pack.addDelta(base, deltaOf(60'000, 16, std::to_string(i)));
  EXPECT_THAT(problemOf(pack.finish()), HasSubstr("bytes of objects (git.expansion_max)"));
  limits_.expansionFloorBytes = 20u << 20;
  EXPECT_EQ(problemOf(pack.finish()), "");
  EXPECT_EQ(names_, 21u);
}

TEST_F(PackLimitsTest, ChainsAreBounded) {
  for (int depth : {4095, 10'001}) {
    PackWriter pack;
    std::string content = "begin";
    size_t at = pack.add(ObjectType::kBlob, content);
    for (int i = 0; i < depth; ++i) {
      at = pack.addDelta(at, deltaOf(content.size(), 1, "x"));
      content += "x";
    }
    // Bases are not spent when their first delta is resolved.
    const std::string problem = problemOf(pack.finish());
    if (depth == 4095) {
      EXPECT_EQ(problem, "");
      EXPECT_EQ(names_, 4096u);
    } else {
      EXPECT_EQ(problem, "the pack has a chain of more than 10000 deltas");
    }
  }
}

TEST_F(PackLimitsTest, ManyObjectsThatAreOnlyClaimed) {
  PackWriter pack;
  pack.add(ObjectType::kBlob, "b");
  EXPECT_EQ(problemOf(pack.finish(UINT32_MAX)), "pack has too many objects");
  EXPECT_EQ(problemOf(pack.finish(60'000'000)), "early EOF");
}

}  // namespace
}  // namespace packmoor::gitlayer::test
