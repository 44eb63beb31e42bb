// Goal: identifiers, hashes and records print, parse and hash as their formats say. Method: fixed
// values, and each field of a record changed alone.
#include "replicator/types.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

kj::Array<const kj::byte> bytesOf(kj::StringPtr text) {
  return kj::heapArray<const kj::byte>(text.asBytes());
}

TEST(TypesTest, UuidPrintsAndParses) {
  Uuid id;
  for (size_t i = 0; i < 16; ++i) id.bytes[i] = static_cast<uint8_t>(17 * i);
  EXPECT_STREQ(id.text().cStr(), "00112233445566778899aabbccddeeff");
  Uuid parsed;
  ASSERT_TRUE(Uuid::parse(id.text(), parsed));
  EXPECT_EQ(parsed, id);
  EXPECT_EQ(Uuid::fromBytes(id.asBytes()), id);
  EXPECT_TRUE(Uuid().isNull());
  EXPECT_FALSE(id.isNull());
}

TEST(TypesTest, UuidRefusesWhatIsNotHex) {
  Uuid parsed;
  EXPECT_FALSE(Uuid::parse("", parsed));
  EXPECT_FALSE(Uuid::parse("00112233445566778899aabbccddeef", parsed));
  EXPECT_FALSE(Uuid::parse("00112233445566778899aabbccddeefff", parsed));
  EXPECT_FALSE(Uuid::parse("00112233445566778899aabbccddeefg", parsed));
  EXPECT_FALSE(Uuid::parse("00112233445566778899AABBCCDDEEFF", parsed));
  EXPECT_TRUE(parsed.isNull());
}

TEST(TypesTest, HashPrintsHighHalfFirst) {
  EXPECT_STREQ((Hash128{0x1, 0xab}).text().cStr(), "00000000000000ab0000000000000001");
  // The value that xxhsum -H2 prints for no input.
  EXPECT_STREQ(hashBytes(nullptr).text().cStr(), "99aa06d3014798d86001c324468d497f");
}

TEST(TypesTest, NodeIds) {
  EXPECT_TRUE(isValidNodeId("a"));
  EXPECT_TRUE(isValidNodeId("node-1"));
  EXPECT_TRUE(isValidNodeId("1"));
  EXPECT_FALSE(isValidNodeId(""));
  EXPECT_FALSE(isValidNodeId("-a"));
  EXPECT_FALSE(isValidNodeId("Node"));
  EXPECT_FALSE(isValidNodeId("a_b"));
  EXPECT_TRUE(isValidNodeId(kj::heapString(kj::StringPtr(std::string(63, 'a').c_str()))));
  EXPECT_FALSE(isValidNodeId(kj::heapString(kj::StringPtr(std::string(64, 'a').c_str()))));
}

TEST(TypesTest, EveryFieldOfARecordIsHashed) {
  const Hash128 previous{1, 2};
  const ExtentId extent = Uuid::fromBytes(bytesOf("0123456789abcdef"));
  const auto kind = RecordKind::kEpochStart;
  auto base = makeRecord(RecordIndex(5), Epoch(3), previous, kind, {extent}, bytesOf("x"));
  std::vector<RecordRef> others;
  others.push_back(makeRecord(RecordIndex(6), Epoch(3), previous, kind, {extent}, bytesOf("x")));
  others.push_back(makeRecord(RecordIndex(5), Epoch(4), previous, kind, {extent}, bytesOf("x")));
  others.push_back(makeRecord(RecordIndex(5), Epoch(3), Hash128{1, 3}, kind, {extent}, bytesOf("x")));
  others.push_back(makeRecord(RecordIndex(5), Epoch(3), previous, RecordKind(16), {extent}, bytesOf("x")));
  others.push_back(makeRecord(RecordIndex(5), Epoch(3), previous, kind, {}, bytesOf("x")));
  others.push_back(makeRecord(RecordIndex(5), Epoch(3), previous, kind, {extent}, bytesOf("y")));
  // The same bytes, split differently between extents and payload.
  others.push_back(makeRecord(RecordIndex(5), Epoch(3), previous, kind, {}, bytesOf("0123456789abcdefx")));
  for (auto& other : others) EXPECT_NE(other->hash, base->hash);
  auto same = makeRecord(RecordIndex(5), Epoch(3), previous, kind, {extent}, bytesOf("x"));
  EXPECT_EQ(same->hash, base->hash);
}

TEST(TypesTest, SmallAndLargeRecordsHashByOneRule) {
  // 2048 - 56 bytes is the largest that is hashed in one piece. Pinned: hashes are for ever.
  auto hashOf = [](size_t bytes) {
    auto payload = kj::heapArray<kj::byte>(bytes);
    for (auto& b : payload) b = 'a';
    return makeRecord(RecordIndex(1), Epoch(1), Hash128(), RecordKind(16), {}, kj::mv(payload))
        ->hash;
  };
  auto reference = [](size_t bytes) {
    kj::Vector<kj::byte> all;
    const uint64_t header[7] = {1, 1, 0, 0, 16, 0, bytes};
    all.addAll(kj::arrayPtr(reinterpret_cast<const kj::byte*>(header), sizeof header));
    for (size_t i = 0; i < bytes; ++i) all.add('a');
    return hashBytes(all);
  };
  for (size_t bytes : {0, 1, 1991, 1992, 1993, 100000}) {
    EXPECT_EQ(hashOf(bytes), reference(bytes)) << bytes;
  }
}

TEST(TypesTest, AdoptionOrdersByEpochThenIndex) {
  const LogPosition longer{RecordIndex(9), Epoch(1), Hash128()};
  const LogPosition newer{RecordIndex(3), Epoch(2), Hash128()};
  EXPECT_TRUE(adoptBefore(newer, longer));
  EXPECT_FALSE(adoptBefore(longer, newer));
  EXPECT_TRUE(adoptBefore(longer, LogPosition{RecordIndex(8), Epoch(1), Hash128()}));
}

}  // namespace
}  // namespace packmoor::replicator
