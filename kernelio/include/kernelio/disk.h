// Disk and File: everything that Packmoor's own formats do to storage.
//
// Why: the journal and the extents must be testable against a disk that tears, loses and rots
// writes, and must run both on io_uring and, where that is switched off, on threads. All three
// implement this interface: makeRingDisk, makeThreadDisk (ring_disk.h), SimDisk (sim_disk.h).
//
// Paths are relative to the disk's root (a node's data directory), use '/', and contain no
// "..", "." or empty parts; anything else is a PACKMOOR_CHECK. The empty path is the root folder
// itself, where a folder is asked for. A folder that a new name goes into must be there.
//
// Durability: a buffered write is durable after a later sync() of the same File. A durable
// write (O_DSYNC semantics) is durable when its promise resolves; the file's size is then
// durable too. A new, renamed or removed name is durable after syncDirectory() of its folder.
//
// Concurrency: any number of operations may be in flight on one File; overlapping writes in
// flight have no defined order. Dropping a promise abandons the result, not the operation: the
// kernel may still carry it out, with the buffer kept alive until then. A File may be dropped
// with operations in flight; it is closed after them.
//
// Errors: what the environment refuses is a kj::Exception whose description is a sentence
// naming the file, the operation and the system's reason. A full disk is reported as type
// OVERLOADED, all others as FAILED. Loop: that of the Env which owns the disk.
#pragma once

#include "kernelio/io_buffer.h"

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace packmoor::kernelio {

struct ByteRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct SectorRead {
  IoBuffer data;               // zeros where it could not be read; shorter at the file's end
  kj::Vector<ByteRange> bad;   // sectors that could not be read, merged, by offset
};

enum class WriteMode : uint8_t {
  kBuffered,  // durable after sync()
  kDurable,   // durable when the promise resolves
};

class File {
 public:
  virtual ~File() noexcept(false) {}

  // Reads up to `bytes` at `offset`; shorter only at the end of the file.
  virtual kj::Promise<IoBuffer> read(uint64_t offset, size_t bytes) = 0;

  // Like read, but a sector of kIoAlignment that fails is reported instead of thrown.
  virtual kj::Promise<SectorRead> readSectors(uint64_t offset, size_t bytes) = 0;

  // Writes all of `data`; the file grows as needed. On a file opened with `direct`, offset and
  // size are multiples of kIoAlignment and the data must start aligned.
  virtual kj::Promise<void> write(uint64_t offset, IoBuffer data, WriteMode mode) = 0;

  // Makes every buffered write that was complete before this call durable.
  virtual kj::Promise<void> sync() = 0;

  // Reserves space for [0, bytes) without changing what is read; grows the size to it.
  virtual kj::Promise<void> allocate(uint64_t bytes) = 0;

  virtual kj::Promise<void> truncate(uint64_t bytes) = 0;

  virtual uint64_t size() = 0;  // bytes, with every write whose promise has resolved
};

struct OpenOptions {
  bool write = false;      // else read-only
  bool create = false;     // create when absent (with write)
  bool exclusive = false;  // fail when present (with create)
  bool direct = false;     // bypass the page cache where the file system can
};

struct DiskSpace {
  uint64_t totalBytes = 0;
  uint64_t availableBytes = 0;
};

class Disk {
 public:
  virtual ~Disk() noexcept(false) {}

  // Fails when the file is absent and `create` is not set.
  virtual kj::Promise<kj::Own<File>> open(kj::StringPtr path, OpenOptions options) = 0;

  virtual kj::Promise<bool> exists(kj::StringPtr path) = 0;
  // Names (not paths) in a folder, sorted; empty when the folder is absent.
  virtual kj::Promise<kj::Array<kj::String>> list(kj::StringPtr folder) = 0;
  virtual kj::Promise<void> makeFolders(kj::StringPtr path) = 0;  // like mkdir -p
  // No error when absent. removeTree removes a folder and all that is in it.
  virtual kj::Promise<void> remove(kj::StringPtr path) = 0;
  virtual kj::Promise<void> removeTree(kj::StringPtr path) = 0;
  // Replaces the target atomically.
  virtual kj::Promise<void> rename(kj::StringPtr from, kj::StringPtr to) = 0;
  // A second name for the same file; no error when `to` is already that file.
  virtual kj::Promise<void> link(kj::StringPtr from, kj::StringPtr to) = 0;
  virtual kj::Promise<void> syncDirectory(kj::StringPtr folder) = 0;
  virtual kj::Promise<DiskSpace> space() = 0;

  // The folder in the operating system's terms, for libraries that open files themselves
  // (RocksDB, libgit2, git). Empty for a simulated disk.
  virtual kj::StringPtr root() = 0;
  // "io_uring", "threads" or "sim": shown in status.
  virtual kj::StringPtr backend() = 0;
  // Sentences about what works less well here than it should, for health: direct I/O that the
  // file system refused, and the like. Grows as files are opened.
  virtual kj::Array<kj::String> warnings() { return nullptr; }
};

// Writes a small file so that after a crash either the old or the new content is there:
// durable write to `path`.new, rename, syncDirectory. Durable when it resolves.
kj::Promise<void> replaceFile(Disk& disk, kj::StringPtr path, kj::ArrayPtr<const kj::byte> content);

// The whole content of a file, or nullptr when it is absent. Larger than `bytesMax`: an error.
kj::Promise<kj::Maybe<kj::Array<kj::byte>>> readWholeFile(Disk& disk, kj::StringPtr path,
                                                          size_t bytesMax);

}  // namespace packmoor::kernelio
