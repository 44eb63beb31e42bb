// Goal: the ring disk, the thread disk and the simulated disk all keep the contract of disk.h.
// Method: one suite, run against each. The faults that only a simulated disk can have are in
// sim_disk_test.cc.
#include "kernelio/co.h"
#include "kernelio/disk.h"
#include "kernelio/ring_disk.h"
#include "kernelio/sim_env.h"

#include "support/temp_dir.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>

#include <functional>
#include <memory>

namespace packmoor::kernelio {
namespace {

// A disk and the loop that it lives on.
class Rig {
 public:
  virtual ~Rig() noexcept(false) {}
  virtual Disk& disk() = 0;
  virtual kj::WaitScope& waitScope() = 0;
};

class SimRig final : public Rig {
 public:
  Disk& disk() override { return disk_; }
  kj::WaitScope& waitScope() override { return loop_.waitScope(); }

 private:
  VirtualLoop loop_;
  SimStorage storage_{1};
  SimDisk disk_{storage_, loop_.timer()};
};

class RealRig final : public Rig {
 public:
  explicit RealRig(DiskBackend backend)
      : io_(kj::setupAsyncIo()),
        made_(makeDisk(io_.unixEventPort, backend, folder_.path().c_str())) {}

  Disk& disk() override { return *made_.disk; }
  kj::WaitScope& waitScope() override { return io_.waitScope; }

 private:
  testing::TempDir folder_;
  kj::AsyncIoContext io_;
  MadeDisk made_;
};

struct Backend {
  const char* name;
  std::function<std::unique_ptr<Rig>()> make;
};

class DiskConformance : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    try {
      rig_ = GetParam().make();
    } catch (kj::Exception& e) {
      if (GetParam().name != std::string("ring")) throw;
      GTEST_SKIP() << e.getDescription().cStr();
    }
  }

  Disk& disk() { return rig_->disk(); }
  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(rig_->waitScope());
  }
  kj::Own<File> open(kj::StringPtr path, OpenOptions options = {.write = true, .create = true}) {
    return wait(disk().open(path, options));
  }
  std::string listed(kj::StringPtr folder) {
    std::string all;
    for (auto& name : wait(disk().list(folder))) all += std::string(name.cStr()) + " ";
    return all;
  }
  // The sentence of the failure; empty when it succeeds.
  template <typename T>
  std::string failure(kj::Promise<T> promise) {
    auto exception = kj::runCatchingExceptions([&]() { (void)wait(kj::mv(promise)); });
    KJ_IF_MAYBE (e, exception) { return e->getDescription().cStr(); }
    return "";
  }

  std::unique_ptr<Rig> rig_;
};

IoBuffer pattern(size_t bytes, kj::byte seed) {
  IoBuffer buffer = IoBuffer::allocate(bytes);
  for (size_t i = 0; i < bytes; ++i) buffer.begin()[i] = static_cast<kj::byte>(seed + i * 7);
  return buffer;
}

bool equal(const IoBuffer& a, const IoBuffer& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.begin() + a.size(), b.begin());
}

TEST_P(DiskConformance, ReadsBackWhatWasWritten) {
  for (WriteMode mode : {WriteMode::kBuffered, WriteMode::kDurable}) {
    auto file = open(mode == WriteMode::kBuffered ? "b" : "d");
    EXPECT_EQ(file->size(), 0u);
    IoBuffer data = pattern(10000, 3);
    wait(file->write(0, data, mode));
    wait(file->write(123457, data, mode));
    EXPECT_EQ(file->size(), 133457u);
    EXPECT_TRUE(equal(wait(file->read(0, 10000)), data));
    EXPECT_TRUE(equal(wait(file->read(123457, 50000)), data));
    EXPECT_EQ(wait(file->read(50000, 10)).begin()[9], 0);  // the hole
    EXPECT_EQ(wait(file->read(133457, 10)).size(), 0u);
    EXPECT_EQ(wait(file->read(1 << 30, 10)).size(), 0u);
    EXPECT_EQ(wait(file->read(0, 0)).size(), 0u);
  }
}

TEST_P(DiskConformance, WritesOfNothingAreFine) {
  auto file = open("a");
  wait(file->write(100, IoBuffer(), WriteMode::kDurable));
  EXPECT_EQ(file->size(), 0u);
}

TEST_P(DiskConformance, DirectFilesReadAnyRange) {
  auto file = open("a", {.write = true, .create = true, .direct = true});
  IoBuffer data = pattern(4 * kIoAlignment, 9);
  wait(file->write(0, data, WriteMode::kDurable));
  wait(file->write(8 * kIoAlignment, data.slice(kIoAlignment, kIoAlignment),
                   WriteMode::kBuffered));
  wait(file->sync());
  EXPECT_TRUE(equal(wait(file->read(0, data.size())), data));
  EXPECT_TRUE(equal(wait(file->read(5000, 7000)), data.slice(5000, 7000)));
  EXPECT_TRUE(equal(wait(file->read(8 * kIoAlignment + 1, 1 << 20)),
                    data.slice(kIoAlignment + 1, kIoAlignment - 1)));
  wait(file->truncate(5000));
  EXPECT_TRUE(equal(wait(file->read(4090, 5000)), data.slice(4090, 910)));
}

