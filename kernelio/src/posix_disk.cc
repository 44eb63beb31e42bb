#include "posix_disk.h"

#include "kernelio/check.h"
#include "kernelio/co.h"
#include "path.h"

#include <kj/debug.h>
#include <kj/refcount.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace packmoor::kernelio {

namespace {

constexpr size_t kNameThreads = 2;

// What a disk and its files share. Loop's thread only.
struct Core final : public kj::Refcounted, public kj::TaskSet::ErrorHandler {
  Core(kj::UnixEventPort& port, kj::String rootPath, kj::Own<DataPath> dataPath)
      : rootPath(kj::mv(rootPath)),
        dataPath(kj::mv(dataPath)),
        names(makeThreadPool(port, kNameThreads, "packmoor-names")),
        closes(*this) {
    int fd = ::open(this->rootPath.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) kj::throwFatalException(systemError(errno, "open the folder", this->rootPath));
    root = std::make_shared<const kj::AutoCloseFd>(fd);
  }

  void warnOnce(bool& said, kj::StringPtr sentence) {
    if (said) return;
    said = true;
    warnings.add(kj::heapString(sentence));
  }

  void taskFailed(kj::Exception&& exception) override {}  // closing a file tells nothing

  kj::String rootPath;
  SharedFd root;
  kj::Own<DataPath> dataPath;
  kj::Own<WorkerPool> names;
  kj::Vector<kj::String> warnings;
  bool saidNoDirect = false;
  bool saidNoAllocate = false;
  kj::TaskSet closes;
};

// An open file, shared by the File and its operations. Loop's thread only.
struct OpenFile {
  OpenFile(kj::Own<Core> core, SharedFd fd, kj::String path, bool direct)
      : core(kj::mv(core)), fd(kj::mv(fd)), path(kj::mv(path)), direct(direct) {}
  ~OpenFile() noexcept(false) {
    // Closing a removed file frees its space, which can take long: not on the loop.
    core->closes.add(core->names->run([last = kj::mv(fd)]() {}));
  }
  KJ_DISALLOW_COPY(OpenFile);

  kj::Own<Core> core;
  SharedFd fd;
  kj::String path;
  bool direct;

  uint64_t size() const {
    struct stat status;
    if (fstat(*fd, &status) != 0) kj::throwFatalException(systemError(errno, "measure", path));
    return status.st_size;
  }
};

uint64_t roundDown(uint64_t value) { return value / kIoAlignment * kIoAlignment; }
uint64_t roundUp(uint64_t value) { return roundDown(value + kIoAlignment - 1); }

// Fills `into` from `offset`; the count is smaller at the end of the file only. A failure is a
// negative error number.
Co<int64_t> readFully(std::shared_ptr<OpenFile> file, uint64_t offset, IoBuffer into) {
  size_t done = 0;
  while (done < into.size()) {
    int64_t got = co_await file->core->dataPath->read(
        file->fd, into.slice(done, into.size() - done), offset + done);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got < 0) co_return got;
    if (got == 0) break;
    done += got;
    // Direct I/O ends short at the end of the file only, at a place that is not aligned.
    if (file->direct && done % kIoAlignment != 0) break;
  }
  co_return static_cast<int64_t>(done);
}

// The range that a read is about: clipped to the file, and widened to sectors for direct I/O.
struct ReadPlan {
  uint64_t offset = 0;  // of the widened range
  size_t bytes = 0;
  size_t skip = 0;  // from there to what was asked for
  size_t wanted = 0;
};

ReadPlan planRead(const OpenFile& file, uint64_t offset, size_t bytes) {
  uint64_t size = file.size();
  if (offset >= size) return {};
  ReadPlan plan;
  plan.wanted = std::min<uint64_t>(bytes, size - offset);
  plan.offset = file.direct ? roundDown(offset) : offset;
  plan.skip = offset - plan.offset;
  uint64_t end = offset + plan.wanted;
  plan.bytes = (file.direct ? roundUp(end) : end) - plan.offset;
  return plan;
}

IoBuffer wantedPart(const ReadPlan& plan, const IoBuffer& data, size_t got) {
  if (got <= plan.skip) return IoBuffer();
  return data.slice(plan.skip, std::min(plan.wanted, got - plan.skip));
}

Co<IoBuffer> readBody(std::shared_ptr<OpenFile> file, uint64_t offset, size_t bytes) {
  ReadPlan plan = planRead(*file, offset, bytes);
  if (plan.wanted == 0) co_return IoBuffer();
  IoBuffer data = IoBuffer::allocate(plan.bytes);
  int64_t got = co_await readFully(file, plan.offset, data);
  if (got < 0) kj::throwFatalException(systemError(-got, "read", file->path));
  co_return wantedPart(plan, data, got);
}

