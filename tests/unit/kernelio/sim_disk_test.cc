// Goal: SimDisk keeps across a power cut what disk.h calls durable, and may lose or tear the rest.
// Method: small scripts, over many seeds where chance decides. Faults are in sim_faults_test.cc.
#include "sim_fixture.h"

#include <set>
#include <vector>

namespace packmoor::kernelio {
namespace {

using simtest::filled;
using simtest::kMake;

class SimDiskTest : public simtest::SimFixture {};

TEST_F(SimDiskTest, DurableWritesAndSyncedNamesSurvive) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SimStorage storage(seed);
    {
      Node node(loop_, storage);
      auto file = node.open("a");
      loop_.wait(file->write(0, filled(8192, 1), WriteMode::kDurable));
      loop_.wait(file->write(8192, filled(4096, 2), WriteMode::kBuffered));
      loop_.wait(file->sync());
      loop_.wait(node.disk().syncDirectory(""));
    }
    storage.crash();
    Node node(loop_, storage);
    auto file = node.open("a", {});
    EXPECT_EQ(file->size(), 12288u);
    IoBuffer data = loop_.wait(file->read(0, 20000));
    ASSERT_EQ(data.size(), 12288u);
    EXPECT_EQ(data.begin()[8191], 1);
    EXPECT_EQ(data.begin()[8192], 2);
  }
}

// What one sector holds after a crash: 1 or 2, or 3 for a mix of both.
int sectorOutcome(const IoBuffer& data) {
  std::set<kj::byte> values(data.begin(), data.begin() + data.size());
  for (kj::byte value : values) EXPECT_TRUE(value == 1 || value == 2);
  return values.size() == 2 ? 3 : *values.begin();
}

TEST_F(SimDiskTest, UnsyncedSectorsAreKeptLostOrTorn) {
  std::set<int> seen;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SimStorage storage(seed);
    {
      Node node(loop_, storage);
      auto file = node.open("a");
      loop_.wait(file->write(0, filled(4096, 1), WriteMode::kDurable));
      loop_.wait(node.disk().syncDirectory(""));
      loop_.wait(file->write(0, filled(4096, 2), WriteMode::kBuffered));
    }
    storage.crash();
    Node node(loop_, storage);
    seen.insert(sectorOutcome(loop_.wait(node.open("a", {})->read(0, 4096))));
  }
  EXPECT_EQ(seen, (std::set<int>{1, 2, 3}));
}

TEST_F(SimDiskTest, ADurableWriteInFlightIsKeptLostOrTorn) {
  std::set<int> seen;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SimStorage storage(seed);
    {
      Node node(loop_, storage);
      auto file = node.open("a");
      loop_.wait(file->write(0, filled(4096, 1), WriteMode::kDurable));
      loop_.wait(node.disk().syncDirectory(""));
      storage.cutPowerAt(storage.writeBoundaries() + 1, PowerCut::kDuring);
      auto write = file->write(0, filled(4096, 2), WriteMode::kDurable);
      loop_.wait(storage.whenPowerLost());
      loop_.settle();
      EXPECT_FALSE(write.poll(loop_.waitScope()));
    }
    storage.crash();
    Node node(loop_, storage);
    seen.insert(sectorOutcome(loop_.wait(node.open("a", {})->read(0, 4096))));
  }
  EXPECT_EQ(seen, (std::set<int>{1, 2, 3}));
}

TEST_F(SimDiskTest, AfterTheCutAWriteIsThereButNobodyKnows) {
  SimStorage storage(1);
  {
    Node node(loop_, storage);
    auto file = node.open("a");
    loop_.wait(node.disk().syncDirectory(""));
    storage.cutPowerAt(storage.writeBoundaries() + 1, PowerCut::kAfter);
    auto write = file->write(0, filled(4096, 2), WriteMode::kDurable);
    loop_.wait(storage.whenPowerLost());
    EXPECT_FALSE(storage.powered());
    EXPECT_FALSE(write.poll(loop_.waitScope()));
    // Nothing goes on without power, and nothing of it counts.
    auto more = file->write(0, filled(4096, 9), WriteMode::kDurable);
    auto read = file->read(0, 10);
    auto name = node.disk().makeFolders("f");
    EXPECT_FALSE(more.poll(loop_.waitScope()));
    EXPECT_FALSE(read.poll(loop_.waitScope()));
    EXPECT_FALSE(name.poll(loop_.waitScope()));
  }
  storage.crash();
  EXPECT_TRUE(storage.powered());
  Node node(loop_, storage);
  EXPECT_EQ(listed(node, ""), "a");
  IoBuffer data = loop_.wait(node.open("a", {})->read(0, 4096));
  EXPECT_EQ(data.begin()[0], 2);
  EXPECT_EQ(data.begin()[4095], 2);
}

