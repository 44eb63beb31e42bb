#include "archive_format.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <zlib.h>

#include <algorithm>
#include <ctime>

namespace packmoor::gitlayer {
namespace {

constexpr uint32_t kFileMagic = 0x04034b50, kDescriptorMagic = 0x08074b50, kEntryMagic = 0x02014b50;
constexpr uint32_t kEndMagic = 0x06054b50, kEnd64Magic = 0x06064b50, kLocatorMagic = 0x07064b50;
constexpr uint16_t kTimeExtra = 0x5455, kSizesExtra = 0x0001;
constexpr uint16_t kSizesFollow = 1 << 3, kNameIsUtf8 = 1 << 11;
constexpr uint16_t kStored = 0, kDeflated = 8;
constexpr uint16_t kMadeOnUnix = 0x0317, kNeedsPlain = 10, kNeedsZip64 = 45;
constexpr uint32_t kMax32 = 0xffffffff;
constexpr uint64_t kMax31 = 0x7fffffff;
constexpr size_t kPathBytesMax = 0xffff;
constexpr uint32_t kEnd64Bytes = 44;    // behind its length

uint32_t clamp32(uint64_t value) { return static_cast<uint32_t>(std::min<uint64_t>(value, kMax32)); }

// Little-endian numbers and text, one after the other.
class Bytes {
 public:
  Bytes& u16(uint64_t value) { return number(value, 2); }
  Bytes& u32(uint64_t value) { return number(value, 4); }
  Bytes& u64(uint64_t value) { return number(value, 8); }
  Bytes& text(std::string_view text) {
    bytes_.append(text);
    return *this;
  }
  const std::string& str() const { return bytes_; }

 private:
  Bytes& number(uint64_t value, int bytes) {
    for (; bytes > 0; --bytes, value >>= 8) bytes_ += static_cast<char>(value & 0xff);
    return *this;
  }
  std::string bytes_;
};

bool isAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Well-formed, without overlong forms, surrogates and what is beyond Unicode.
bool isUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(at);
    size_t more = first < 0x80 ? 0 : first < 0xc2 ? 4 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : 4;
    if (more == 4 || text.size() - at <= more) return false;
    uint32_t code = more == 0 ? first : first & (0x3fu >> more);
    for (size_t i = 1; i <= more; ++i) {
      if ((byte(at + i) & 0xc0) != 0x80) return false;
      code = code << 6 | (byte(at + i) & 0x3f);
    }
    if ((more == 2 && code < 0x800) || (more == 3 && (code < 0x10000 || code > 0x10ffff)) ||
        (code >= 0xd800 && code < 0xe000)) {
      return false;
    }
    at += more + 1;
  }
  return true;
}

class ZipFormat final : public ArchiveFormat {
 public:
  ZipFormat(int level, const ObjectId& commit, int64_t seconds)
      : level_(level), commit_(commit), time_(static_cast<uint64_t>(std::max<int64_t>(seconds, 0))) {
    // What DOS can tell: 1980 to 2107.
    constexpr int64_t kFirst = 315532800, kLast = 4354819199;
    const time_t shown = static_cast<time_t>(std::clamp<int64_t>(seconds, kFirst, kLast));
    tm parts{};
    gmtime_r(&shown, &parts);
    dosDate_ = static_cast<uint16_t>(parts.tm_mday + (parts.tm_mon + 1) * 32 + (parts.tm_year - 80) * 512);
    dosTime_ = static_cast<uint16_t>(parts.tm_sec / 2 + parts.tm_min * 32 + parts.tm_hour * 2048);
  }

  void begin(PackSink&) override {}

  void file(PackSink& out, const ArchiveEntry& entry, kj::ArrayPtr<const kj::byte> content) override {
    open(entry);
    crc_ = static_cast<uint32_t>(crc32(0, content.begin(), static_cast<uInt>(content.size())));
    compressed_ = content.size();
    Collected collected;
    if (deflates(entry) && content.size() > 0) {
      DeflateStream deflate(level_, DeflateStream::Wrapping::kRaw);
      deflate.write(collected, content);
      deflate.finish(collected);
      if (collected.bytes.size() < content.size()) {
        method_ = kDeflated;
        compressed_ = collected.bytes.size();
        content = collected.bytes;
      }
    }
    writeHeader(out, false);
    put(out, content);
    close();
  }

  void beginFile(PackSink& out, const ArchiveEntry& entry) override {
    open(entry);
    flags_ |= kSizesFollow;
    if (deflates(entry)) {
      method_ = kDeflated;
      deflate_ = std::make_unique<DeflateStream>(level_, DeflateStream::Wrapping::kRaw);
    }
    compressed_ = method_ == kStored ? size_ : 0;
    writeHeader(out, true);
    compressed_ = 0;
  }

  void data(PackSink& out, kj::ArrayPtr<const kj::byte> bytes) override {
    crc_ = static_cast<uint32_t>(crc32(crc_, bytes.begin(), static_cast<uInt>(bytes.size())));
    if (deflate_ == nullptr) {
      put(out, bytes);
      compressed_ += bytes.size();
    } else {
      count(deflate_->write(out, bytes));
    }
  }

  void endFile(PackSink& out) override {
    if (deflate_ != nullptr) count(deflate_->finish(out));
    deflate_ = nullptr;
    Bytes descriptor;
    descriptor.u32(kDescriptorMagic).u32(crc_);
    if (size_ >= kMax32 || compressed_ >= kMax32) {
      descriptor.u64(compressed_).u64(size_);
    } else {
      descriptor.u32(compressed_).u32(size_);
    }
    put(out, descriptor);
    close();
  }

