// Goal: a pack is told from what follows it in the same stream, whatever pieces it arrives in, and bytes
// that are no pack do not make anybody wait for its end. Method: packs with every kind of entry in
// pieces of every size; bytes changed at random.
#include "pack_end.h"

#include "gitlayer/pack_format.h"
#include "gitlayer/pkt_line.h"
#include "gitlayer/zlib_codec.h"
#include "odd_pack.h"

#include <gtest/gtest.h>
#include <support/string_streams.h>

#include <random>

namespace packmoor::gitlayer {
namespace {

void append(std::string& to, kj::ArrayPtr<const kj::byte> bytes) {
  to.append(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
}

// Entries of each type; what they mean does not matter here, and neither does the checksum.
std::string pack() {
  std::string bytes(kPackHeaderBytes, '\0');
  Deflater deflater;
  const PackEntryType types[] = {PackEntryType::kCommit, PackEntryType::kBlob, PackEntryType::kTree,
                                 PackEntryType::kOfsDelta, PackEntryType::kRefDelta,
                                 PackEntryType::kTag, PackEntryType::kBlob};
  encodePackHeader(reinterpret_cast<kj::byte*>(bytes.data()), 7);
  std::mt19937_64 random(3);
  for (PackEntryType type : types) {
    std::string content;
    if (type == PackEntryType::kTree) content.assign(300'000, 'x');   // a long run of one short stream
    for (size_t i = random() % 3000; type != PackEntryType::kTag && i > 0; --i) {
      content.push_back(static_cast<char>(random()));
    }
    PackEntryHeader header;
    header.type = type;
    header.bytes = content.size();
    header.baseDistance = 200;
    kj::byte encoded[kEntryHeaderBytesMax];
    append(bytes, kj::arrayPtr(encoded, encodeEntryHeader(encoded, header)));
    append(bytes, deflater.deflate(kj::StringPtr(content.data(), content.size()).asBytes()));
  }
  bytes.append(kPackTrailerBytes, 's');
  return bytes;
}

size_t taken(const std::string& stream, size_t piece, bool& ended) {
  PackEnd end;
  size_t at = 0;
  while (at < stream.size() && !end.ended()) {
    const size_t given = std::min(piece, stream.size() - at);
    const size_t took = end.take(kj::StringPtr(stream.data() + at, given).asBytes());
    EXPECT_TRUE(took == given || end.ended());
    at += took;
  }
  ended = end.ended();
  return at;
}

TEST(PackEndTest, APackEndsWhereItSaysInPiecesOfAnySize) {
  const std::string bytes = pack();
  for (size_t piece : {1ul, 2ul, 7ul, 64ul, 1000ul, 1ul << 20}) {
    bool ended = false;
    EXPECT_EQ(taken(bytes + "PACK what follows", piece, ended), bytes.size());
    EXPECT_TRUE(ended);
  }
  for (size_t cut = 0; cut < bytes.size(); cut += 37) {
    bool ended = false;
    EXPECT_EQ(taken(bytes.substr(0, cut), 4096, ended), cut);
    EXPECT_FALSE(ended) << cut;
  }
  std::string empty(kPackHeaderBytes, '\0');
  encodePackHeader(reinterpret_cast<kj::byte*>(empty.data()), 0);
  empty.append(kPackTrailerBytes, 's');
  bool ended = false;
  EXPECT_EQ(taken(empty + "more", 3, ended), empty.size());
  EXPECT_TRUE(ended);
}

TEST(PackEndTest, WhatIsNoPackEndsAtOnce) {
  const std::string bytes = pack();
  bool ended = false;
  taken("0000PACK", 8, ended);
  EXPECT_TRUE(ended);
  std::string longer = bytes;
  longer[kPackHeaderBytes + 1] ^= 1;   // the size of the first entry
  taken(longer, 1 << 20, ended);
  EXPECT_TRUE(ended);
  // Whatever is changed, it goes on to the end of some pack or ends there.
  std::mt19937_64 random(5);
  for (int i = 0; i < 300; ++i) {
    std::string changed = bytes;
    for (int n = 0; n < 3; ++n) changed[random() % changed.size()] ^= static_cast<char>(1 << random() % 8);
    EXPECT_LE(taken(changed, 1 + random() % 5000, ended), changed.size());
  }
}

// A pack that a client sends behind its commands, and then waits.
TEST(PackEndTest, APacketReaderGivesThePackAndNoMore) {
  kj::EventLoop loop;
  kj::WaitScope wait(loop);
  const std::string bytes = pack();
  for (size_t piece : {3ul, 900ul, 1ul << 20}) {
    testing::StringInput in("0008hi!\n0000" + bytes + "0008next", piece);
    PktReader reader(in);
    reader.endRawWithPack();
    EXPECT_EQ(reader.read().wait(wait).line(), "hi!");
    EXPECT_EQ(reader.read().wait(wait).kind, PktKind::kFlush);
    std::string got;
    kj::byte buffer[700];
    while (size_t n = reader.readRaw(buffer).wait(wait)) append(got, kj::arrayPtr(buffer, n));
    EXPECT_TRUE(got == bytes);
    EXPECT_TRUE(reader.ended());
  }
}

// The packs that the tests of pushes make, right ones and odd ones, end where they end.
TEST(PackEndTest, OddPacksEndNoLaterThanTheyDo) {
  size_t whole = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto odd = test::OddPackMaker(seed).make();
    bool ended = false;
    const size_t at = taken(odd.bytes + std::string(50, 'z'), 777, ended);
    whole += ended && at == odd.bytes.size();
  }
  EXPECT_GT(whole, 100u);
}

}  // namespace
}  // namespace packmoor::gitlayer
