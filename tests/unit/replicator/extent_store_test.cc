// Goal: extents are written in any order, sealed once, read back verified, kept while held and
// expired after; what open() finds after a power cut at any write is either sealed and whole or
// absent. Method: scripts on a simulated disk; the power cut at every write boundary.
#include "replicator/extent_store.h"

#include "kernelio/co.h"
#include "kernelio/sim_env.h"
#include "replicator/extent_format.h"

#include "replicator/outcome.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace packmoor::replicator {
namespace {

using kernelio::IoBuffer;
using kernelio::SimEnv;
using kernelio::SimFault;
using kernelio::SimFaultKind;
using kernelio::SimStorage;
using kernelio::VirtualLoop;

ExtentId extentId(uint8_t number) {
  ExtentId id;
  id.bytes.fill(number);
  return id;
}

IoBuffer blockOf(size_t bytes, uint64_t seed) {
  IoBuffer data = IoBuffer::allocate(bytes);
  for (size_t i = 0; i < bytes; i += 64) {
    data.begin()[i] = static_cast<kj::byte>(seed + i / 64 * 7);
  }
  return data;
}

Hash128 sumOf(const IoBuffer& data) { return hashBytes(data.bytes()); }

struct Node {
  Node(VirtualLoop& loop, SimStorage& storage, ExtentStoreOptions options = {})
      : loop(loop), sim(loop, storage, 1) {
    store = loop.wait(ExtentStore::open(sim.env(), options));
  }

  kj::Own<ExtentWriter> begin(ExtentId id) { return loop.wait(store->begin(id)); }
  void write(ExtentWriter& writer, uint64_t block, size_t bytes, uint64_t seed) {
    IoBuffer data = blockOf(bytes, seed);
    loop.wait(writer.writeBlock(block, data, sumOf(data)));
  }
  ExtentInfo seal(ExtentWriter& writer, uint64_t bytes) {
    return loop.wait(writer.seal(bytes, nullptr));
  }
  // An extent of two blocks, the second of 100 bytes.
  ExtentInfo make(ExtentId id, uint64_t seed) {
    auto writer = begin(id);
    write(*writer, 1, 100, seed + 1);
    write(*writer, 0, kBlockBytes, seed);
    return seal(*writer, kBlockBytes + 100);
  }
  std::string failureOf(kj::Promise<void> promise) {
    std::string text;
    loop.wait(promise.catch_([&](kj::Exception&& e) { text = e.getDescription().cStr(); }));
    return text;
  }

