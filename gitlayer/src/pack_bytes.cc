#include "pack_bytes.h"

#include <replicator/extent_store.h>

#include <kj/debug.h>

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

kj::AutoCloseFd openForReading(const std::string& path) {
  int raw;
  KJ_SYSCALL(raw = open(path.c_str(), O_RDONLY | O_CLOEXEC), "a pack that is being received", path);
  return kj::AutoCloseFd(raw);
}

}  // namespace

FilePackBytes::FilePackBytes(const std::string& path) : file_(openForReading(path)) {}

void FilePackBytes::read(uint64_t offset, kj::ArrayPtr<kj::byte> into) const {
  while (into.size() > 0) {
    ssize_t got;
    KJ_SYSCALL(got = pread(file_.get(), into.begin(), into.size(), static_cast<off_t>(offset)),
               "a pack that is being received", offset);
    KJ_REQUIRE(got > 0, "a pack that is being received ends early", offset);
    offset += static_cast<size_t>(got);
    into = into.slice(static_cast<size_t>(got), into.size());
  }
}

void MemoryPackBytes::read(uint64_t offset, kj::ArrayPtr<kj::byte> into) const {
  while (into.size() > 0) {
    size_t block = offset / replicator::kBlockBytes, from = offset % replicator::kBlockBytes;
    KJ_REQUIRE(block < blocks_.size() && from < blocks_[block].size(),
               "a pack that is being received ends early", offset);
    size_t piece = kj::min(blocks_[block].size() - from, into.size());
    memcpy(into.begin(), blocks_[block].begin() + from, piece);
    offset += piece;
    into = into.slice(piece, into.size());
  }
}

}  // namespace packmoor::gitlayer
