// ArchiveFormat: one form of archive, as a stream of bytes.
//
// The bytes are those that git 2.38 and later make of the same tree, so that checksums that are published
// of archives hold wherever they were made: tar with pax headers (POSIX.1-2001), the commit in the global
// one; gzip by zlib with its header as git has it; zip (APPNOTE.TXT 6.3) with UTC times, zip64 where sizes
// need it, and the commit in its comment. Times of DOS in a zip are UTC here, as they are of a git with TZ=UTC.
//
// Calls: begin(), then per entry file(), or beginFile(), data()... and endFile(), then end(). Each writes to
// the sink that it is given, which need not be the same one. One thread at a time. Memory: a zip keeps about
// 80 bytes and the path of each entry for its directory, up to kZipDirectoryBytesMax in all.
#pragma once

#include "gitlayer/object_id.h"
#include "gitlayer/pack_builder.h"

#include "archive_request.h"

#include <memory>

namespace packmoor::gitlayer {

struct ArchiveEntry {
  enum class Type : uint8_t { kFolder, kFile, kLink };
  Type type = Type::kFile;
  bool executable = false;
  bool text = false;            // zip tells programs that unpack it
  std::string_view path;        // with the prefix; of a folder with a slash at its end
  ObjectId id;
  uint64_t bytes = 0;           // of the content
};

class ArchiveFormat {
 public:
  // What a zip may hold in its directory.
  static constexpr size_t kZipDirectoryBytesMax = 256u << 20;

  // `commit` null: a tree was named. `seconds`: of all entries.
  static std::unique_ptr<ArchiveFormat> make(ArchiveFormatName name, int level, const ObjectId& commit,
                                             int64_t seconds);
  virtual ~ArchiveFormat() noexcept(false) {}

  virtual void begin(PackSink& out) = 0;
  // A whole entry: a file's content, a link's target, nothing of a folder.
  virtual void file(PackSink& out, const ArchiveEntry& entry, kj::ArrayPtr<const kj::byte> content) = 0;
  // A file that does not fit into memory; `entry.bytes` in all.
  virtual void beginFile(PackSink& out, const ArchiveEntry& entry) = 0;
  virtual void data(PackSink& out, kj::ArrayPtr<const kj::byte> bytes) = 0;
  virtual void endFile(PackSink& out) = 0;
  virtual void end(PackSink& out) = 0;
};

std::unique_ptr<ArchiveFormat> makeTarFormat(const ObjectId& commit, int64_t seconds);
std::unique_ptr<ArchiveFormat> makeZipFormat(int level, const ObjectId& commit, int64_t seconds);

// zlib's compressor, piece by piece.
class DeflateStream {
 public:
  enum class Wrapping : uint8_t { kRaw, kGzip };
  DeflateStream(int level, Wrapping wrapping);
  ~DeflateStream() noexcept;
  KJ_DISALLOW_COPY(DeflateStream);

  // Writes what is compressed of it by now. Returns how many bytes that were.
  size_t write(PackSink& out, kj::ArrayPtr<const kj::byte> bytes) { return run(out, bytes, false); }
  size_t finish(PackSink& out) { return run(out, nullptr, true); }

 private:
  struct State;
  size_t run(PackSink& out, kj::ArrayPtr<const kj::byte> bytes, bool last);

  std::unique_ptr<State> state_;
};

}  // namespace packmoor::gitlayer
