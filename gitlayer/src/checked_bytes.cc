#include "checked_bytes.h"

#include <kj/debug.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace packmoor::gitlayer {

namespace {

constexpr uint64_t kBitsPerWord = 64;

[[noreturn]] void fail(const std::string& what, const std::string& problem) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str("The ", what.c_str(), " ", problem.c_str())));
}

}  // namespace

std::shared_ptr<CheckedBytes> CheckedBytes::map(const std::string& path, std::string what,
                                                uint64_t bytes,
                                                kj::Array<replicator::Hash128> checksums,
                                                std::function<bool(uint64_t block)> mend) {
  auto result = std::make_shared<CheckedBytes>(Private(), std::move(what));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(result->what_, "cannot be opened: " + std::string(std::strerror(errno)) + ".");
  result->file_ = kj::AutoCloseFd(fd);
  struct stat status;
  if (fstat(fd, &status) != 0 || static_cast<uint64_t>(status.st_size) != bytes) {
    fail(result->what_, "does not have the size that it was sealed with.");
  }
  if (bytes > 0) {
    void* memory = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
      fail(result->what_, "cannot be mapped: " + std::string(std::strerror(errno)) + ".");
    }
    result->bytes_ = kj::arrayPtr(static_cast<const kj::byte*>(memory), bytes);
  }
  result->checked_ = std::vector<std::atomic<uint64_t>>(
      (checksums.size() + kBitsPerWord - 1) / kBitsPerWord);
  result->checksums_ = kj::mv(checksums);
  result->mend_ = std::move(mend);
  return result;
}

std::shared_ptr<CheckedBytes> CheckedBytes::inMemory(kj::Array<const kj::byte> bytes,
                                                     std::string what) {
  auto result = std::make_shared<CheckedBytes>(Private(), std::move(what));
  result->owned_ = kj::mv(bytes);
  result->bytes_ = result->owned_;
  return result;
}

CheckedBytes::~CheckedBytes() noexcept {
  if (owned_ == nullptr && bytes_.size() > 0) {
    munmap(const_cast<kj::byte*>(bytes_.begin()), bytes_.size());
  }
}

bool CheckedBytes::isChecked(uint64_t block) const {
  return (checked_[block / kBitsPerWord].load(std::memory_order_acquire) >>
          (block % kBitsPerWord) & 1) != 0;
}

kj::ArrayPtr<const kj::byte> CheckedBytes::need(uint64_t offset, uint64_t count) {
  if (offset > bytes_.size() || count > bytes_.size() - offset) {
    fail(what_, "is damaged: it points outside itself.");
  }
  if (!checked_.empty() && count > 0) {
    const uint64_t last = (offset + count - 1) / replicator::kBlockBytes;
    for (uint64_t block = offset / replicator::kBlockBytes; block <= last; ++block) {
      if (!isChecked(block)) checkBlock(block);
    }
  }
  return bytes_.slice(offset, offset + count);
}

std::string CheckedBytes::problemOf(uint64_t block) const {
  const size_t size = replicator::blockBytesAt(bytes_.size(), block);
  auto buffer = kj::heapArray<kj::byte>(size);
  for (size_t done = 0; done < size;) {
    const ssize_t count = pread(file_.get(), buffer.begin() + done, size - done,
                                static_cast<off_t>(block * replicator::kBlockBytes + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return "cannot be read at block " + std::to_string(block) + ": " +
             (count == 0 ? "it is shorter than it was" : std::strerror(errno)) + ".";
    }
    done += static_cast<size_t>(count);
  }
  if (replicator::hashBytes(buffer) == checksums_[block]) return {};
  return "is damaged: block " + std::to_string(block) +
         " does not have the checksum that it was sealed with.";
}

void CheckedBytes::checkBlock(uint64_t block) {
  std::string problem = problemOf(block);
  if (!problem.empty() && mend_ && mend_(block)) problem = problemOf(block);
  if (!problem.empty()) fail(what_, problem);
  checked_[block / kBitsPerWord].fetch_or(uint64_t{1} << (block % kBitsPerWord),
                                          std::memory_order_acq_rel);
}

void CheckedBytes::checkAll() {
  if (checked_.empty()) return;
  for (uint64_t block = 0; block < checksums_.size(); ++block) checkBlock(block);
}

}  // namespace packmoor::gitlayer