TEST_P(DiskConformance, UnalignedDirectWritesEndTheProcess) {
  auto file = open("a", {.write = true, .create = true, .direct = true});
  IoBuffer data = pattern(8192, 1);
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  if (GetParam().name != std::string("sim")) return;  // others have threads, which fork() loses
  EXPECT_DEATH((void)file->write(1, data, WriteMode::kDurable), "unaligned direct write");
  EXPECT_DEATH((void)file->write(0, data.slice(0, 5), WriteMode::kDurable), "unaligned direct");
  EXPECT_DEATH((void)file->write(0, data.slice(1, 4096), WriteMode::kDurable), "unaligned memory");
  EXPECT_DEATH((void)disk().open("a/../b", {}), "in a disk path");
}

TEST_P(DiskConformance, ReadSectorsGivesTheDataOfAGoodFile) {
  auto file = open("a");
  IoBuffer data = pattern(10000, 5);
  wait(file->write(0, data, WriteMode::kBuffered));
  SectorRead read = wait(file->readSectors(100, 20000));
  EXPECT_EQ(read.bad.size(), 0u);
  EXPECT_TRUE(equal(read.data, data.slice(100, 9900)));
  EXPECT_EQ(wait(file->readSectors(10000, 1)).data.size(), 0u);
}

TEST_P(DiskConformance, AllocateGrowsAndTruncateCuts) {
  auto file = open("a");
  wait(file->write(0, pattern(100, 1), WriteMode::kBuffered));
  wait(file->allocate(1 << 20));
  EXPECT_EQ(file->size(), 1u << 20);
  EXPECT_TRUE(equal(wait(file->read(0, 100)), pattern(100, 1)));
  EXPECT_EQ(wait(file->read((1 << 20) - 1, 10)).begin()[0], 0);
  wait(file->allocate(50));  // never smaller
  EXPECT_EQ(file->size(), 1u << 20);
  wait(file->truncate(50));
  EXPECT_EQ(file->size(), 50u);
  wait(file->truncate(100));
  EXPECT_EQ(wait(file->read(50, 50)).begin()[0], 0);  // what was cut off does not come back
}

TEST_P(DiskConformance, ManyOperationsAtOnce) {
  auto file = open("a");
  constexpr size_t kCount = 700;  // more than the ring takes at a time
  kj::Vector<kj::Promise<void>> writes;
  for (size_t i = 0; i < kCount; ++i) {
    writes.add(file->write(i * 1000, pattern(1000, i), i % 50 == 0 ? WriteMode::kDurable
                                                                   : WriteMode::kBuffered));
  }
  wait(kj::joinPromises(writes.releaseAsArray()));
  kj::Vector<kj::Promise<IoBuffer>> reads;
  for (size_t i = 0; i < kCount; ++i) reads.add(file->read(i * 1000, 1000));
  auto results = wait(kj::joinPromises(reads.releaseAsArray()));
  for (size_t i = 0; i < kCount; ++i) EXPECT_TRUE(equal(results[i], pattern(1000, i))) << i;
}

TEST_P(DiskConformance, DroppedPromisesAndFilesDoNoHarm) {
  {
    auto file = open("a");
    for (size_t i = 0; i < 100; ++i) {
      auto dropped = file->write(i * 4096, pattern(4096, 1), WriteMode::kBuffered);
      auto alsoDropped = file->read(0, 4096);
    }
  }
  auto file = open("b");
  wait(file->write(0, pattern(10, 1), WriteMode::kDurable));
  auto read = file->read(0, 10);
  file = nullptr;
  EXPECT_TRUE(equal(wait(kj::mv(read)), pattern(10, 1)));
}

TEST_P(DiskConformance, OpenFollowsItsOptions) {
  EXPECT_NE(failure(disk().open("absent", {})), "");
  EXPECT_NE(failure(disk().open("absent", {.write = true})), "");
  EXPECT_NE(failure(disk().open("no/folder", {.write = true, .create = true})), "");
  OpenOptions exclusive{.write = true, .create = true, .exclusive = true};
  open("a", exclusive);
  std::string sentence = failure(disk().open("a", exclusive));
  EXPECT_NE(sentence.find("Could not create"), std::string::npos) << sentence;
  open("a");  // create is no demand
  wait(disk().makeFolders("f"));
  EXPECT_NE(failure(disk().open("f", {})), "");
}

