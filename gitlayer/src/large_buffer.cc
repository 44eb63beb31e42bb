#include "large_buffer.h"

#include <kj/debug.h>
#include <kj/io.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace packmoor::gitlayer {

namespace {

class MappingDisposer final : public kj::ArrayDisposer {
 private:
  void disposeImpl(void* firstElement, size_t, size_t elementCount, size_t,
                   void (*)(void*)) const override {
    munmap(firstElement, elementCount);
  }
};
constexpr MappingDisposer kMappingDisposer;

kj::Array<kj::byte> mapTemporary(size_t bytes, const std::string& folder) {
  int raw;
  KJ_SYSCALL(raw = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600),
             "a temporary file for a large object", folder);
  kj::AutoCloseFd file(raw);
  // Reserves the space: a full disk shows here and not as a fault on access.
  if (int error = posix_fallocate(file.get(), 0, static_cast<off_t>(bytes))) {
    KJ_FAIL_SYSCALL("posix_fallocate", error, "room for a large object", bytes);
  }
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) KJ_FAIL_SYSCALL("mmap", errno, bytes);
  return kj::Array<kj::byte>(static_cast<kj::byte*>(mapped), bytes, kMappingDisposer);
}

}  // namespace

LargeBuffer::LargeBuffer(size_t bytes, const std::string& folder)
    : bytes_(bytes <= kHeapObjectBytesMax || folder.empty() ? kj::heapArray<kj::byte>(bytes)
                                                            : mapTemporary(bytes, folder)) {}

}  // namespace packmoor::gitlayer
