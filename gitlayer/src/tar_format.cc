#include "archive_format.h"

#include <algorithm>
#include <cstring>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kRecordBytes = 512, kBlockBytes = 20 * kRecordBytes;
constexpr uint64_t kNumberMax = 077777777777;   // that 11 octal digits hold
constexpr unsigned kUmask = 002;                // git's tar.umask

struct Header {
  char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, linkName[100];
  char magic[6], version[2], userName[32], groupName[32], deviceMajor[8], deviceMinor[8], prefix[155];
  char unused[12];
};
static_assert(sizeof(Header) == kRecordBytes);

// `field` as octal digits and a zero byte.
template <size_t bytes>
void setNumber(char (&field)[bytes], uint64_t value) {
  for (size_t i = bytes - 1; i-- > 0; value >>= 3) field[i] = static_cast<char>('0' + (value & 7));
  field[bytes - 1] = 0;
}

// "LENGTH KEY=VALUE\n"; the length counts itself.
std::string paxRecord(std::string_view key, std::string_view value) {
  std::string rest = " ";
  rest.append(key).append(1, '=').append(value).append(1, '\n');
  size_t length = rest.size();
  while (std::to_string(length).size() + rest.size() != length) {
    length = std::to_string(length).size() + rest.size();
  }
  return std::to_string(length) + rest;
}

// Where a path is parted that does not fit into the name alone. 0: nowhere.
size_t partingSlash(std::string_view path) {
  size_t at = path.size();
  if (at > 1 && path[at - 1] == '/') --at;
  at = std::min(at, sizeof(Header::prefix));
  do {
    --at;
  } while (at > 0 && path[at] != '/');
  return path.size() - at - 1 <= sizeof(Header::name) ? at : 0;
}

class TarFormat final : public ArchiveFormat {
 public:
  TarFormat(const ObjectId& commit, int64_t seconds)
      : commit_(commit), seconds_(static_cast<uint64_t>(std::max<int64_t>(seconds, 0))) {}

  void begin(PackSink& out) override {
    std::string pax;
    if (!commit_.isZero()) pax += paxRecord("comment", commit_.hex().cStr());
    if (seconds_ > kNumberMax) {
      pax += paxRecord("mtime", std::to_string(seconds_));
      seconds_ = kNumberMax;
    }
    if (!pax.empty()) writePax(out, 'g', "pax_global_header", pax);
  }

  void file(PackSink& out, const ArchiveEntry& entry, kj::ArrayPtr<const kj::byte> content) override {
    writeHeader(out, entry, content);
    if (entry.type == ArchiveEntry::Type::kFile) data(out, content);
    endFile(out);
  }
  void beginFile(PackSink& out, const ArchiveEntry& entry) override { writeHeader(out, entry, nullptr); }
  void data(PackSink& out, kj::ArrayPtr<const kj::byte> bytes) override { put(out, bytes); }
  void endFile(PackSink& out) override { fill(out, kRecordBytes); }

  void end(PackSink& out) override {
    zeros(out, 2 * kRecordBytes);
    fill(out, kBlockBytes);
  }

 private:
  void put(PackSink& out, kj::ArrayPtr<const kj::byte> bytes) {
    if (bytes.size() == 0) return;
    out.write(bytes);
    written_ += bytes.size();
  }
  void zeros(PackSink& out, size_t count) {
    static constexpr kj::byte kZeros[kBlockBytes] = {};
    put(out, kj::arrayPtr(kZeros, count));
  }
  void fill(PackSink& out, size_t unit) { zeros(out, (unit - written_ % unit) % unit); }

  // `mode` and `size` and all that is equal in every header.
  void finishHeader(PackSink& out, Header& header, unsigned mode, uint64_t size) {
    setNumber(header.mode, mode);
    setNumber(header.size, size);
    setNumber(header.mtime, seconds_);
    setNumber(header.uid, 0);
    setNumber(header.gid, 0);
    setNumber(header.deviceMajor, 0);
    setNumber(header.deviceMinor, 0);
    memcpy(header.userName, "root", 4);
    memcpy(header.groupName, "root", 4);
    memcpy(header.magic, "ustar", 6);
    memcpy(header.version, "00", 2);
    memset(header.checksum, ' ', sizeof header.checksum);
    auto bytes = kj::arrayPtr(reinterpret_cast<const kj::byte*>(&header), sizeof header);
    uint64_t sum = 0;
    for (kj::byte byte : bytes) sum += byte;
    setNumber(header.checksum, sum);
    put(out, bytes);
  }