TEST_P(DiskConformance, FoldersAreMadeAndListed) {
  EXPECT_EQ(listed("x"), "");
  wait(disk().makeFolders("x/y/z"));
  wait(disk().makeFolders("x/y"));
  open("x/b");
  open("x/a");
  EXPECT_EQ(listed("x"), "a b y ");
  EXPECT_EQ(listed(""), "x ");
  EXPECT_TRUE(wait(disk().exists("x/y/z")));
  EXPECT_TRUE(wait(disk().exists("")));
  EXPECT_FALSE(wait(disk().exists("x/c")));
  EXPECT_FALSE(wait(disk().exists("x/a/c")));
  EXPECT_NE(failure(disk().makeFolders("x/a/c")), "");
  wait(disk().syncDirectory(""));
  wait(disk().syncDirectory("x/y"));
  EXPECT_NE(failure(disk().syncDirectory("absent")), "");
}

TEST_P(DiskConformance, RemoveAndRemoveTree) {
  wait(disk().makeFolders("x/y/z"));
  open("x/a");
  open("x/y/b");
  wait(disk().remove("x/a"));
  wait(disk().remove("x/a"));
  wait(disk().remove("not/there"));
  EXPECT_NE(failure(disk().remove("x")), "");
  wait(disk().remove("x/y/z"));
  EXPECT_EQ(listed("x/y"), "b ");
  wait(disk().removeTree("x"));
  wait(disk().removeTree("x"));
  EXPECT_EQ(listed(""), "");
  open("f");
  wait(disk().removeTree("f"));
  EXPECT_EQ(listed(""), "");
}

TEST_P(DiskConformance, ARemovedFileStaysReadableWhileOpen) {
  auto file = open("a");
  wait(file->write(0, pattern(10, 1), WriteMode::kDurable));
  wait(disk().remove("a"));
  EXPECT_TRUE(equal(wait(file->read(0, 10)), pattern(10, 1)));
}

TEST_P(DiskConformance, RenameReplaces) {
  wait(open("a")->write(0, pattern(10, 1), WriteMode::kDurable));
  wait(open("b")->write(0, pattern(20, 2), WriteMode::kDurable));
  wait(disk().rename("a", "b"));
  EXPECT_EQ(listed(""), "b ");
  EXPECT_EQ(open("b", {})->size(), 10u);
  wait(disk().makeFolders("f/g"));
  wait(disk().rename("b", "f/g/c"));
  wait(disk().rename("f/g", "h"));
  EXPECT_EQ(listed("h"), "c ");
  EXPECT_EQ(listed("f"), "");
  std::string sentence = failure(disk().rename("absent", "z"));
  EXPECT_NE(sentence.find("absent"), std::string::npos) << sentence;
}

TEST_P(DiskConformance, LinkNamesTheSameFile) {
  auto file = open("a");
  wait(disk().link("a", "b"));
  wait(disk().link("a", "b"));
  wait(file->write(0, pattern(10, 1), WriteMode::kBuffered));
  EXPECT_EQ(open("b", {})->size(), 10u);
  open("c");
  EXPECT_NE(failure(disk().link("a", "c")), "");
  EXPECT_NE(failure(disk().link("absent", "d")), "");
  wait(disk().remove("a"));
  EXPECT_TRUE(equal(wait(open("b", {})->read(0, 10)), pattern(10, 1)));
}

TEST_P(DiskConformance, ReplaceFileAndReadWholeFile) {
  wait(disk().makeFolders("f"));
  EXPECT_TRUE(wait(readWholeFile(disk(), "f/a", 10)) == nullptr);
  wait(replaceFile(disk(), "f/a", kj::StringPtr("a long content").asBytes()));
  wait(replaceFile(disk(), "f/a", kj::StringPtr("short").asBytes()));
  auto read = wait(readWholeFile(disk(), "f/a", 5));
  EXPECT_EQ(kj::heapString(KJ_ASSERT_NONNULL(read).asChars()), "short");
  EXPECT_EQ(listed("f"), "a ");
  EXPECT_NE(failure(readWholeFile(disk(), "f/a", 4)), "");
  wait(replaceFile(disk(), "f/a", nullptr));
  EXPECT_EQ(KJ_ASSERT_NONNULL(wait(readWholeFile(disk(), "f/a", 5))).size(), 0u);
}

TEST_P(DiskConformance, SpaceIsMeasured) {
  DiskSpace space = wait(disk().space());
  EXPECT_GT(space.totalBytes, 0u);
  EXPECT_LE(space.availableBytes, space.totalBytes);
}

INSTANTIATE_TEST_SUITE_P(
    All, DiskConformance,
    ::testing::Values(
        Backend{"sim", []() { return std::make_unique<SimRig>(); }},
        Backend{"ring", []() { return std::make_unique<RealRig>(DiskBackend::kIoUring); }},
        Backend{"threads", []() { return std::make_unique<RealRig>(DiskBackend::kThreads); }}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace packmoor::kernelio
