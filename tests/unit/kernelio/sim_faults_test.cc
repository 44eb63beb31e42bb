// Goal: each fault of SimStorage strikes where it is aimed, does what sim_disk.h says, and
// nothing else.
#include "sim_fixture.h"

#include <bit>

namespace packmoor::kernelio {
namespace {

using simtest::filled;
using simtest::kMake;

class SimFaultsTest : public simtest::SimFixture {
 protected:
  ~SimFaultsTest() noexcept override {}

  void put(File& file, uint64_t offset, kj::byte value, size_t bytes = 4096) {
    loop_.wait(file.write(offset, filled(bytes, value), WriteMode::kDurable));
  }
  kj::byte at(File& file, uint64_t offset) { return loop_.wait(file.read(offset, 1)).begin()[0]; }

  SimStorage storage_{7};
};

TEST_F(SimFaultsTest, ALostWriteIsReportedAsDone) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  put(*file, 0, 1);
  storage_.inject({.kind = SimFaultKind::kLostWrite, .skip = 1});
  put(*file, 4096, 2);
  put(*file, 0, 3);  // lost
  EXPECT_EQ(at(*file, 0), 1);
  EXPECT_EQ(at(*file, 4096), 2);
  put(*file, 0, 3);
  EXPECT_EQ(at(*file, 0), 3);
  EXPECT_EQ(storage_.faultsStruck(), 1u);
}

TEST_F(SimFaultsTest, AMisdirectedWriteLandsElsewhereInTheFile) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  put(*file, 0, 1, 100 * 4096);
  storage_.inject({.kind = SimFaultKind::kMisdirectedWrite});
  put(*file, 50 * 4096, 2);
  IoBuffer data = loop_.wait(file->read(0, 100 * 4096));
  EXPECT_EQ(std::count(data.begin(), data.begin() + data.size(), 2), 4096);
  EXPECT_EQ(file->size(), 100 * 4096u);
  EXPECT_NE(at(*file, 50 * 4096), 2);
}

TEST_F(SimFaultsTest, WriteAndSyncErrors) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  auto other = node.open("b");
  put(*file, 0, 1);
  storage_.inject({.kind = SimFaultKind::kWriteError, .pathPrefix = "a"});
  put(*other, 0, 9);
  auto error = failure(file->write(0, filled(4096, 2), WriteMode::kDurable));
  EXPECT_EQ(error.getDescription(), "Could not write a: simulated input/output error.");
  EXPECT_EQ(at(*file, 0), 1);

  // After a failed sync the next one succeeds, and the data is not durable.
  loop_.wait(node.disk().syncDirectory(""));
  loop_.wait(file->write(0, filled(4096, 3), WriteMode::kBuffered));
  storage_.inject({.kind = SimFaultKind::kSyncError});
  failure(file->sync());
  loop_.wait(file->sync());
  EXPECT_EQ(at(*file, 0), 3);
  auto durable = storage_.durableContent("a");
  EXPECT_EQ(KJ_ASSERT_NONNULL(durable)[0], 1);
}

TEST_F(SimFaultsTest, ReadErrorsPassBadSectorsStay) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  put(*file, 0, 1, 4 * 4096);
  storage_.inject({.kind = SimFaultKind::kReadError});
  failure(file->read(0, 10));
  EXPECT_EQ(at(*file, 0), 1);
  storage_.inject({.kind = SimFaultKind::kReadError});
  SectorRead all = loop_.wait(file->readSectors(5, 100));
  ASSERT_EQ(all.bad.size(), 1u);
  EXPECT_EQ(all.bad[0].offset, 5u);
  EXPECT_EQ(all.bad[0].bytes, 100u);

  storage_.breakSectors("a", 5000, 4096);
  failure(file->read(0, 4 * 4096));
  EXPECT_EQ(at(*file, 0), 1);
  SectorRead read = loop_.wait(file->readSectors(100, 4 * 4096));
  ASSERT_EQ(read.bad.size(), 1u);
  EXPECT_EQ(read.bad[0].offset, 4096u);
  EXPECT_EQ(read.bad[0].bytes, 2 * 4096u);
  EXPECT_EQ(read.data.begin()[0], 1);
  EXPECT_EQ(read.data.begin()[4096], 0);
  put(*file, 4096, 2);  // a write in full heals
  put(*file, 8192, 2, 100);
  EXPECT_EQ(at(*file, 4096), 2);
  failure(file->read(8192, 1));
}