  void writePax(PackSink& out, char type, const std::string& name, const std::string& records) {
    Header header{};
    header.type = type;
    memcpy(header.name, name.data(), std::min(name.size(), sizeof header.name));
    finishHeader(out, header, 0666, records.size());
    put(out, kj::arrayPtr(reinterpret_cast<const kj::byte*>(records.data()), records.size()));
    fill(out, kRecordBytes);
  }

  void writeHeader(PackSink& out, const ArchiveEntry& entry, kj::ArrayPtr<const kj::byte> target) {
    using Type = ArchiveEntry::Type;
    const std::string hex = entry.id.hex().cStr();
    Header header{};
    std::string pax;
    unsigned mode = 0777;
    header.type = '2';
    if (entry.type == Type::kFolder) header.type = '5';
    if (entry.type == Type::kFile) header.type = '0';
    if (entry.type == Type::kFile && !entry.executable) mode = 0666;
    if (entry.type != Type::kLink) mode &= ~kUmask;
    setPath(header, entry.path, hex, pax);
    if (entry.type == Type::kLink) {
      std::string_view text(reinterpret_cast<const char*>(target.begin()), target.size());
      std::string placeholder = "see " + hex + ".paxheader";
      if (text.size() > sizeof header.linkName) {
        pax += paxRecord("linkpath", text);
        text = placeholder;
      }
      memcpy(header.linkName, text.data(), text.size());
    }
    uint64_t size = entry.type == Type::kFile ? entry.bytes : 0;
    if (size > kNumberMax) {
      pax += paxRecord("size", std::to_string(size));
      size = 0;
    }
    if (!pax.empty()) writePax(out, 'x', hex + ".paxheader", pax);
    finishHeader(out, header, mode, size);
  }

  static void setPath(Header& header, std::string_view path, const std::string& hex, std::string& pax) {
    if (path.size() <= sizeof header.name) {
      memcpy(header.name, path.data(), path.size());
      return;
    }
    if (const size_t slash = partingSlash(path)) {
      memcpy(header.prefix, path.data(), slash);
      memcpy(header.name, path.data() + slash + 1, path.size() - slash - 1);
      return;
    }
    const std::string placeholder = hex + ".data";
    memcpy(header.name, placeholder.data(), placeholder.size());
    pax += paxRecord("path", path);
  }

  const ObjectId commit_;
  uint64_t seconds_;
  uint64_t written_ = 0;
};

// A tar, compressed.
class TarGzFormat final : public ArchiveFormat {
 public:
  TarGzFormat(int level, std::unique_ptr<ArchiveFormat> tar)
      : deflate_(level, DeflateStream::Wrapping::kGzip), tar_(std::move(tar)) {}

  void begin(PackSink& out) override {
    Through through(deflate_, out);
    tar_->begin(through);
  }
  void file(PackSink& out, const ArchiveEntry& entry, kj::ArrayPtr<const kj::byte> content) override {
    Through through(deflate_, out);
    tar_->file(through, entry, content);
  }
  void beginFile(PackSink& out, const ArchiveEntry& entry) override {
    Through through(deflate_, out);
    tar_->beginFile(through, entry);
  }
  void data(PackSink& out, kj::ArrayPtr<const kj::byte> bytes) override {
    Through through(deflate_, out);
    tar_->data(through, bytes);
  }
  void endFile(PackSink& out) override {
    Through through(deflate_, out);
    tar_->endFile(through);
  }
  void end(PackSink& out) override {
    Through through(deflate_, out);
    tar_->end(through);
    deflate_.finish(out);
  }

 private:
  class Through final : public PackSink {
   public:
    Through(DeflateStream& deflate, PackSink& out) : deflate_(deflate), out_(out) {}
    void write(kj::ArrayPtr<const kj::byte> bytes) override { deflate_.write(out_, bytes); }

   private:
    DeflateStream& deflate_;
    PackSink& out_;
  };

  DeflateStream deflate_;
  std::unique_ptr<ArchiveFormat> tar_;
};

}  // namespace

std::unique_ptr<ArchiveFormat> makeTarFormat(const ObjectId& commit, int64_t seconds) {
  return std::make_unique<TarFormat>(commit, seconds);
}

std::unique_ptr<ArchiveFormat> ArchiveFormat::make(ArchiveFormatName name, int level, const ObjectId& commit,
                                                   int64_t seconds) {
  if (name == ArchiveFormatName::kZip) return makeZipFormat(level, commit, seconds);
  auto tar = makeTarFormat(commit, seconds);
  if (name == ArchiveFormatName::kTar) return tar;
  return std::make_unique<TarGzFormat>(level, std::move(tar));
}

}  // namespace packmoor::gitlayer
