// Goal: what is remembered of etcd survives being written, and damage is told; who is covered by a
// marker. Method: values and texts.
#include "rpc/etcd_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/exception.h>

#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using namespace replicator;  // NOLINT: a test's source
using ::testing::HasSubstr;

EtcdMemory sample() {
  EtcdMemory memory;
  memory.clusterId = 0xfedcba9876543210;
  memory.revision = 120;
  memory.listed = 118;
  memory.past.bytes[3] = 7;
  memory.doubt = "etcd has gone back.";
  VolumeRecord record;
  record.name = "main";
  record.current.epoch = Epoch(4);
  record.current.members = {{"a", Uuid()}};
  record.current.writeQuorum = 1;
  record.revision = revisionOf(3, 97);
  memory.volumes = {record};
  memory.nodes = {{"a", Uuid(), "h:1", "h:2", "0.1"}};
  return memory;
}

std::string refusal(const std::string& text) {
  KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { memoryFromText(text); })) {
    return e->getDescription().cStr();
  }
  return "";
}

TEST(EtcdMemory, IsReadAsItWasWritten) {
  const auto memory = sample();
  const auto again = memoryFromText(memoryToText(memory));
  EXPECT_EQ(again.clusterId, memory.clusterId);
  EXPECT_EQ(again.revision, 120);
  EXPECT_EQ(again.listed, 118);
  EXPECT_EQ(again.past, memory.past);
  EXPECT_EQ(again.doubt, memory.doubt);
  ASSERT_EQ(again.volumes.size(), 1u);
  EXPECT_EQ(again.volumes[0].current, memory.volumes[0].current);
  EXPECT_EQ(again.volumes[0].revision, revisionOf(3, 97));
  EXPECT_EQ(generationOf(again.volumes[0].revision), 3u);
  EXPECT_EQ(modRevisionOf(again.volumes[0].revision), 97);
  ASSERT_EQ(again.nodes.size(), 1u);
  EXPECT_EQ(again.nodes[0].rpcAddress, "h:1");
}

TEST(EtcdMemory, EveryChangedByteIsFoundOut) {
  const std::string text = memoryToText(sample());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_NE(refusal(changed), "") << "at byte " << i;
  }
  for (size_t i = 0; i < text.size(); ++i) EXPECT_NE(refusal(text.substr(0, i)), "") << i;
  EXPECT_THAT(refusal("nonsense"), HasSubstr("does not begin"));
}

TEST(EtcdMemory, AMarkerCoversThoseThatWereAskedAndThoseThatKnowNoMore) {
  auto memory = sample();
  EtcdPastMarker marker;
  marker.nodes = {"a", "b"};
  marker.continues = {{memory.clusterId, memory.past, 120}};
  marker = markerFromJson(markerToJson(marker));
  EXPECT_TRUE(marker.covers("c", memory));
  memory.revision = 121;
  EXPECT_FALSE(marker.covers("c", memory));
  EXPECT_TRUE(marker.covers("b", memory)) << "it was asked";
  memory.past.bytes[0] = 1;
  EXPECT_FALSE(marker.covers("b", memory)) << "it comes from another past";
  memory = sample();
  memory.clusterId = 1;
  EXPECT_FALSE(marker.covers("a", memory));
}

}  // namespace
}  // namespace packmoor::rpc