void addBad(kj::Vector<ByteRange>& bad, uint64_t from, uint64_t to) {
  if (bad.size() > 0 && bad.back().offset + bad.back().bytes == from) {
    bad.back().bytes += to - from;
  } else {
    bad.add(ByteRange{from, to - from});
  }
}

Co<SectorRead> readSectorsBody(std::shared_ptr<OpenFile> file, uint64_t offset, size_t bytes) {
  SectorRead result;
  ReadPlan plan = planRead(*file, offset, bytes);
  if (plan.wanted == 0) co_return kj::mv(result);
  IoBuffer data = IoBuffer::allocate(plan.bytes);
  int64_t got = co_await readFully(file, plan.offset, data);
  if (got >= 0) {
    result.data = wantedPart(plan, data, got);
    co_return kj::mv(result);
  }
  if (got != -EIO) kj::throwFatalException(systemError(-got, "read", file->path));

  // Something in the range is bad: find out what, sector by sector.
  uint64_t end = plan.offset + plan.bytes;
  for (uint64_t at = plan.offset; at < end;) {
    uint64_t next = std::min(end, roundDown(at) + kIoAlignment);
    IoBuffer sector = data.slice(at - plan.offset, next - at);
    got = co_await readFully(file, at, sector);
    if (got == -EIO) {
      std::fill(sector.begin(), sector.begin() + sector.size(), 0);
      addBad(result.bad, std::max(at, offset), std::min(next, offset + plan.wanted));
    } else if (got < 0) {
      kj::throwFatalException(systemError(-got, "read", file->path));
    }
    at = next;
  }
  result.data = data.slice(plan.skip, plan.wanted);
  co_return kj::mv(result);
}

Co<void> writeBody(std::shared_ptr<OpenFile> file, uint64_t offset, IoBuffer data,
                   WriteMode mode) {
  size_t done = 0;
  while (done < data.size()) {
    int64_t put = co_await file->core->dataPath->write(
        file->fd, data.slice(done, data.size() - done), offset + done, mode);
    if (put == -EINTR || put == -EAGAIN) continue;
    // A write that goes nowhere would be tried for ever.
    if (put == 0) put = -EIO;
    if (put < 0) kj::throwFatalException(systemError(-put, "write", file->path));
    done += put;
  }
}

Co<void> syncBody(std::shared_ptr<OpenFile> file) {
  int64_t result = co_await file->core->dataPath->sync(file->fd);
  // Not tried again, not even after EINTR: a second sync may report as clean what is lost.
  if (result < 0) kj::throwFatalException(systemError(-result, "sync", file->path));
}

Co<void> truncateBody(std::shared_ptr<OpenFile> file, uint64_t bytes) {
  auto done = file->core->names->run(
      [fd = file->fd, bytes]() { return ftruncate(*fd, bytes) == 0 ? 0 : errno; });
  int error = co_await kj::mv(done);
  if (error != 0) kj::throwFatalException(systemError(error, "truncate", file->path));
}

Co<void> allocateBody(std::shared_ptr<OpenFile> file, uint64_t bytes) {
  if (bytes == 0) co_return;
  int64_t result = co_await file->core->dataPath->allocate(file->fd, bytes);
  if (result == -EOPNOTSUPP || result == -ENOSYS) {
    file->core->warnOnce(file->core->saidNoAllocate,
                         "The file system of the data folder cannot reserve space: a full disk "
                         "is noticed when a file is written, not when it is made.");
    if (file->size() < bytes) co_await truncateBody(file, bytes);
    co_return;
  }
  if (result < 0) kj::throwFatalException(systemError(-result, "reserve space for", file->path));
}

class PosixFile final : public File {
 public:
  PosixFile(kj::Own<Core> core, SharedFd fd, kj::String path, bool write, bool direct)
      : file_(std::make_shared<OpenFile>(kj::mv(core), kj::mv(fd), kj::mv(path), direct)),
        write_(write) {}

  kj::Promise<IoBuffer> read(uint64_t offset, size_t bytes) override {
    return readBody(file_, offset, bytes);
  }
  kj::Promise<SectorRead> readSectors(uint64_t offset, size_t bytes) override {
    return readSectorsBody(file_, offset, bytes);
  }
  kj::Promise<void> write(uint64_t offset, IoBuffer data, WriteMode mode) override {
    PACKMOOR_CHECK(write_, "writing a file that was opened to read: ", file_->path);
    if (file_->direct) {
      PACKMOOR_CHECK(offset % kIoAlignment == 0, "unaligned direct write: ", file_->path, offset);
      PACKMOOR_CHECK(data.size() % kIoAlignment == 0, "unaligned direct write: ", file_->path,
                     data.size());
      PACKMOOR_CHECK(reinterpret_cast<uintptr_t>(data.begin()) % kIoAlignment == 0,
                     "direct write from unaligned memory: ", file_->path);
    }
    return writeBody(file_, offset, kj::mv(data), mode);
  }
  kj::Promise<void> sync() override { return syncBody(file_); }
  kj::Promise<void> allocate(uint64_t bytes) override {
    PACKMOOR_CHECK(write_, "allocating in a file that was opened to read: ", file_->path);
    return allocateBody(file_, bytes);
  }
  kj::Promise<void> truncate(uint64_t bytes) override {
    PACKMOOR_CHECK(write_, "truncating a file that was opened to read: ", file_->path);
    return truncateBody(file_, bytes);
  }
  uint64_t size() override { return file_->size(); }

