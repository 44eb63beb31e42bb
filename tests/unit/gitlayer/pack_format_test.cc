// Goal: pack headers, entry headers and deltas decode to what was encoded; anything cut short
// asks for more and anything wrong is refused. Method: round trips over edge values and
// hand-made deltas.
#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace packmoor::gitlayer {
namespace {

kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

TEST(PackFormat, PackHeader) {
  kj::byte bytes[kPackHeaderBytes];
  encodePackHeader(bytes, 0x01020304);
  uint32_t count = 0;
  EXPECT_EQ(decodePackHeader(bytes, count), Decoded::kDone);
  EXPECT_EQ(count, 0x01020304u);
  for (size_t n = 0; n < kPackHeaderBytes; ++n) {
    EXPECT_EQ(decodePackHeader(kj::arrayPtr(bytes, n), count), Decoded::kShort);
  }
  bytes[7] = 4;
  EXPECT_EQ(decodePackHeader(bytes, count), Decoded::kBad);
  bytes[7] = 2;
  bytes[1] = 'a';
  EXPECT_EQ(decodePackHeader(kj::arrayPtr(bytes, 2), count), Decoded::kBad);
}

TEST(PackFormat, EntryHeadersRoundTrip) {
  for (uint64_t size : {uint64_t(0), uint64_t(15), uint64_t(16), uint64_t(2047), uint64_t(2048),
                        uint64_t(1) << 32, ~uint64_t(0)}) {
    for (auto type : {PackEntryType::kCommit, PackEntryType::kTag, PackEntryType::kOfsDelta,
                      PackEntryType::kRefDelta}) {
      for (uint64_t distance : {uint64_t(1), uint64_t(127), uint64_t(128), uint64_t(16511),
                                uint64_t(16512), uint64_t(1) << 40}) {
        PackEntryHeader in;
        in.type = type;
        in.bytes = size;
        in.baseDistance = type == PackEntryType::kOfsDelta ? distance : 0;
        if (type == PackEntryType::kRefDelta) in.base.bytes.fill(0xab);
        kj::byte bytes[kEntryHeaderBytesMax];
        size_t length = encodeEntryHeader(bytes, in);
        ASSERT_LE(length, kEntryHeaderBytesMax);
        PackEntryHeader out;
        ASSERT_EQ(decodeEntryHeader(kj::arrayPtr(bytes, length), out), Decoded::kDone);
        EXPECT_EQ(out.type, type);
        EXPECT_EQ(out.bytes, size);
        EXPECT_EQ(out.baseDistance, in.baseDistance);
        EXPECT_EQ(out.headerBytes, length);
        if (type == PackEntryType::kRefDelta) { EXPECT_EQ(out.base, in.base); }
        for (size_t n = 0; n < length; ++n) {
          EXPECT_EQ(decodeEntryHeader(kj::arrayPtr(bytes, n), out), Decoded::kShort);
        }
      }
    }
  }
}

TEST(PackFormat, EntryHeadersRefused) {
  PackEntryHeader header;
  EXPECT_EQ(decodeEntryHeader(bytesOf(std::string("\x00", 1)), header), Decoded::kBad);
  EXPECT_EQ(decodeEntryHeader(bytesOf("\x50"), header), Decoded::kBad);
  EXPECT_EQ(decodeEntryHeader(bytesOf(std::string("\x60\x00", 2)), header), Decoded::kBad);
  EXPECT_EQ(decodeEntryHeader(bytesOf(std::string(30, '\xff')), header), Decoded::kBad);
  EXPECT_EQ(decodeEntryHeader(bytesOf("\x60" + std::string(20, '\xff')), header), Decoded::kBad);
}

TEST(PackFormat, AppliesDeltas) {
  std::string base = "the quick brown fox";
  // copy 4..9, insert "red", copy 15..19
  std::string delta = std::string("\x13\x0c", 2) + "\x91\x04\x05" + "\x03red" + "\x91\x0f\x04";
  auto result = kj::heapArray<kj::byte>(12);
  ASSERT_TRUE(applyDelta(bytesOf(base), bytesOf(delta), result));
  EXPECT_EQ(std::string(result.asChars().begin(), result.size()), "quickred fox");
  // Every cut and every other result size is refused.
  for (size_t n = 0; n < delta.size(); ++n) {
    EXPECT_FALSE(applyDelta(bytesOf(base), bytesOf(delta.substr(0, n)), result));
  }
  auto longer = kj::heapArray<kj::byte>(13);
  EXPECT_FALSE(applyDelta(bytesOf(base), bytesOf(delta), longer));
  EXPECT_FALSE(applyDelta(bytesOf(base + "x"), bytesOf(delta), result));
  delta[4] = 0x14;  // the copy leaves the base
  EXPECT_FALSE(applyDelta(bytesOf(base), bytesOf(delta), result));
  EXPECT_FALSE(applyDelta(bytesOf(base), bytesOf(std::string("\x13\x0c\x00", 3)), result));
}

TEST(PackFormat, AppliesCopyOfSixtyFourKibibytes) {
  std::string base(0x10000, 'b');
  std::string delta = std::string("\x80\x80\x04\x80\x80\x04\x80", 7);
  auto result = kj::heapArray<kj::byte>(0x10000);
  ASSERT_TRUE(applyDelta(bytesOf(base), bytesOf(delta), result));
  EXPECT_EQ(memcmp(result.begin(), base.data(), base.size()), 0);
}

TEST(ZlibCodec, RoundTripsAndMeasures) {
  Inflater inflater;
  Deflater deflater;
  for (size_t size : {size_t(0), size_t(1), size_t(100000)}) {
    std::string text(size, 'z');
    auto deflated = deflater.deflate(bytesOf(text));
    auto padded = kj::heapArray<kj::byte>(deflated.size() + 7);
    memset(padded.begin(), 0x55, padded.size());
    memcpy(padded.begin(), deflated.begin(), deflated.size());
    auto out = kj::heapArray<kj::byte>(size);
    size_t consumed = 0;
    ASSERT_TRUE(inflater.inflate(padded, out, consumed));
    EXPECT_EQ(consumed, deflated.size());
    EXPECT_EQ(std::string(out.asChars().begin(), out.size()), text);
    EXPECT_FALSE(inflater.inflate(padded, kj::heapArray<kj::byte>(size + 1), consumed));
    if (size > 0) {
      EXPECT_FALSE(inflater.inflate(padded, kj::heapArray<kj::byte>(size - 1), consumed));
      EXPECT_FALSE(inflater.inflate(deflated.slice(0, deflated.size() - 1), out, consumed));
    }
  }
}

}  // namespace
}  // namespace packmoor::gitlayer