TEST_F(SimDiskTest, AProcessDeathLosesNothing) {
  SimStorage storage(1);
  {
    Node node(loop_, storage);
    auto file = node.open("a");
    loop_.wait(file->write(0, filled(100, 1), WriteMode::kBuffered));
    auto inFlight = file->write(100, filled(100, 2), WriteMode::kBuffered);
  }
  Node node(loop_, storage);
  auto file = node.open("a", {});
  EXPECT_EQ(file->size(), 200u);
}

TEST_F(SimDiskTest, ASyncCoversWhatWasCompleteBeforeIt) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SimStorage storage(seed);
    storage.setTiming({.syncMin = 1 * kj::SECONDS, .syncMax = 1 * kj::SECONDS});
    {
      Node node(loop_, storage);
      auto file = node.open("a");
      loop_.wait(file->write(0, filled(4096, 1), WriteMode::kBuffered));
      auto sync = file->sync();
      loop_.wait(file->write(0, filled(4096, 2), WriteMode::kBuffered));
      loop_.wait(kj::mv(sync));
      loop_.wait(node.disk().syncDirectory(""));
    }
    auto durable = storage.durableContent("a");
    EXPECT_EQ(KJ_ASSERT_NONNULL(durable)[0], 1);
    auto current = storage.content("a");
    EXPECT_EQ(KJ_ASSERT_NONNULL(current)[0], 2);
    storage.crash();
    Node node(loop_, storage);
    sectorOutcome(loop_.wait(node.open("a", {})->read(0, 4096)));  // never zeros
  }
}

TEST_F(SimDiskTest, AnUnsyncedTruncationIsDoneOrNot) {
  std::set<uint64_t> sizes;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SimStorage storage(seed);
    {
      Node node(loop_, storage);
      auto file = node.open("a");
      loop_.wait(file->write(0, filled(3 * 4096, 1), WriteMode::kDurable));
      loop_.wait(node.disk().syncDirectory(""));
      loop_.wait(file->truncate(4096));
    }
    storage.crash();
    Node node(loop_, storage);
    auto file = node.open("a", {});
    IoBuffer data = loop_.wait(file->read(0, 3 * 4096));
    EXPECT_EQ(std::count(data.begin(), data.begin() + data.size(), 1),
              static_cast<ptrdiff_t>(data.size()));
    sizes.insert(file->size());
  }
  EXPECT_EQ(sizes, (std::set<uint64_t>{4096, 3 * 4096}));
}

TEST_F(SimDiskTest, ASyncedTruncationIsForGood) {
  SimStorage storage(3);
  {
    Node node(loop_, storage);
    auto file = node.open("a");
    loop_.wait(file->write(0, filled(3 * 4096, 1), WriteMode::kDurable));
    loop_.wait(node.disk().syncDirectory(""));
    loop_.wait(file->truncate(100));
    loop_.wait(file->sync());
    loop_.wait(file->truncate(8192));
    loop_.wait(file->sync());
  }
  storage.crash();
  Node node(loop_, storage);
  IoBuffer data = loop_.wait(node.open("a", {})->read(0, 10000));
  ASSERT_EQ(data.size(), 8192u);
  EXPECT_EQ(std::count(data.begin(), data.begin() + data.size(), 1), 100);
}

// ---- Names --------------------------------------------------------------------------------------

TEST_F(SimDiskTest, NamesSurviveAsAPrefix) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SimStorage storage(seed);
    {
      Node node(loop_, storage);
      node.open("a");
      loop_.wait(node.disk().syncDirectory(""));
      loop_.wait(node.disk().rename("a", "b"));
      node.open("c");
    }
    storage.crash();
    Node node(loop_, storage);
    outcomes.insert(listed(node, ""));
  }
  EXPECT_EQ(outcomes, (std::set<std::string>{"a", "b", "bc"}));
}

TEST_F(SimDiskTest, ARenameBetweenFoldersIsNeverHalfDone) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (kj::StringPtr synced : {"", "f", "g"}) {
      SimStorage storage(seed);
      {
        Node node(loop_, storage);
        loop_.wait(node.disk().makeFolders("f"));
        loop_.wait(node.disk().makeFolders("g"));
        node.open("f/a");
        loop_.wait(node.disk().syncDirectory(""));
        loop_.wait(node.disk().syncDirectory("f"));
        node.open("f/z");
        loop_.wait(node.disk().rename("f/a", "g/b"));
        if (synced != "") loop_.wait(node.disk().syncDirectory(synced));
      }
      storage.crash();
      Node node(loop_, storage);
      std::string outcome = listed(node, "f") + "," + listed(node, "g");
      // Syncing either folder makes the rename durable, and what came before it in the other.
      if (synced != "") {
        EXPECT_EQ(outcome, "z,b") << "seed " << seed;
      } else {
        outcomes.insert(outcome);
      }
    }
  }
  EXPECT_EQ(outcomes, (std::set<std::string>{"a,", "az,", "z,b"}));
}