TEST_F(SimFaultsTest, RotFlipsOneBitPerSectorForGood) {
  {
    Node node(loop_, storage_);
    auto file = node.open("a");
    put(*file, 0, 0, 3 * 4096);
    loop_.wait(node.disk().syncDirectory(""));
    storage_.rot("a", 4000, 5000);
  }
  storage_.crash();
  Node node(loop_, storage_);
  IoBuffer data = loop_.wait(node.open("a", {})->read(0, 3 * 4096));
  int bits[3] = {0, 0, 0};
  for (size_t i = 0; i < data.size(); ++i) bits[i / 4096] += std::popcount(data.begin()[i]);
  EXPECT_EQ(bits[0], 1);
  EXPECT_EQ(bits[1], 1);
  EXPECT_EQ(bits[2], 1);
  EXPECT_EQ(data.begin()[3999], 0);
}

TEST_F(SimFaultsTest, SlowAndStuckOperations) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  storage_.inject({.kind = SimFaultKind::kSlow, .count = 2, .delay = 5 * kj::SECONDS});
  put(*file, 0, 1);
  EXPECT_EQ(loop_.elapsed(), 5 * kj::SECONDS);
  at(*file, 0);
  EXPECT_EQ(loop_.elapsed(), 10 * kj::SECONDS);
  at(*file, 0);
  EXPECT_EQ(loop_.elapsed(), 10 * kj::SECONDS);

  storage_.inject({.kind = SimFaultKind::kStuck, .pathPrefix = "a"});
  auto stuck = file->write(0, filled(4096, 2), WriteMode::kDurable);
  loop_.runFor(1 * kj::DAYS);
  EXPECT_FALSE(stuck.poll(loop_.waitScope()));
  EXPECT_EQ(at(*file, 0), 1);
}

TEST_F(SimFaultsTest, TimingIsWithinItsBounds) {
  Node node(loop_, storage_);
  storage_.setTiming({.readMin = 1 * kj::MILLISECONDS, .readMax = 2 * kj::MILLISECONDS});
  auto file = node.open("a");
  put(*file, 0, 1);
  auto before = loop_.elapsed();
  for (int i = 0; i < 100; ++i) at(*file, 0);
  auto took = loop_.elapsed() - before;
  EXPECT_GT(took, 120 * kj::MILLISECONDS);
  EXPECT_LT(took, 180 * kj::MILLISECONDS);
}

TEST_F(SimFaultsTest, AFullDiskRefusesGrowthButNotOverwriting) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  put(*file, 0, 1, 8192);
  storage_.setCapacity(4 * 4096);
  put(*file, 8192, 1);
  auto full = failure(file->write(12288, filled(8192, 1), WriteMode::kBuffered));
  EXPECT_EQ(full.getType(), kj::Exception::Type::OVERLOADED);
  put(*file, 0, 2, 8192);
  EXPECT_EQ(at(*file, 0), 2);
  EXPECT_EQ(failure(file->allocate(5 * 4096)).getType(), kj::Exception::Type::OVERLOADED);
  loop_.wait(file->allocate(4 * 4096));
  put(*file, 12288, 3);  // what was reserved can be written
  EXPECT_EQ(loop_.wait(node.disk().space()).availableBytes, 0u);
  file = nullptr;
  loop_.wait(node.disk().remove("a"));
  EXPECT_EQ(loop_.wait(node.disk().space()).availableBytes, 4 * 4096u);
}

TEST_F(SimFaultsTest, RatesStrikeByChanceAndCanBeCleared) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  put(*file, 0, 1);
  storage_.setFaultRates({.writeError = 100'000, .readError = 100'000, .rotPerRead = 100'000});
  int failed = 0;
  for (int i = 0; i < 1000; ++i) {
    auto write = file->write(0, filled(4096, 1), WriteMode::kDurable);
    failed += kj::runCatchingExceptions([&]() { loop_.wait(kj::mv(write)); }) != nullptr;
    kj::runCatchingExceptions([&]() { at(*file, 0); });
  }
  EXPECT_NEAR(failed, 100, 40);
  EXPECT_NEAR(storage_.faultsStruck(), 300, 80);
  storage_.clearFaults();
  uint64_t struck = storage_.faultsStruck();
  for (int i = 0; i < 100; ++i) put(*file, 0, 1);
  EXPECT_EQ(storage_.faultsStruck(), struck);
}

TEST_F(SimFaultsTest, PokePassesAllRules) {
  Node node(loop_, storage_);
  auto file = node.open("a");
  put(*file, 0, 1);
  kj::byte value = 200;
  storage_.inject({.kind = SimFaultKind::kLostWrite, .count = SimFault::kForever});
  storage_.poke("a", 17, kj::arrayPtr(&value, 1));
  EXPECT_EQ(at(*file, 17), 200);
  EXPECT_EQ(at(*file, 18), 1);
}

}  // namespace
}  // namespace packmoor::kernelio
