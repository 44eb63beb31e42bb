// Goal: the journal keeps each volume's log in order over restarts, shares batches, recycles
// segments, and answers from memory and from disk. Method: scripts on a simulated disk with small
// segments; no faults (see journal_power_test.cc and journal_damage_test.cc for those).
#include "journal_fixture.h"

namespace packmoor::replicator {
namespace {

using kernelio::SimStorage;
using kernelio::VirtualLoop;

class JournalTest : public testing::Test {
 protected:
  VirtualLoop loop_;
  SimStorage storage_{7};
  const VolumeId a_ = volumeId(1), b_ = volumeId(2);
};

TEST_F(JournalTest, CreatesAndReopensEmpty) {
  Uuid id;
  {
    JournalNode node(loop_, storage_);
    node.open();
    EXPECT_TRUE(node.report().created);
    EXPECT_TRUE(node.report().volumes.empty());
    id = node.journal().uuid();
    EXPECT_FALSE(id.isNull());
    EXPECT_EQ(node.journal().last(a_), LogPosition());
    node.close();
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_FALSE(node.report().created);
  EXPECT_EQ(node.journal().uuid(), id);
  EXPECT_EQ(sentences(node.report()), "");
}

TEST_F(JournalTest, AbsentJournalIsAnErrorWhenNotCreating) {
  JournalNode node(loop_, storage_);
  auto options = JournalNode::smallOptions();
  options.create = false;
  EXPECT_ANY_THROW(node.open(options));
}

TEST_F(JournalTest, RecordsOfTwoVolumesComeBackInOrder) {
  std::vector<RecordRef> wantedA, wantedB;
  {
    JournalNode node(loop_, storage_);
    node.open();
    for (uint64_t i = 0; i < 40; ++i) {
      auto& wanted = i % 3 == 0 ? wantedB : wantedA;
      const VolumeId id = i % 3 == 0 ? b_ : a_;
      auto record = nextRecord(node.journal().last(id), Epoch(1 + i / 10), i * 37 % 900, i, i % 4);
      wanted.push_back(record);
      loop_.wait(node.journal().append(id, record));
      EXPECT_EQ(node.journal().durable(id), positionOf(*record));
    }
  }
  JournalNode node(loop_, storage_, 2);
  node.open();
  EXPECT_EQ(sentences(node.report()), "");
  ASSERT_EQ(node.report().volumes.size(), 2u);
  for (auto& [id, wanted] : {std::pair(a_, wantedA), std::pair(b_, wantedB)}) {
    EXPECT_EQ(node.report().volumes[id].last, positionOf(*wanted.back()));
    EXPECT_EQ(node.report().volumes[id].base, LogPosition());
    EXPECT_FALSE(node.report().volumes[id].suspect);
    auto read = node.readAll(id, 2000);
    ASSERT_EQ(read.size(), wanted.size());
    for (size_t i = 0; i < read.size(); ++i) {
      EXPECT_EQ(read[i]->hash, wanted[i]->hash);
      EXPECT_EQ(read[i]->extents, wanted[i]->extents);
      EXPECT_EQ(read[i]->payload.asPtr(), wanted[i]->payload.asPtr());
      auto position = node.journal().position(id, read[i]->index);
      KJ_IF_MAYBE (p, position) { EXPECT_EQ(*p, positionOf(*wanted[i])); }
      else { ADD_FAILURE(); }
    }
  }
}

}  // namespace
}  // namespace packmoor::replicator