 private:
  std::shared_ptr<OpenFile> file_;
  bool write_;
};

Co<kj::Own<File>> openBody(kj::Own<Core> core, kj::String path, OpenOptions options) {
  auto done = core->names->run([root = core->root, name = kj::heapString(path), options]() {
    return posix::openFile(*root, name, options);
  });
  auto opened = co_await kj::mv(done);
  if (opened.directRefused) {
    core->warnOnce(core->saidNoDirect,
                   "The file system of the data folder has no direct I/O: durable writes go "
                   "through the page cache and are slower.");
  }
  bool direct = options.direct && !opened.directRefused;
  co_return kj::heap<PosixFile>(kj::mv(core), kj::mv(opened.fd), kj::mv(path), options.write,
                                direct);
}

class PosixDisk final : public Disk {
 public:
  PosixDisk(kj::UnixEventPort& port, kj::StringPtr root, kj::Own<DataPath> dataPath)
      : core_(kj::refcounted<Core>(port, kj::heapString(root), kj::mv(dataPath))) {}

  kj::Promise<kj::Own<File>> open(kj::StringPtr path, OpenOptions options) override {
    checkPath(path);
    PACKMOOR_CHECK(options.write || !options.create, "creating a file to read it: ", path);
    PACKMOOR_CHECK(options.create || !options.exclusive, "exclusive without create: ", path);
    return openBody(kj::addRef(*core_), kj::heapString(path), options);
  }
  kj::Promise<bool> exists(kj::StringPtr path) override {
    checkFolderPath(path);
    return run(posix::exists, path);
  }
  kj::Promise<kj::Array<kj::String>> list(kj::StringPtr folder) override {
    checkFolderPath(folder);
    return run(posix::list, folder);
  }
  kj::Promise<void> makeFolders(kj::StringPtr path) override {
    checkFolderPath(path);
    return run(posix::makeFolders, path);
  }
  kj::Promise<void> remove(kj::StringPtr path) override {
    checkPath(path);
    return run(posix::remove, path);
  }
  kj::Promise<void> removeTree(kj::StringPtr path) override {
    checkPath(path);
    return run(posix::removeTree, path);
  }
  kj::Promise<void> rename(kj::StringPtr from, kj::StringPtr to) override {
    checkPath(from);
    checkPath(to);
    return run(posix::rename, from, to);
  }
  kj::Promise<void> link(kj::StringPtr from, kj::StringPtr to) override {
    checkPath(from);
    checkPath(to);
    return run(posix::link, from, to);
  }
  kj::Promise<void> syncDirectory(kj::StringPtr folder) override {
    checkFolderPath(folder);
    return run(posix::syncDirectory, folder);
  }
  kj::Promise<DiskSpace> space() override { return run(posix::space); }
  kj::StringPtr root() override { return core_->rootPath; }
  kj::StringPtr backend() override { return core_->dataPath->name(); }
  kj::Array<kj::String> warnings() override {
    return KJ_MAP(warning, core_->warnings) { return kj::heapString(warning); };
  }

 private:
  template <typename R>
  kj::Promise<R> run(R (*call)(int, kj::StringPtr), kj::StringPtr path) {
    return core_->names->run(
        [call, root = core_->root, path = kj::heapString(path)]() { return call(*root, path); });
  }
  kj::Promise<void> run(void (*call)(int, kj::StringPtr, kj::StringPtr), kj::StringPtr from,
                        kj::StringPtr to) {
    return core_->names->run([call, root = core_->root, from = kj::heapString(from),
                              to = kj::heapString(to)]() { call(*root, from, to); });
  }
  kj::Promise<DiskSpace> run(DiskSpace (*call)(int)) {
    return core_->names->run([call, root = core_->root]() { return call(*root); });
  }

  kj::Own<Core> core_;
};

}  // namespace

kj::Own<Disk> makePosixDisk(kj::UnixEventPort& port, kj::StringPtr root,
                            kj::Own<DataPath> dataPath) {
  return kj::heap<PosixDisk>(port, root, kj::mv(dataPath));
}

}  // namespace packmoor::kernelio