  void end(PackSink& out) override {
    const uint64_t directoryAt = offset_;
    put(out, directory_);
    const uint64_t bytes = directory_.size();
    if (entries_ > 0xffff || directoryAt > kMax32) {
      Bytes end64;
      end64.u32(kEnd64Magic).u64(kEnd64Bytes).u16(madeOn_).u16(kNeedsZip64).u32(0).u32(0);
      end64.u64(entries_).u64(entries_).u64(bytes).u64(directoryAt);
      end64.u32(kLocatorMagic).u32(0).u64(directoryAt + bytes).u32(1);
      put(out, end64);
    }
    const std::string comment = commit_.isZero() ? "" : commit_.hex().cStr();
    const uint64_t shown = std::min<uint64_t>(entries_, 0xffff);
    Bytes end;
    end.u32(kEndMagic).u16(0).u16(0).u16(shown).u16(shown).u32(bytes).u32(clamp32(directoryAt));
    end.u16(comment.size()).text(comment);
    put(out, end);
  }

 private:
  struct Collected final : PackSink {
    void write(kj::ArrayPtr<const kj::byte> more) override { bytes.addAll(more); }
    kj::Vector<kj::byte> bytes;
  };

  void put(PackSink& out, kj::ArrayPtr<const kj::byte> bytes) {
    if (bytes.size() > 0) out.write(bytes);
    offset_ += bytes.size();
  }
  void put(PackSink& out, const std::string& text) {
    put(out, kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()));
  }
  void put(PackSink& out, const Bytes& bytes) { put(out, bytes.str()); }
  void count(size_t compressed) {
    compressed_ += compressed;
    offset_ += compressed;
  }

  bool deflates(const ArchiveEntry& entry) const {
    return entry.type == ArchiveEntry::Type::kFile && level_ != 0;
  }

  // What is known of an entry before its content.
  void open(const ArchiveEntry& entry) {
    using Type = ArchiveEntry::Type;
    KJ_REQUIRE(entry.path.size() <= kPathBytesMax, "a path is too long for a zip archive");
    path_ = entry.path;
    at_ = offset_;
    size_ = entry.type == Type::kFolder ? 0 : entry.bytes;
    compressed_ = crc_ = 0;
    method_ = kStored;
    flags_ = !isAscii(path_) && isUtf8(path_) ? kNameIsUtf8 : 0;
    text_ = entry.text;
    attributes_ = entry.type == Type::kFolder ? 16
                  : entry.type == Type::kLink ? 0120777u << 16
                  : entry.executable          ? 0100755u << 16
                                              : 0;
    const bool marked = entry.type == Type::kLink || (entry.type == Type::kFile && entry.executable);
    madeBy_ = marked ? kMadeOnUnix : 0;
    madeOn_ = std::max(madeOn_, madeBy_);
  }

  std::string timeExtra() const {
    return Bytes().u16(kTimeExtra).u16(5).text("\x01").u32(time_ & kMax32).str();
  }

  void writeHeader(PackSink& out, bool streams) {
    const bool large = size_ > kMax32 || compressed_ > kMax32 || (streams && size_ > kMax31);
    needs_ = large ? kNeedsZip64 : kNeedsPlain;
    std::string extra = timeExtra();
    if (large) extra += Bytes().u16(kSizesExtra).u16(16).u64(size_).u64(compressed_).str();
    Bytes header;
    header.u32(kFileMagic).u16(needs_).u16(flags_).u16(method_).u16(dosTime_).u16(dosDate_).u32(crc_);
    header.u32(large ? kMax32 : compressed_).u32(large ? kMax32 : size_).u16(path_.size()).u16(extra.size());
    header.text(path_).text(extra);
    put(out, header);
  }

  // Enters what was written into the directory.
  void close() {
    std::string extra = timeExtra();
    if (compressed_ > kMax32 || size_ > kMax32 || at_ > kMax32) {
      Bytes sizes;
      if (size_ >= kMax32) sizes.u64(size_);
      if (compressed_ >= kMax32) sizes.u64(compressed_);
      if (at_ >= kMax32) sizes.u64(at_);
      extra += Bytes().u16(kSizesExtra).u16(sizes.str().size()).text(sizes.str()).str();
    }
    Bytes entry;
    entry.u32(kEntryMagic).u16(madeBy_).u16(needs_).u16(flags_).u16(method_).u16(dosTime_).u16(dosDate_);
    entry.u32(crc_).u32(clamp32(compressed_)).u32(clamp32(size_)).u16(path_.size()).u16(extra.size());
    entry.u16(0).u16(0).u16(text_ ? 1 : 0).u32(attributes_).u32(clamp32(at_)).text(path_).text(extra);
    directory_ += entry.str();
    ++entries_;
    KJ_REQUIRE(directory_.size() <= kZipDirectoryBytesMax,
               "there are too many files for a zip archive made here; ask for tar.gz");
  }

  const int level_;
  const ObjectId commit_;
  const uint64_t time_;
  uint16_t dosDate_ = 0, dosTime_ = 0;
  uint64_t offset_ = 0, entries_ = 0;
  uint16_t madeOn_ = 0;            // the highest of all entries
  std::string directory_;
  // The entry that is being written.
  std::string path_;
  uint64_t at_ = 0, size_ = 0, compressed_ = 0;
  uint32_t crc_ = 0, attributes_ = 0;
  uint16_t method_ = 0, flags_ = 0, madeBy_ = 0, needs_ = 0;
  bool text_ = false;
  std::unique_ptr<DeflateStream> deflate_;
};

}  // namespace

std::unique_ptr<ArchiveFormat> makeZipFormat(int level, const ObjectId& commit, int64_t seconds) {
  return std::make_unique<ZipFormat>(level, commit, seconds);
}

}  // namespace packmoor::gitlayer