  VirtualLoop& loop;
  SimEnv sim;
  kj::Own<ExtentStore> store;
};

class ExtentStoreTest : public testing::Test {
 protected:
  VirtualLoop loop_;
  SimStorage storage_{3};
  const ExtentId a_ = extentId(0xa1), b_ = extentId(0xb2);
};

TEST_F(ExtentStoreTest, BlockSizes) {
  EXPECT_EQ(blockBytesAt(0, 0), 0u);
  EXPECT_EQ(blockBytesAt(1, 0), 1u);
  EXPECT_EQ(blockBytesAt(kBlockBytes, 0), kBlockBytes);
  EXPECT_EQ(blockBytesAt(kBlockBytes, 1), 0u);
  EXPECT_EQ(blockBytesAt(kBlockBytes + 5, 1), 5u);
}

TEST_F(ExtentStoreTest, SealsReadsAndSurvivesARestart) {
  ExtentInfo info;
  {
    Node node(loop_, storage_);
    EXPECT_FALSE(node.store->isSealed(a_));
    auto sealed = node.store->whenSealed(a_);
    EXPECT_FALSE(sealed.poll(loop_.waitScope()));
    info = node.make(a_, 5);
    loop_.wait(kj::mv(sealed));
    loop_.wait(node.store->whenSealed(a_));
    EXPECT_TRUE(node.store->isSealed(a_));
    EXPECT_EQ(node.store->statistics().pinned, 1u);
  }
  Node node(loop_, storage_);
  ASSERT_TRUE(node.store->isSealed(a_));
  EXPECT_EQ(KJ_ASSERT_NONNULL(node.store->info(a_)).root, info.root);
  EXPECT_EQ(node.store->blockChecksums(a_).size(), 2u);
  EXPECT_EQ(extentRoot(info.bytes, node.store->blockChecksums(a_)), info.root);
  auto data = loop_.wait(node.store->readBlock(a_, 1));
  EXPECT_EQ(data.size(), 100u);
  EXPECT_EQ(sumOf(data), sumOf(blockOf(100, 6)));
  EXPECT_EQ(loop_.wait(node.store->readBlock(a_, 0)).size(), kBlockBytes);
  EXPECT_EQ(node.store->list().size(), 1u);
  EXPECT_EQ(node.store->statistics().sealedBytes, info.bytes);
  EXPECT_EQ(node.store->statistics().blocksVerified, 2u);
  EXPECT_ANY_THROW(loop_.wait(node.store->readBlock(a_, 2)));
  EXPECT_ANY_THROW(loop_.wait(node.store->readBlock(b_, 0)));
}

TEST_F(ExtentStoreTest, EmptyExtent) {
  Node node(loop_, storage_);
  auto writer = node.begin(a_);
  auto info = node.seal(*writer, 0);
  EXPECT_EQ(info.root, extentRoot(0, nullptr));
  EXPECT_TRUE(node.store->isSealed(a_));
}

TEST_F(ExtentStoreTest, RefusesWrongBlocksAndRoots) {
  Node node(loop_, storage_);
  auto writer = node.begin(a_);
  IoBuffer data = blockOf(kBlockBytes, 1);
  Hash128 wrong = sumOf(data);
  wrong.low ^= 1;
  EXPECT_ANY_THROW(loop_.wait(writer->writeBlock(0, data, wrong)));
  EXPECT_ANY_THROW(loop_.wait(writer->writeBlock(format::kExtentBlocksMax, data, sumOf(data))));
  EXPECT_ANY_THROW(node.seal(*writer, kBlockBytes));                     // missing
  node.write(*writer, 0, 100, 1);
  EXPECT_ANY_THROW(node.seal(*writer, kBlockBytes));                     // too short
  node.write(*writer, 0, kBlockBytes, 2);                                // the last write counts
  node.write(*writer, 1, 10, 3);
  EXPECT_ANY_THROW(node.seal(*writer, kBlockBytes));                     // a block too many
  EXPECT_ANY_THROW(loop_.wait(writer->seal(kBlockBytes + 10, Hash128{1, 2})));
  EXPECT_FALSE(node.store->isSealed(a_));
  node.seal(*writer, kBlockBytes + 10);
  EXPECT_EQ(node.store->blockChecksums(a_)[0], sumOf(blockOf(kBlockBytes, 2)));
  EXPECT_ANY_THROW(node.seal(*writer, kBlockBytes + 10));
}

TEST_F(ExtentStoreTest, ConcurrentWritesOfABlockFollowEachOther) {
  Node node(loop_, storage_);
  auto writer = node.begin(a_);
  kj::Vector<kj::Promise<void>> writes;
  for (uint64_t i = 0; i < 5; ++i) {
    IoBuffer data = blockOf(1000, i);
    writes.add(writer->writeBlock(0, data, sumOf(data)));
  }
  loop_.wait(kj::joinPromises(writes.releaseAsArray()));
  node.seal(*writer, 1000);
  EXPECT_EQ(node.store->blockChecksums(a_)[0], sumOf(blockOf(1000, 4)));
  EXPECT_EQ(sumOf(loop_.wait(node.store->readBlock(a_, 0))), sumOf(blockOf(1000, 4)));
}

TEST_F(ExtentStoreTest, AnIdIsWrittenOnce) {
  Node node(loop_, storage_);
  auto writer = node.begin(a_);
  EXPECT_ANY_THROW(node.begin(a_));
  node.write(*writer, 0, 10, 1);
  node.seal(*writer, 10);
  EXPECT_ANY_THROW(node.begin(a_));
}

// Callers go another way when an id is taken; they look at the promise.
TEST_F(ExtentStoreTest, ARefusedBeginIsAPromiseThatRejects) {
  Node node(loop_, storage_, {.quarantinedMax = 1});
  auto writer = node.begin(a_);
  for (const ExtentId& id : {a_, b_}) {
    auto begun = node.store->begin(id);
    auto outcome = loop_.wait(outcomeOf(kj::mv(begun)));
    EXPECT_FALSE(outcome.ok());
  }
  node.write(*writer, 0, 10, 1);
  node.seal(*writer, 10);
  auto sealed = loop_.wait(outcomeOf(node.store->begin(a_)));
  EXPECT_FALSE(sealed.ok());
}

TEST_F(ExtentStoreTest, DroppedWriterLeavesNothing) {
  Node node(loop_, storage_);
  {
    auto writer = node.begin(a_);
    node.write(*writer, 0, kBlockBytes, 1);
  }
  EXPECT_EQ(node.store->statistics().quarantined, 0u);
  // The id is free at once; the new writer waits for the removal.
  node.make(a_, 1);
  loop_.settle();
  EXPECT_TRUE(node.store->isSealed(a_));
  EXPECT_EQ(loop_.wait(node.sim.disk().list("extents/quarantine")).size(), 0u);
  EXPECT_EQ(loop_.wait(node.store->readBlock(a_, 0)).size(), kBlockBytes);
}

TEST_F(ExtentStoreTest, QuarantineIsBounded) {
  Node node(loop_, storage_, {.quarantinedMax = 1});
  auto writer = node.begin(a_);
  auto refused = kj::runCatchingExceptions([&]() { node.begin(b_); });
  EXPECT_EQ(KJ_ASSERT_NONNULL(refused).getType(), kj::Exception::Type::OVERLOADED);
  writer = nullptr;
  node.begin(b_);
}

TEST_F(ExtentStoreTest, OpeningRemovesTheQuarantine) {
  {
    Node node(loop_, storage_);
    auto writer = node.begin(a_);
    node.write(*writer, 0, 10, 1);
    // The process dies here: the writer must not get to clean up.
    storage_.cutPower();
  }
  storage_.crash();
  Node node(loop_, storage_);
  EXPECT_FALSE(node.store->isSealed(a_));
  EXPECT_EQ(loop_.wait(node.sim.disk().list("extents/quarantine")).size(), 0u);
}

TEST_F(ExtentStoreTest, UnheldExtentsExpire) {
  Node node(loop_, storage_, {.expiryMs = 1000});
  node.make(a_, 1);
  node.make(b_, 2);
  node.store->startExpiry();
  node.store->unpin(a_);
  loop_.runFor(999 * kj::MILLISECONDS);
  EXPECT_TRUE(node.store->isSealed(a_));
  node.store->pin(a_);
  node.store->unpin(a_);  // begins anew
  loop_.runFor(999 * kj::MILLISECONDS);
  EXPECT_TRUE(node.store->isSealed(a_));
  loop_.runFor(2 * kj::MILLISECONDS);
  EXPECT_FALSE(node.store->isSealed(a_));
  EXPECT_TRUE(node.store->isSealed(b_));  // pinned
  node.store->link(b_);
  node.store->unpin(b_);
  node.store->unpin(b_);  // one too many does nothing
  loop_.runFor(5 * kj::SECONDS);
  EXPECT_TRUE(node.store->isSealed(b_));  // linked
  node.store->unlink(b_);
  loop_.runFor(2 * kj::SECONDS);
  EXPECT_FALSE(node.store->isSealed(b_));
  EXPECT_EQ(node.store->statistics().expired, 2u);
  EXPECT_EQ(node.store->statistics().sealedBytes, 0u);
  EXPECT_EQ(loop_.wait(node.sim.disk().list("extents/sealed/a1")).size(), 0u);
  node.make(a_, 3);  // the id may come again
}

TEST_F(ExtentStoreTest, ExpiryBeginsOnlyWhenStarted) {
  {
    Node node(loop_, storage_);
    node.make(a_, 1);
  }
  Node node(loop_, storage_, {.expiryMs = 1000});
  loop_.runFor(1 * kj::HOURS);
  EXPECT_TRUE(node.store->isSealed(a_));
  node.store->startExpiry();
  loop_.runFor(900 * kj::MILLISECONDS);
  EXPECT_TRUE(node.store->isSealed(a_));
  loop_.runFor(200 * kj::MILLISECONDS);
  EXPECT_FALSE(node.store->isSealed(a_));
}

TEST_F(ExtentStoreTest, BadBlocksAreFoundAndRepaired) {
  Node node(loop_, storage_);
  node.make(a_, 9);
  storage_.rot(node.store->path(a_), 5 * 4096, 1);
  std::string problem = node.failureOf(node.store->readBlock(a_, 0).ignoreResult());
  EXPECT_NE(problem.find("Block 0 of extent a1a1"), std::string::npos) << problem;
  EXPECT_EQ(node.store->statistics().blocksBad, 1u);
  EXPECT_EQ(node.store->statistics().blocksStanding, 1u);
  node.failureOf(node.store->readBlock(a_, 0).ignoreResult());
  EXPECT_EQ(node.store->statistics().blocksBad, 1u);  // the same one
  EXPECT_ANY_THROW(loop_.wait(node.store->repairBlock(a_, 0, blockOf(kBlockBytes, 1))));
  loop_.wait(node.store->repairBlock(a_, 0, blockOf(kBlockBytes, 9)));
  EXPECT_EQ(sumOf(loop_.wait(node.store->readBlock(a_, 0))), sumOf(blockOf(kBlockBytes, 9)));
  EXPECT_EQ(node.store->statistics().blocksStanding, 0u);
  storage_.breakSectors(node.store->path(a_), kBlockBytes, 1);
  problem = node.failureOf(node.store->readBlock(a_, 1).ignoreResult());
  EXPECT_NE(problem.find("Block 1"), std::string::npos) << problem;
  EXPECT_EQ(node.store->statistics().blocksRepaired, 1u);
}

TEST_F(ExtentStoreTest, DamagedSidecarMeansAbsentUntilWrittenAgain) {
  std::string sum;
  {
    Node node(loop_, storage_);
    node.make(a_, 9);
    sum = node.store->path(a_).cStr();
    sum.replace(sum.rfind(".data"), 5, ".sum");
  }
  storage_.rot(sum.c_str(), 0, 100);
  {
    Node node(loop_, storage_);
    EXPECT_FALSE(node.store->isSealed(a_));
    ASSERT_EQ(node.store->damage().size(), 1u);
    EXPECT_EQ(node.store->statistics().damaged, 1u);
    node.make(a_, 9);
  }
  Node node(loop_, storage_);
  EXPECT_TRUE(node.store->isSealed(a_));
  EXPECT_EQ(node.store->damage().size(), 0u);
}

TEST_F(ExtentStoreTest, FullDiskIsSaidAndLeavesNothing) {
  Node node(loop_, storage_);
  storage_.setCapacity(300u << 10);
  auto writer = node.begin(a_);
  node.write(*writer, 0, kBlockBytes, 1);
  IoBuffer data = blockOf(kBlockBytes, 2);
  auto refused =
      kj::runCatchingExceptions([&]() { loop_.wait(writer->writeBlock(1, data, sumOf(data))); });
  auto& exception = KJ_ASSERT_NONNULL(refused);
  EXPECT_EQ(exception.getType(), kj::Exception::Type::OVERLOADED);
  EXPECT_TRUE(strstr(exception.getDescription().cStr(), "the disk is full") != nullptr);
  EXPECT_ANY_THROW(loop_.wait(writer->writeBlock(0, data, sumOf(data))));
  EXPECT_ANY_THROW(node.seal(*writer, 2 * kBlockBytes));
  loop_.settle();
  EXPECT_EQ(loop_.wait(node.sim.disk().list("extents/quarantine")).size(), 0u);
  EXPECT_EQ(node.store->statistics().quarantined, 0u);
  node.make(b_, 1);  // there is room again
}

TEST_F(ExtentStoreTest, DiskErrorsFailTheSeal) {
  for (auto kind : {SimFaultKind::kWriteError, SimFaultKind::kSyncError}) {
    for (uint64_t skip = 0; skip < 2; ++skip) {
      Node node(loop_, storage_);
      auto writer = node.begin(a_);
      node.write(*writer, 0, 10, 1);
      SimFault fault;
      fault.kind = kind;
      fault.pathPrefix = "extents";
      fault.skip = kind == SimFaultKind::kWriteError ? 0 : skip;
      storage_.inject(fault);
      EXPECT_ANY_THROW(node.seal(*writer, 10));
      storage_.clearFaults();
      EXPECT_FALSE(node.store->isSealed(a_));
      writer = nullptr;
      loop_.settle();
    }
  }
}

// The workload whose every write boundary gets a power cut: two extents at once.
Co<void> twoExtents(ExtentStore& store, ExtentId a, ExtentId b, std::vector<ExtentId>& done) {
  auto first = co_await store.begin(a);
  auto second = co_await store.begin(b);
  IoBuffer data = blockOf(kBlockBytes, 1);
  IoBuffer tail = blockOf(5000, 2);
  co_await first->writeBlock(0, data, sumOf(data));
  co_await second->writeBlock(1, tail, sumOf(tail));
  co_await first->writeBlock(1, tail, sumOf(tail));
  co_await first->seal(kBlockBytes + 5000, nullptr);
  done.push_back(a);
  co_await second->writeBlock(0, data, sumOf(data));
  co_await second->seal(kBlockBytes + 5000, nullptr);
  done.push_back(b);
}

TEST_F(ExtentStoreTest, PowerCutAtEveryWrite) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    uint64_t boundaries = 1;
    for (uint64_t cut = 1; cut <= boundaries; ++cut) {
      for (auto when : {kernelio::PowerCut::kDuring, kernelio::PowerCut::kAfter}) {
        SCOPED_TRACE("seed " + std::to_string(seed) + " cut " + std::to_string(cut));
        SimStorage storage(seed);
        std::vector<ExtentId> done;
        storage.cutPowerAt(cut, when);
        {
          SimEnv sim(loop_, storage, seed);
          auto opening = ExtentStore::open(sim.env(), {});
          if (opening.poll(loop_.waitScope())) {
            auto store = loop_.wait(kj::mv(opening));
            kj::Promise<void> work = twoExtents(*store, a_, b_, done);
            if (work.poll(loop_.waitScope())) {
              loop_.wait(kj::mv(work));
              boundaries = storage.writeBoundaries();
            } else {
              boundaries = std::max(boundaries, cut + 1);
            }
          } else {
            boundaries = std::max(boundaries, cut + 1);
          }
        }
        storage.crash();
        Node node(loop_, storage);
        EXPECT_EQ(node.store->damage().size(), 0u);
        for (auto& id : done) EXPECT_TRUE(node.store->isSealed(id));
        for (auto& info : node.store->list()) {
          EXPECT_EQ(info.bytes, kBlockBytes + 5000);
          EXPECT_EQ(loop_.wait(node.store->readBlock(info.id, 0)).size(), kBlockBytes);
          EXPECT_EQ(loop_.wait(node.store->readBlock(info.id, 1)).size(), 5000u);
        }
        if (!node.store->isSealed(b_)) node.make(b_, 4);
      }
    }
    EXPECT_GT(boundaries, 15u);
  }
}

}  // namespace
}  // namespace packmoor::replicator
