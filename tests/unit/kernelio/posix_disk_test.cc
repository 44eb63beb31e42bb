// Goal: the real disks make the best of what system calls return: short transfers, interrupted
// calls, bad sectors, a full disk. Method: real files under a data path that follows a script.
#include "posix_disk.h"

#include "support/temp_dir.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <set>
#include <string>

namespace packmoor::kernelio {
namespace {

// What goes wrong, shared between a test and its data path.
struct Script {
  std::deque<int> readErrors, writeErrors;  // negative error numbers, in order; 0 lets one pass
  std::set<uint64_t> badSectors;            // by number: reads that touch them give EIO
  size_t bytesMax = SIZE_MAX;               // of one transfer
  int syncError = 0;
  int allocateError = 0;
  int reads = 0, writes = 0, syncs = 0;
};

class ScriptedPath final : public DataPath {
 public:
  explicit ScriptedPath(Script& script) : script_(script) {}

  kj::Promise<int64_t> read(SharedFd fd, IoBuffer into, uint64_t offset) override {
    ++script_.reads;
    if (int error = next(script_.readErrors)) return error;
    size_t bytes = std::min(into.size(), script_.bytesMax);
    for (uint64_t sector : script_.badSectors) {
      if (offset < (sector + 1) * kIoAlignment && offset + bytes > sector * kIoAlignment) {
        return -EIO;
      }
    }
    return ::pread(*fd, into.begin(), bytes, offset);
  }
  kj::Promise<int64_t> write(SharedFd fd, IoBuffer data, uint64_t offset, WriteMode) override {
    ++script_.writes;
    if (int error = next(script_.writeErrors)) return error;
    return ::pwrite(*fd, data.begin(), std::min(data.size(), script_.bytesMax), offset);
  }
  kj::Promise<int64_t> sync(SharedFd) override {
    ++script_.syncs;
    return script_.syncError;
  }
  kj::Promise<int64_t> allocate(SharedFd, uint64_t) override { return script_.allocateError; }
  kj::StringPtr name() override { return "scripted"; }

 private:
  static int next(std::deque<int>& errors) {
    if (errors.empty()) return 0;
    int error = errors.front();
    errors.pop_front();
    return error;
  }

  Script& script_;
};

class PosixDiskTest : public ::testing::Test {
 protected:
  ~PosixDiskTest() noexcept override {}

  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(io_.waitScope);
  }
  template <typename T>
  kj::Exception failure(kj::Promise<T> promise) {
    auto exception = kj::runCatchingExceptions([&]() { (void)wait(kj::mv(promise)); });
    return kj::mv(KJ_ASSERT_NONNULL(exception));
  }
  kj::Own<File> open(kj::StringPtr path) {
    return wait(disk_->open(path, {.write = true, .create = true}));
  }
  kj::Own<File> filled(kj::StringPtr path, size_t bytes) {
    auto file = open(path);
    IoBuffer data = IoBuffer::allocate(bytes);
    std::fill(data.begin(), data.begin() + bytes, 7);
    wait(file->write(0, data, WriteMode::kBuffered));
    return file;
  }

