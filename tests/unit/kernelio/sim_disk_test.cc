// Goal: SimDisk keeps across a power cut what disk.h calls durable, may lose or tear the rest,
// and does each fault as sim_disk.h says. Method: small scripts over many seeds.
#include "kernelio/sim_disk.h"

#include "kernelio/sim_env.h"

#include <gtest/gtest.h>

#include <set>

namespace packmoor::kernelio {
namespace {

IoBuffer filled(size_t bytes, kj::byte value) {
  IoBuffer buffer = IoBuffer::allocate(bytes);
  std::fill(buffer.begin(), buffer.begin() + bytes, value);
  return buffer;
}

constexpr OpenOptions kMake{.write = true, .create = true};

class SimDiskTest : public testing::Test {
 protected:
  // One node's life on a storage.
  struct Node {
    Node(VirtualLoop& loop, SimStorage& storage) : loop(loop), env(loop, storage, 1) {}
    Disk& disk() { return env.disk(); }
    kj::Own<File> open(kj::StringPtr path, OpenOptions options = kMake) {
      return loop.wait(disk().open(path, options));
    }
    VirtualLoop& loop;
    SimEnv env;
  };

  VirtualLoop loop_;
};

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
    IoBuffer data = loop_.wait(node.open("a", {})->read(0, 4096));
    std::set<kj::byte> values(data.begin(), data.begin() + data.size());
    for (kj::byte value : values) EXPECT_TRUE(value == 1 || value == 2);
    seen.insert(values.size() == 2 ? 3 : *values.begin());
  }
  EXPECT_EQ(seen, (std::set<int>{1, 2, 3}));
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
    std::string names;
    for (auto& name : loop_.wait(node.disk().list(""))) names += name.cStr();
    outcomes.insert(names);
  }
  EXPECT_EQ(outcomes, (std::set<std::string>{"a", "b", "bc"}));
}

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

}  // namespace
}  // namespace packmoor::kernelio
