// Goal: packets are framed as gitprotocol-common says, whatever pieces they arrive in, and
// nothing malformed is taken. Method: byte strings fed in pieces of every size.
#include "gitlayer/pkt_line.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <support/string_streams.h>

#include <vector>

namespace packmoor::gitlayer {
namespace {

class PktLineTest : public ::testing::Test {
 protected:
  ~PktLineTest() noexcept override {}
  kj::EventLoop loop_;
  kj::WaitScope wait_{loop_};
};

TEST_F(PktLineTest, ReadsEveryKindInPiecesOfAnySize) {
  std::string text = "0008hi!\n" "0000" "0001" "0002" "0004" "0008done" "RAW";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    testing::StringInput in(text, piece);
    PktReader reader(in);
    Pkt first = reader.read().wait(wait_);
    EXPECT_EQ(first.kind, PktKind::kData);
    EXPECT_EQ(first.data, "hi!\n");
    EXPECT_EQ(first.line(), "hi!");
    EXPECT_EQ(reader.read().wait(wait_).kind, PktKind::kFlush);
    EXPECT_EQ(reader.read().wait(wait_).kind, PktKind::kDelimiter);
    EXPECT_EQ(reader.read().wait(wait_).kind, PktKind::kResponseEnd);
    Pkt empty = reader.read().wait(wait_);
    EXPECT_EQ(empty.kind, PktKind::kData);
    EXPECT_EQ(empty.data, "");
    EXPECT_EQ(reader.read().wait(wait_).line(), "done");
    std::string raw;
    kj::byte buffer[2];
    while (size_t n = reader.readRaw(buffer).wait(wait_)) {
      raw.append(reinterpret_cast<char*>(buffer), n);
    }
    EXPECT_EQ(raw, "RAW");
    EXPECT_EQ(reader.bytesRead(), text.size());
  }
}

TEST_F(PktLineTest, ReadsTheLargestPacket) {
  std::string payload(kPktPayloadMax, 'x');
  for (size_t piece : {size_t(1000), size_t(65520), size_t(100000)}) {
    testing::StringInput in("0005a" "fff0" + payload + "0005b", piece);
    PktReader reader(in);
    EXPECT_EQ(reader.read().wait(wait_).data, "a");
    EXPECT_EQ(reader.read().wait(wait_).data, payload);
    EXPECT_EQ(reader.read().wait(wait_).data, "b");
    EXPECT_EQ(reader.read().wait(wait_).kind, PktKind::kEnd);
  }
}

TEST_F(PktLineTest, RefusesMalformedLengthsAndEarlyEnds) {
  for (const char* text : {"0003", "fff1", "ffff", "00g0", "+123", "    ", "0x10", "00", "0008abc",
                           "\xff\xff\xff\xff"}) {
    testing::StringInput in(text, 1);
    PktReader reader(in);
    EXPECT_ANY_THROW(reader.read().wait(wait_)) << text;
  }
}

TEST_F(PktLineTest, WritesPacketsAndBands) {
  testing::StringOutput out;
  PktWriter writer(out);
  writer.data("abc");
  writer.line("def");
  writer.flush();
  writer.delimiter();
  writer.responseEnd();
  writer.band(2, "wxyz", 4);
  writer.band(1, "");
  writer.raw(kj::StringPtr("PACK").asBytes());
  EXPECT_GT(writer.pending(), 0u);
  writer.send().wait(wait_);
  EXPECT_EQ(out.text, "0007abc" "0008def\n" "0000" "0001" "0002" "0008\2wxy" "0006\2z" "PACK");
  EXPECT_EQ(writer.pending(), 0u);
  EXPECT_EQ(writer.bytesWritten(), out.text.size());
}

TEST_F(PktLineTest, BandsSplitAtThePacketSize) {
  testing::StringOutput out;
  PktWriter writer(out);
  writer.band(1, std::string(kPktPayloadMax, 'y'));
  writer.send().wait(wait_);
  ASSERT_EQ(out.text.size(), 4 + kPktPayloadMax + 4 + 2);
  EXPECT_EQ(out.text.substr(0, 5), "fff0\1");
  EXPECT_EQ(out.text.substr(4 + kPktPayloadMax), "0006\1y");
}

TEST(PktLength, EncodesWhatItDecodes) {
  std::string text;
  for (size_t bytes : {size_t(0), size_t(1), size_t(1000), kPktPayloadMax}) {
    text.clear();
    appendPkt(text, std::string(bytes, 'p'));
    PktLength length = parsePktLength(std::string_view(text).substr(0, 4));
    EXPECT_TRUE(length.valid);
    EXPECT_EQ(length.kind, PktKind::kData);
    EXPECT_EQ(length.payloadBytes, bytes);
  }
}

}  // namespace
}  // namespace packmoor::gitlayer