  testing::TempDir folder_;
  Script script_;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  kj::Own<Disk> disk_ = makePosixDisk(io_.unixEventPort, folder_.path().c_str(),
                                      kj::heap<ScriptedPath>(script_));
};

TEST_F(PosixDiskTest, ShortTransfersAreContinued) {
  script_.bytesMax = 1000;
  auto file = filled("a", 10'500);
  EXPECT_EQ(script_.writes, 11);
  IoBuffer data = wait(file->read(0, 10'500));
  EXPECT_EQ(script_.reads, 11);
  ASSERT_EQ(data.size(), 10'500u);
  EXPECT_EQ(std::count(data.begin(), data.begin() + data.size(), 7), 10'500);
}

TEST_F(PosixDiskTest, InterruptedTransfersAreTriedAgain) {
  script_.writeErrors = {-EINTR, -EAGAIN};
  script_.readErrors = {-EAGAIN, -EINTR};
  auto file = filled("a", 100);
  EXPECT_EQ(wait(file->read(0, 100)).size(), 100u);
}

TEST_F(PosixDiskTest, FailuresAreSentencesThatNameTheFile) {
  script_.writeErrors = {0, -EIO, -ENOSPC, -EDQUOT};
  auto file = filled("a", 100);
  IoBuffer data = IoBuffer::allocate(10);
  auto io = failure(file->write(0, data, WriteMode::kDurable));
  EXPECT_EQ(io.getDescription(), "Could not write a: Input/output error.");
  EXPECT_EQ(io.getType(), kj::Exception::Type::FAILED);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(failure(file->write(0, data, WriteMode::kDurable)).getType(),
              kj::Exception::Type::OVERLOADED);
  }
  script_.readErrors = {-EIO};
  EXPECT_EQ(failure(file->read(0, 10)).getDescription(), "Could not read a: Input/output error.");
  EXPECT_EQ(failure(disk_->open("b/c", {})).getDescription(),
            "Could not open b/c: No such file or directory.");
  EXPECT_EQ(failure(disk_->rename("x", "y")).getDescription(),
            "Could not rename x to y: No such file or directory.");
}

TEST_F(PosixDiskTest, AWriteThatGoesNowhereFails) {
  script_.bytesMax = 0;
  auto file = open("a");
  EXPECT_EQ(failure(file->write(0, IoBuffer::allocate(1), WriteMode::kBuffered)).getDescription(),
            "Could not write a: Input/output error.");
}

TEST_F(PosixDiskTest, AFailedSyncIsNotTriedAgain) {
  auto file = open("a");
  for (int error : {-EIO, -EINTR}) {
    script_.syncError = error;
    script_.syncs = 0;
    failure(file->sync());
    EXPECT_EQ(script_.syncs, 1);
  }
}

TEST_F(PosixDiskTest, BadSectorsAreReported) {
  auto file = filled("a", 10 * kIoAlignment);
  script_.badSectors = {2, 3, 6};
  failure(file->read(0, 10 * kIoAlignment));
  SectorRead read = wait(file->readSectors(100, 10 * kIoAlignment));
  ASSERT_EQ(read.data.size(), 10 * kIoAlignment - 100);
  ASSERT_EQ(read.bad.size(), 2u);
  EXPECT_EQ(read.bad[0].offset, 2 * kIoAlignment);
  EXPECT_EQ(read.bad[0].bytes, 2 * kIoAlignment);
  EXPECT_EQ(read.bad[1].offset, 6 * kIoAlignment);
  EXPECT_EQ(read.bad[1].bytes, kIoAlignment);
  for (size_t i = 0; i < read.data.size(); ++i) {
    uint64_t sector = (i + 100) / kIoAlignment;
    ASSERT_EQ(read.data.begin()[i], script_.badSectors.count(sector) > 0 ? 0 : 7) << i;
  }
}

TEST_F(PosixDiskTest, ABadRangeIsClippedToWhatWasAsked) {
  auto file = filled("a", 2 * kIoAlignment);
  script_.badSectors = {0};
  SectorRead read = wait(file->readSectors(10, 20));
  ASSERT_EQ(read.bad.size(), 1u);
  EXPECT_EQ(read.bad[0].offset, 10u);
  EXPECT_EQ(read.bad[0].bytes, 20u);
  EXPECT_EQ(read.data.size(), 20u);
}

TEST_F(PosixDiskTest, OtherReadErrorsAreThrown) {
  auto file = filled("a", 100);
  script_.readErrors = {-EIO, -EBADF};
  EXPECT_EQ(failure(file->readSectors(0, 100)).getDescription(),
            "Could not read a: Bad file descriptor.");
  script_.readErrors = {-EBADF};
  failure(file->readSectors(0, 100));
}

TEST_F(PosixDiskTest, AllocateWithoutSupportGrowsTheFileAndWarnsOnce) {
  script_.allocateError = -EOPNOTSUPP;
  auto file = open("a");
  wait(file->allocate(5000));
  wait(file->allocate(100));
  EXPECT_EQ(file->size(), 5000u);
  EXPECT_EQ(disk_->warnings().size(), 1u);
  script_.allocateError = -ENOSPC;
  EXPECT_EQ(failure(file->allocate(10)).getType(), kj::Exception::Type::OVERLOADED);
}

TEST_F(PosixDiskTest, RemoveTreeFollowsNoLinkOutOfTheFolder) {
  testing::TempDir outside;
  ASSERT_EQ(::symlink("/", outside.path("self").c_str()), 0);
  wait(disk_->makeFolders("a/b"));
  ASSERT_EQ(::symlink(outside.path().c_str(), folder_.path("a/b/link").c_str()), 0);
  wait(disk_->removeTree("a"));
  EXPECT_EQ(::access(folder_.path("a").c_str(), F_OK), -1);
  char target[10];
  EXPECT_EQ(::readlink(outside.path("self").c_str(), target, sizeof(target)), 1);
}

TEST_F(PosixDiskTest, RemoveTreeCopesWithDeepTrees) {
  std::string path = "d";
  for (int i = 0; i < 200; ++i) path += "/d";
  wait(disk_->makeFolders(path.c_str()));
  filled((path + "/file").c_str(), 10);
  wait(disk_->removeTree("d"));
  EXPECT_FALSE(wait(disk_->exists("d")));
}

}  // namespace
}  // namespace packmoor::kernelio