TEST_F(SimDiskTest, AFolderThatIsNotDurableIsLostWithItsFiles) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SimStorage storage(seed);
    {
      Node node(loop_, storage);
      loop_.wait(node.disk().makeFolders("f"));
      auto file = node.open("f/a");
      loop_.wait(file->write(0, filled(10, 1), WriteMode::kDurable));
      loop_.wait(node.disk().syncDirectory("f"));  // but not of ""
    }
    storage.crash();
    Node node(loop_, storage);
    lost += loop_.wait(node.disk().exists("f/a")) ? 0 : 1;
  }
  EXPECT_GT(lost, 0);
  EXPECT_LT(lost, 30);
}

TEST_F(SimDiskTest, ARemovedNameMayComeBackUntilTheFolderIsSynced) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    for (bool synced : {false, true}) {
      SimStorage storage(seed);
      {
        Node node(loop_, storage);
        auto file = node.open("a");
        loop_.wait(file->write(0, filled(10, 5), WriteMode::kDurable));
        loop_.wait(node.disk().syncDirectory(""));
        loop_.wait(node.disk().remove("a"));
        if (synced) loop_.wait(node.disk().syncDirectory(""));
      }
      storage.crash();
      Node node(loop_, storage);
      std::string names = listed(node, "");
      if (synced) {
        EXPECT_EQ(names, "");
      } else {
        outcomes.insert(names);
      }
      if (names == "a") {
        EXPECT_EQ(node.open("a", {})->size(), 10u);
      }
    }
  }
  EXPECT_EQ(outcomes, (std::set<std::string>{"", "a"}));
}

// ---- Every boundary -----------------------------------------------------------------------------

TEST_F(SimDiskTest, ReplaceFileLeavesOldOrNewAtEveryBoundary) {
  kj::StringPtr oldText = "old", newText = "the new content";
  uint64_t boundaries = 0;
  for (uint64_t cut = 1; cut <= 20; ++cut) {
    for (PowerCut when : {PowerCut::kDuring, PowerCut::kAfter}) {
      for (uint64_t seed = 0; seed < 10; ++seed) {
        SimStorage storage(seed);
        bool done = false;
        {
          Node node(loop_, storage);
          loop_.wait(replaceFile(node.disk(), "f", oldText.asBytes()));
          uint64_t before = storage.writeBoundaries();
          storage.cutPowerAt(before + cut, when);
          auto replace = replaceFile(node.disk(), "f", newText.asBytes()).then([&done]() {
            done = true;
          });
          loop_.wait(replace.exclusiveJoin(storage.whenPowerLost()));
          if (done) boundaries = storage.writeBoundaries() - before;
        }
        storage.crash();
        Node node(loop_, storage);
        auto read = loop_.wait(readWholeFile(node.disk(), "f", 100));
        auto content = kj::heapString(KJ_ASSERT_NONNULL(read).asChars());
        EXPECT_TRUE(content == newText || (!done && content == oldText))
            << "seed " << seed << " cut " << cut << " read " << content.cStr();
      }
    }
  }
  EXPECT_GE(boundaries, 4u);
}

TEST_F(SimDiskTest, TheSameSeedGivesTheSameDisk) {
  auto run = [this](uint64_t seed) {
    SimStorage storage(seed);
    storage.setTiming({.writeMin = 1 * kj::MICROSECONDS, .writeMax = 1 * kj::MILLISECONDS});
    {
      Node node(loop_, storage);
      auto file = node.open("a");
      loop_.wait(file->allocate(60'000));
      loop_.wait(file->sync());
      loop_.wait(node.disk().syncDirectory(""));
      kj::Vector<kj::Promise<void>> writes;
      for (int i = 0; i < 50; ++i) {
        writes.add(file->write(i * 1000, filled(3000, i), WriteMode::kBuffered));
      }
      loop_.wait(kj::joinPromises(writes.releaseAsArray()));
    }
    storage.crash();
    auto content = storage.content("a");
    auto& bytes = KJ_ASSERT_NONNULL(content);
    return std::string(bytes.asChars().begin(), bytes.size());
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

TEST_F(SimDiskTest, ACrashWithADiskStillThereEndsTheProcess) {
  SimStorage storage(1);
  Node node(loop_, storage);
  EXPECT_DEATH(storage.crash(), "SimDisk is still there");
}

}  // namespace
}  // namespace packmoor::kernelio
